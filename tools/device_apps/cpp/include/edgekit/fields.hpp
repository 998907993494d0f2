// Objects of a manifest, read strictly: what stands there is what was meant, or is refused with the path to it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"
#include "json.hpp"
#include "text.hpp"

namespace edgekit::detail {

constexpr double largest_number = 1e30;  // float32 goes little further, and a quotient of two such still has to fit
constexpr double smallest_number = 1e-30;

inline std::string one_of(std::initializer_list<const char*> names) {
  return joined(std::vector<std::string>(names.begin(), names.end()));
}

/// One object, whose keys are known.
class Fields {
 public:
  /// @param strict refuse keys that are not known; a bundle of a newer minor version may have some.
  Fields(const Json& data, std::string where, std::initializer_list<const char*> keys, bool strict = true)
      : data_(data), where_(std::move(where)) {
    if (data.object() == nullptr) refuse_bundle(std::string("got ") + data.type_name(), where_, "expected an object");
    for (const char* key : keys) {
      if (data.find(key) == nullptr) refuse_bundle("missing", place(key), "each of the keys " + one_of(keys));
    }
    if (!strict) return;
    for (const auto& member : *data.object()) {
      bool known = false;
      for (const char* key : keys) known = known || member.key == key;
      if (!known) refuse_bundle("unknown key " + in_quotes(member.key), where_, "only " + one_of(keys));
    }
  }

  std::string place(std::string_view key) const { return where_ + "." + std::string(key); }
  const std::string& where() const noexcept { return where_; }
  const Json& at(std::string_view key) const { return *data_.find(key); }

  [[noreturn]] void fault(std::string_view key, std::string rule) const {
    refuse_bundle("got " + at(key).shown(), place(key), std::move(rule));
  }

  std::string text(std::string_view key, bool may_be_empty = false) const {
    const std::string* found = at(key).text();
    if (found == nullptr || (found->empty() && !may_be_empty)) fault(key, "a text");
    return *found;
  }
  std::optional<std::string> optional_text(std::string_view key) const {
    if (at(key).is_null()) return std::nullopt;
    const std::string* found = at(key).text();
    if (found == nullptr || found->empty()) fault(key, "null or a text");
    return *found;
  }
  std::string choice(std::string_view key, std::initializer_list<const char*> names) const {
    const std::string* found = at(key).text();
    for (const char* name : names) {
      if (found != nullptr && *found == name) return *found;
    }
    fault(key, "one of " + one_of(names));
  }
  bool flag(std::string_view key) const {
    const bool* found = at(key).boolean();
    if (found == nullptr) fault(key, "true or false");
    return *found;
  }
  std::int64_t whole(std::string_view key, std::int64_t low, std::int64_t high) const {
    const std::int64_t* found = at(key).integer();
    if (found == nullptr || *found < low || *found > high) {
      fault(key, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return *found;
  }
  std::optional<std::int64_t> optional_whole(std::string_view key, std::int64_t low, std::int64_t high) const {
    if (at(key).is_null()) return std::nullopt;
    const std::int64_t* found = at(key).integer();
    if (found == nullptr || *found < low || *found > high) {
      fault(key, "null or an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return *found;
  }
  void null(std::string_view key, const char* rule) const {
    if (!at(key).is_null()) fault(key, rule);
  }
  double number(std::string_view key, double low = -largest_number, double high = largest_number) const {
    if (!at(key).is_number() || !(at(key).number() >= low && at(key).number() <= high)) {
      fault(key, "a number from " + short_number(low) + " to " + short_number(high));
    }
    return at(key).number();
  }
  const Json::List& list(std::string_view key, const char* rule = "a list") const {
    if (at(key).list() == nullptr) fault(key, rule);
    return *at(key).list();
  }
  std::vector<double> numbers(std::string_view key, std::size_t count, double low, const std::string& rule) const {
    std::vector<double> found;
    for (const Json& item : list(key, rule.c_str())) {
      if (!item.is_number() || !(item.number() >= low && item.number() <= largest_number)) fault(key, rule);
      found.push_back(item.number());
    }
    if (found.size() != count) fault(key, rule);
    return found;
  }

 private:
  const Json& data_;
  std::string where_;
};

}  // namespace edgekit::detail
