// Image resizing, to the values that training saw (edgekit/device/processing/resize.py).
//
// Antialiased is Pillow's: the filter widens with the reduction, weights are fixed-point numbers of 22 bits, and bytes
// are rounded between the passes (src/libImaging/Resample.c). Not antialiased is torch's and OpenCV's: the same few
// taps whatever the reduction, in double precision, rounded once, half up.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "error.hpp"

namespace edgekit {

/// Bytes of an image that somebody else holds: RGB order or grey, row after row from the top.
struct ImageView {
  std::size_t height = 0, width = 0;
  std::size_t channels = 3;  ///< 3 (RGB) or 1 (grey)
  const std::uint8_t* pixels = nullptr;
  std::size_t row_bytes = 0;  ///< from one row to the next; 0 where rows follow each other without gap
};

/// An image that holds its bytes.
struct Image {
  std::size_t height = 0, width = 0;
  std::size_t channels = 3;  ///< 3 (RGB) or 1 (grey)
  std::vector<std::uint8_t> pixels;

  ImageView view() const noexcept { return {height, width, channels, pixels.data(), 0}; }
  operator ImageView() const noexcept { return view(); }  // NOLINT: an image goes wherever a view does
};

namespace detail {

enum class Filter { bilinear, bicubic, nearest };

inline Image blank(std::size_t height, std::size_t width, std::size_t channels, std::uint8_t value) {
  return {height, width, channels, std::vector<std::uint8_t>(height * width * channels, value)};
}

/// Keys' cubic of a distance from 0 up (Cubic Convolution Interpolation for Digital Image Processing, 1981).
inline double keys_cubic(double distance, double a) noexcept {
  if (distance < 1.0) return ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0;
  if (distance < 2.0) return (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a;
  return 0.0;
}

/// For each new row or column the old one it begins with, and its weights.
template <class Weight>
struct Taps {
  std::size_t most = 0;
  std::vector<std::size_t> index;  // [new * most]
  std::vector<Weight> weight;      // [new * most]
};

inline Taps<std::int32_t> fixed_point_taps(std::size_t old_size, std::size_t new_size, Filter filter) {
  const double scale = static_cast<double>(old_size) / static_cast<double>(new_size);
  const double stretch = std::max(scale, 1.0);
  const double support = stretch * (filter == Filter::bilinear ? 1.0 : 2.0);
  Taps<std::int32_t> taps;
  taps.most = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
  taps.index.assign(new_size * taps.most, 0);
  taps.weight.assign(new_size * taps.most, 0);
  std::vector<double> height(taps.most);
  for (std::size_t i = 0; i < new_size; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<std::size_t>(std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0));
    const auto last = std::min(static_cast<std::size_t>(static_cast<std::int64_t>(centre + support + 0.5)), old_size);
    double total = 0.0;
    for (std::size_t tap = 0; tap < taps.most; ++tap) {
      const double distance = std::fabs((static_cast<double>(first + tap) - centre + 0.5) * (1.0 / stretch));
      const double value = filter == Filter::bilinear ? std::max(1.0 - distance, 0.0) : keys_cubic(distance, -0.5);
      height[tap] = first + tap < last ? value : 0.0;
      total += height[tap];
    }
    for (std::size_t tap = 0; tap < taps.most; ++tap) {
      const double share = height[tap] / total;
      taps.index[i * taps.most + tap] = std::min(first + tap, old_size - 1);  // beyond the edge the weight is zero
      taps.weight[i * taps.most + tap] = static_cast<std::int32_t>(share * (1 << 22) + std::copysign(0.5, share));
    }
  }
  return taps;
}

inline Taps<double> interpolation_taps(std::size_t old_size, std::size_t new_size, Filter filter) {
  Taps<double> taps;
  taps.most = filter == Filter::bilinear ? 2 : 4;
  const std::int64_t before = filter == Filter::bilinear ? 0 : -1, edge = static_cast<std::int64_t>(old_size) - 1;
  for (std::size_t i = 0; i < new_size; ++i) {
    const double where = (static_cast<double>(i) + 0.5) * static_cast<double>(old_size) / static_cast<double>(new_size) - 0.5;
    const double base = std::floor(where);
    for (std::size_t tap = 0; tap < taps.most; ++tap) {
      const std::int64_t step = before + static_cast<std::int64_t>(tap);
      const double distance = std::fabs(where - base - static_cast<double>(step));
      taps.weight.push_back(filter == Filter::bilinear ? 1.0 - distance : keys_cubic(distance, -0.75));
      // Beyond the edge the last pixel goes on.
      const std::int64_t at = static_cast<std::int64_t>(base) + step;
      taps.index.push_back(static_cast<std::size_t>(std::min(std::max<std::int64_t>(at, 0), edge)));
    }
  }
  return taps;
}

inline std::uint8_t finished(std::int32_t sum) noexcept {
  return static_cast<std::uint8_t>(std::min(std::max(sum >> 22, 0), 255));
}

/// Both passes: columns, then rows. `Sum` is what products add up in, `start` what a sum begins with.
template <class Sum, class Between, class Weight, class ToBetween, class ToByte>
Image resampled(const Image& image, std::size_t height, std::size_t width, const Taps<Weight>& across,
                const Taps<Weight>& down, Sum start, ToBetween to_between, ToByte to_byte) {
  const std::size_t channels = image.channels, row = width * channels;
  std::vector<Between> wide(image.height * row);
  for (std::size_t y = 0; y < image.height; ++y) {
    const std::uint8_t* from = image.pixels.data() + y * image.width * channels;
    Between* to = wide.data() + y * row;
    for (std::size_t x = 0; x < width; ++x) {
      for (std::size_t c = 0; c < channels; ++c) {
        Sum sum = start;
        for (std::size_t tap = 0; tap < across.most; ++tap) {
          const std::size_t place = x * across.most + tap;
          sum += static_cast<Sum>(from[across.index[place] * channels + c]) * across.weight[place];
        }
        *to++ = to_between(sum);
      }
    }
  }
  Image made = blank(height, width, channels, 0);
  std::vector<Sum> sums(row);
  for (std::size_t y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), start);
    for (std::size_t tap = 0; tap < down.most; ++tap) {
      const Between* from = wide.data() + down.index[y * down.most + tap] * row;
      const Weight weight = down.weight[y * down.most + tap];
      for (std::size_t i = 0; i < row; ++i) sums[i] += static_cast<Sum>(from[i]) * weight;
    }
    std::uint8_t* to = made.pixels.data() + y * row;
    for (std::size_t i = 0; i < row; ++i) to[i] = to_byte(sums[i]);
  }
  return made;
}

/// The pixel of each new one. Pillow adds the step again and again; so do we: multiplying rounds differently at ties.
inline std::vector<std::size_t> nearest_index(std::size_t old_size, std::size_t new_size) {
  const double step = static_cast<double>(old_size) / static_cast<double>(new_size);
  std::vector<std::size_t> index;
  double at = step * 0.5;
  for (std::size_t i = 0; i < new_size; ++i, at += step) {
    index.push_back(std::min(static_cast<std::size_t>(at), old_size - 1));
  }
  return index;
}

inline Image nearest(const Image& image, std::size_t height, std::size_t width) {
  const auto rows = nearest_index(image.height, height), columns = nearest_index(image.width, width);
  Image made = blank(height, width, image.channels, 0);
  std::uint8_t* to = made.pixels.data();
  for (const std::size_t y : rows) {
    for (const std::size_t x : columns) {
      const std::uint8_t* from = image.pixels.data() + (y * image.width + x) * image.channels;
      to = std::copy(from, from + image.channels, to);
    }
  }
  return made;
}

/// Taps that copy: one of weight 1, for a side that keeps its size.
inline Taps<std::int32_t> copying_taps(std::size_t size) {
  Taps<std::int32_t> taps;
  taps.most = 1;
  for (std::size_t i = 0; i < size; ++i) taps.index.push_back(i), taps.weight.push_back(1 << 22);
  return taps;
}

/// `image` at another size.
inline Image resize(const Image& image, std::size_t height, std::size_t width, Filter filter, bool antialias) {
  if (filter == Filter::nearest) return nearest(image, height, width);
  if (antialias) {
    const auto taps = [&](std::size_t old_size, std::size_t new_size) {
      return old_size == new_size ? copying_taps(old_size) : fixed_point_taps(old_size, new_size, filter);
    };
    return resampled<std::int32_t, std::uint8_t>(image, height, width, taps(image.width, width),
                                                 taps(image.height, height), 1 << 21, finished, finished);
  }
  const auto rounded = [](double sum) {
    return static_cast<std::uint8_t>(std::min(std::max(std::floor(sum + 0.5), 0.0), 255.0));
  };
  return resampled<double, double>(image, height, width, interpolation_taps(image.width, width, filter),
                                   interpolation_taps(image.height, height, filter), 0.0,
                                   [](double sum) { return sum; }, rounded);
}

}  // namespace detail
}  // namespace edgekit
