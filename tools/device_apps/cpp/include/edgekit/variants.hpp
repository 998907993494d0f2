// Which of a bundle's files runs on this machine, and why (edgekit/device/variants.py).
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
#include "manifest.hpp"
#include "text.hpp"

namespace edgekit {

/// A variant, the reason it was taken, and what ONNX Runtime must be told.
struct Choice {
  Variant variant;
  std::string reason;
  std::string compromise;  ///< what is wrong with it here; empty where it was made for this machine
  std::vector<std::pair<std::string, std::string>> config;
};

namespace detail {

inline bool fits(const Variant& variant, const std::string& isa) {
  if (variant.provider != "cpu" || variant.target == "any") return true;
  // VNNI instructions are on top of AVX2; the AVX2 file is right there too, only less precise.
  if (isa == "x86-vnni") return variant.target == "x86-vnni" || variant.target == "x86-avx2";
  return (isa == "x86-avx2" || isa == "arm64") && variant.target == isa;
}

inline Choice compromise(const Variant& variant, const std::string& isa) {
  Choice made{variant, "nothing in the bundle was made for this processor",
              "it was made for " + variant.target + ", and this processor is " + isa +
                  ": it may be slower, and its outputs may differ",
              {}};
  if (variant.precision.find("int8") != std::string::npos && (isa == "x86-avx2" || isa == "x86")) {
    // VPMADDUBSW adds pairs of U8 x S8 products in 16 bits, which overflow; this key makes ONNX Runtime avoid it.
    made.config.emplace_back("session.x64quantprecision", "1");
    made.compromise += "; ONNX Runtime is told to avoid the 16-bit sums that would overflow without VNNI";
  }
  return made;
}

/// The variants that can run here, best first: those made for this machine in the bundle's order, which is its author's
/// preference; then, as compromises, those for another processor, float before int8.
inline std::vector<Choice> rank(const std::vector<Variant>& variants, const std::optional<std::string>& provider,
                                const std::vector<std::string>& available, const std::string& isa) {
  const auto there = [&available](const std::string& name) {
    return std::find(available.begin(), available.end(), provider_name(name)) != available.end();
  };
  if (provider && provider_name(*provider).empty()) {
    refuse(Kind::provider, "unknown provider " + in_quotes(*provider), "provider", "one of cpu, cuda, tensorrt");
  }
  if (provider && !there(*provider)) {
    refuse(Kind::provider, "provider " + in_quotes(*provider) + " is not in this onnxruntime", "provider",
           "available here: " + joined(available), "use an ONNX Runtime library that was built with it");
  }
  std::vector<Choice> fitting, others;
  std::vector<std::string> all;
  for (const Variant& variant : variants) {
    all.push_back(variant.text());
    if (!there(variant.provider) || (provider && *provider != variant.provider)) continue;
    if (fits(variant, isa)) {
      fitting.push_back({variant, "made for " + variant.target + "; this processor is " + isa, {}, {}});
    } else {
      others.push_back(compromise(variant, isa));
    }
  }
  std::stable_partition(others.begin(), others.end(), [](const Choice& each) {
    return each.variant.precision.find("int8") == std::string::npos;
  });
  fitting.insert(fitting.end(), others.begin(), others.end());
  if (fitting.empty()) {
    refuse(Kind::provider, "no variant runs on " + provider.value_or("a provider of this onnxruntime"), "bundle",
           "it has " + joined(all),
           "ask for a provider that the bundle has a variant for, or bundle the model for this one");
  }
  return fitting;
}

}  // namespace detail
}  // namespace edgekit
