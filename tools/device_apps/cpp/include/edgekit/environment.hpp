// Which processor this is, in the words that variants are told apart by.
#pragma once

#include <cstdint>
#include <string>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(_M_X64)
#include <intrin.h>
#endif

namespace edgekit {
namespace detail {

#if defined(__x86_64__) || defined(_M_X64) || defined(__i386__)

struct CpuLeaf {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

inline CpuLeaf cpu_leaf(std::uint32_t leaf, std::uint32_t sub) noexcept {
  CpuLeaf found;
#if defined(_M_X64) && !defined(__GNUC__)
  int most[4], registers[4];
  __cpuid(most, 0);
  if (static_cast<std::uint32_t>(most[0]) < leaf) return found;
  __cpuidex(registers, static_cast<int>(leaf), static_cast<int>(sub));
  found.eax = static_cast<std::uint32_t>(registers[0]), found.ebx = static_cast<std::uint32_t>(registers[1]);
  found.ecx = static_cast<std::uint32_t>(registers[2]), found.edx = static_cast<std::uint32_t>(registers[3]);
#else
  if (__get_cpuid_count(leaf, sub, &found.eax, &found.ebx, &found.ecx, &found.edx) == 0) return {};
#endif
  return found;
}

/// The register states that the operating system saves (XCR0).
inline std::uint64_t saved_states() noexcept {
  if ((cpu_leaf(1, 0).ecx >> 27 & 1u) == 0) return 0;  // OSXSAVE
#if defined(_M_X64) && !defined(__GNUC__)
  return _xgetbv(0);
#else
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
#endif
}

#endif

}  // namespace detail

/// Which int8 file suits this processor: `x86-vnni`, `x86-avx2`, `x86`, `arm64`, or `unknown` for another one.
inline std::string isa_target() {
#if defined(__aarch64__) || defined(_M_ARM64)
  return "arm64";
#elif defined(__x86_64__) || defined(_M_X64)
  const std::uint64_t saved = detail::saved_states();
  const bool avx = (saved & 0x6u) == 0x6u, avx512 = (saved & 0xE6u) == 0xE6u;
  const detail::CpuLeaf seven = detail::cpu_leaf(7, 0);
  const bool vnni512 = avx512 && (seven.ecx >> 11 & 1u) != 0;
  const bool vnni = avx && seven.eax >= 1 && (detail::cpu_leaf(7, 1).eax >> 4 & 1u) != 0;
  if (vnni512 || vnni) return "x86-vnni";
  return avx && (seven.ebx >> 5 & 1u) != 0 ? "x86-avx2" : "x86";
#elif defined(__i386__)
  return "i686";
#elif defined(__arm__)
  return "armv7l";
#else
  return "unknown";
#endif
}

}  // namespace edgekit
