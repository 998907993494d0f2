// Tensors: numbers with a type and a shape, as ONNX Runtime takes and gives them; and .npy, the file format of one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "error.hpp"
#include "files.hpp"
#include "text.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgekit's files are little-endian, and so is every machine it has been tried on"
#endif

namespace edgekit {

/// Types of numbers, with ONNX's values.
enum class DType : int {
  float32 = 1, uint8 = 2, int8 = 3, uint16 = 4, int16 = 5, int32 = 6, int64 = 7,
  boolean = 9, float16 = 10, float64 = 11, uint32 = 12, uint64 = 13,
};

namespace detail {

struct DTypeInfo {
  DType dtype;
  const char* name;   ///< numpy's, which is the bundle's
  const char* descr;  ///< .npy's
  std::size_t size;
};

inline constexpr DTypeInfo dtypes[] = {
    {DType::boolean, "bool", "|b1", 1},    {DType::float16, "float16", "<f2", 2}, {DType::float32, "float32", "<f4", 4},
    {DType::float64, "float64", "<f8", 8}, {DType::int16, "int16", "<i2", 2},     {DType::int32, "int32", "<i4", 4},
    {DType::int64, "int64", "<i8", 8},     {DType::int8, "int8", "|i1", 1},       {DType::uint16, "uint16", "<u2", 2},
    {DType::uint32, "uint32", "<u4", 4},   {DType::uint64, "uint64", "<u8", 8},   {DType::uint8, "uint8", "|u1", 1},
};

inline const DTypeInfo& info(DType dtype) noexcept {
  for (const DTypeInfo& each : dtypes) {
    if (each.dtype == dtype) return each;
  }
  return dtypes[0];
}

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = DType::float32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::float64; };
template <> struct dtype_of<std::uint8_t> { static constexpr DType value = DType::uint8; };
template <> struct dtype_of<std::int8_t> { static constexpr DType value = DType::int8; };
template <> struct dtype_of<std::uint16_t> { static constexpr DType value = DType::uint16; };
template <> struct dtype_of<std::int16_t> { static constexpr DType value = DType::int16; };
template <> struct dtype_of<std::uint32_t> { static constexpr DType value = DType::uint32; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::int32; };
template <> struct dtype_of<std::uint64_t> { static constexpr DType value = DType::uint64; };
template <> struct dtype_of<std::int64_t> { static constexpr DType value = DType::int64; };

/// Product of a shape, or SIZE_MAX where it does not fit.
inline std::size_t element_count(const std::vector<std::int64_t>& shape) noexcept {
  std::size_t count = 1;
  for (const std::int64_t side : shape) {
    if (side == 0) return 0;
  }
  for (const std::int64_t side : shape) {
    if (side < 0 || count > std::numeric_limits<std::size_t>::max() / 16 / static_cast<std::size_t>(side)) {
      return std::numeric_limits<std::size_t>::max();
    }
    count *= static_cast<std::size_t>(side);
  }
  return count;
}

/// IEEE 754 binary16 as a double.
inline double half_to_double(std::uint16_t bits) noexcept {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double size = exponent == 31 ? (fraction != 0 ? std::nan("") : HUGE_VAL)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(fraction + 1024, exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

}  // namespace detail

/// Numbers with a type and a shape, in C order.
struct Tensor {
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;

  /// A tensor of `values`; the shape's product must be their number, else the model refuses it.
  template <class T>
  static Tensor of(std::vector<std::int64_t> shape, const std::vector<T>& values) {
    Tensor made{detail::dtype_of<T>::value, std::move(shape), {}};
    made.bytes.resize(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(made.bytes.data(), values.data(), made.bytes.size());
    return made;
  }

  /// How many numbers there are.
  std::size_t count() const noexcept { return bytes.size() / detail::info(dtype).size; }

  /// The numbers as `T`; empty if that is not their type.
  template <class T>
  std::vector<T> values() const {
    if (dtype != detail::dtype_of<T>::value) return {};
    std::vector<T> out(count());
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }

  /// The numbers as doubles, whatever their type.
  std::vector<double> doubles() const {
    const auto converted = [this](auto zero) {
      using T = decltype(zero);
      std::vector<double> out(count());
      for (std::size_t i = 0; i < out.size(); ++i) {
        T value;
        std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
        out[i] = static_cast<double>(value);
      }
      return out;
    };
    switch (dtype) {
      case DType::float32: return converted(float{});
      case DType::float64: return converted(double{});
      case DType::int8: return converted(std::int8_t{});
      case DType::int16: return converted(std::int16_t{});
      case DType::int32: return converted(std::int32_t{});
      case DType::int64: return converted(std::int64_t{});
      case DType::uint16: return converted(std::uint16_t{});
      case DType::uint32: return converted(std::uint32_t{});
      case DType::uint64: return converted(std::uint64_t{});
      case DType::float16: {
        std::vector<double> out(count());
        for (std::size_t i = 0; i < out.size(); ++i) {
          std::uint16_t bits;
          std::memcpy(&bits, bytes.data() + 2 * i, 2);
          out[i] = detail::half_to_double(bits);
        }
        return out;
      }
      default: return converted(std::uint8_t{});
    }
  }

  /// Type and shape, as errors write them.
  std::string text() const { return std::string(detail::info(dtype).name) + " " + detail::listed(shape); }
};

/// Tensors by name.
using Tensors = std::map<std::string, Tensor>;

namespace detail {

/// The array of an .npy file of version 1.0 (numpy.lib.format).
class NpyParser {
 public:
  NpyParser(std::string_view data, std::string where, Kind kind) : data_(data), where_(std::move(where)), kind_(kind) {}

  Tensor parse() {
    if (data_.size() < 10 || data_.substr(0, 6) != "\x93NUMPY") fault("not an .npy file", "an array of numbers");
    if (data_[6] != 1 || data_[7] != 0) fault("another .npy version", "version 1.0");
    const std::size_t length = static_cast<unsigned char>(data_[8]) + 256u * static_cast<unsigned char>(data_[9]);
    if (data_.size() - 10 < length) fault("the header ends too early", "a whole .npy file");
    header_ = data_.substr(10, length);
    Tensor made = read_header();
    const std::string_view body = data_.substr(10 + length);
    const std::size_t count = element_count(made.shape), size = info(made.dtype).size;
    if (count == std::numeric_limits<std::size_t>::max() || count * size != body.size()) {
      fault(std::to_string(body.size()) + " bytes for " + made.text(), "as many bytes as the shape asks for");
    }
    made.bytes.assign(body.begin(), body.end());
    return made;
  }

 private:
  [[noreturn]] void fault(std::string problem, std::string rule) const {
    refuse(kind_, std::move(problem), where_, std::move(rule));
  }

  void space() noexcept {
    while (!header_.empty() && (header_[0] == ' ' || header_[0] == '\n')) header_.remove_prefix(1);
  }
  bool take(char wanted) noexcept {
    space();
    if (header_.empty() || header_[0] != wanted) return false;
    header_.remove_prefix(1);
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fault("a malformed header", "the dictionary that numpy writes");
  }
  std::string_view text() {
    expect('\'');
    const std::size_t end = header_.find('\'');
    if (end == std::string_view::npos) fault("a malformed header", "the dictionary that numpy writes");
    const std::string_view found = header_.substr(0, end);
    header_.remove_prefix(end + 1);
    return found;
  }
  bool word(std::string_view wanted) noexcept {
    space();
    if (header_.substr(0, wanted.size()) != wanted) return false;
    header_.remove_prefix(wanted.size());
    return true;
  }

  Tensor read_header() {
    Tensor made;
    bool has_type = false, has_order = false, has_shape = false;
    expect('{');
    while (!take('}')) {
      const std::string_view key = text();
      expect(':');
      if (key == "descr" && !has_type) {
        space();
        const std::string_view descr = text();
        for (const DTypeInfo& each : dtypes) {
          if (descr == each.descr) made.dtype = each.dtype, has_type = true;
        }
        if (!has_type) fault("an array of " + in_quotes(descr), "numbers, little-endian");
      } else if (key == "fortran_order" && !has_order) {
        if (!word("False")) fault("an array in Fortran's order", "numbers in C order");
        has_order = true;
      } else if (key == "shape" && !has_shape) {
        made.shape = read_shape();
        has_shape = true;
      } else {
        fault("a malformed header", "descr, fortran_order and shape");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    space();
    if (!has_type || !has_order || !has_shape || !header_.empty()) {
      fault("a malformed header", "descr, fortran_order and shape");
    }
    return made;
  }

  std::vector<std::int64_t> read_shape() {
    std::vector<std::int64_t> shape;
    expect('(');
    while (!take(')')) {
      space();
      std::int64_t side = 0;
      std::size_t digits = 0;
      while (digits < header_.size() && header_[digits] >= '0' && header_[digits] <= '9' && digits < 18) {
        side = side * 10 + (header_[digits++] - '0');
      }
      if (digits == 0 || shape.size() >= 32) fault("a malformed shape", "a tuple of sizes");
      header_.remove_prefix(digits);
      shape.push_back(side);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view data_, header_;
  std::string where_;
  Kind kind_;
};

}  // namespace detail
}  // namespace edgekit
