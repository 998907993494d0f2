// From an image to a model's input, exactly as in training (edgekit/device/processing/{image,geometry}.py).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fields.hpp"
#include "resize.hpp"
#include "tensor.hpp"

namespace edgekit::detail {

constexpr std::int64_t max_side = 16'384;
constexpr std::int64_t max_pixels = 100'000'000;

/// Cut a part out of an image, resize it, lay it on a canvas; in pixels. And the way back, for boxes.
struct Geometry {
  std::int64_t cut_top = 0, cut_left = 0, cut_height = 0, cut_width = 0;
  std::int64_t resized_height = 0, resized_width = 0;
  std::int64_t offset_top = 0, offset_left = 0;  ///< negative where the canvas shows the part's middle only

  /// A box x1, y1, x2, y2 of the canvas in pixels of the image.
  std::array<double, 4> back(const std::array<double, 4>& box) const noexcept {
    const double x = static_cast<double>(cut_width) / static_cast<double>(resized_width);
    const double y = static_cast<double>(cut_height) / static_cast<double>(resized_height);
    const auto moved = [](double side, std::int64_t offset, double factor, std::int64_t begin) {
      return (side - static_cast<double>(offset)) * factor + static_cast<double>(begin);
    };
    return {moved(box[0], offset_left, x, cut_left), moved(box[1], offset_top, y, cut_top),
            moved(box[2], offset_left, x, cut_left), moved(box[3], offset_top, y, cut_top)};
  }
};

/// Half of a difference, rounded half to even, as Python and torchvision's CenterCrop round.
inline std::int64_t half_to_even(std::int64_t difference) noexcept {
  const std::int64_t half = difference / 2;
  return difference % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

/// How an image becomes a model's input: colours, geometry, then (value * scale - mean) / std.
struct ImagePreprocessing {
  std::int64_t height = 0, width = 0;
  std::string fit;
  std::int64_t shorter_side = 0;
  std::uint8_t pad = 0;
  Filter filter = Filter::bilinear;
  bool antialias = true;
  std::string colour;
  double scale = 1.0;
  std::vector<double> mean, std;
  bool channels_first = true;

  std::size_t channels() const noexcept { return colour == "grey" ? 1 : 3; }

  static ImagePreprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "size", "fit", "shorter_side", "pad", "filter", "antialias", "colour",
                                      "scale", "mean", "std", "layout"}, strict);
    ImagePreprocessing made;
    made.fit = fields.choice("fit", {"stretch", "resize-crop", "crop-resize", "letterbox"});
    const std::string filter = fields.choice("filter", {"bilinear", "bicubic", "nearest"});
    made.filter = filter == "bilinear" ? Filter::bilinear : filter == "bicubic" ? Filter::bicubic : Filter::nearest;
    made.colour = fields.choice("colour", {"RGB", "BGR", "grey"});
    made.channels_first = fields.choice("layout", {"NCHW", "NHWC"}) == "NCHW";
    const std::string sides = "height and width in pixels, 1 to " + std::to_string(max_side);
    const Json::List& size = fields.list("size", sides.c_str());
    for (const Json& side : size) {
      if (side.integer() == nullptr || *side.integer() < 1 || *side.integer() > max_side) fields.fault("size", sides);
    }
    if (size.size() != 2) fields.fault("size", sides);
    made.height = *size[0].integer(), made.width = *size[1].integer();
    if (made.fit == "resize-crop") {
      made.shorter_side = fields.whole("shorter_side", std::max(made.height, made.width), max_side);
    } else {
      fields.null("shorter_side", "null, but for the fit resize-crop");
    }
    if (made.fit == "letterbox") {
      made.pad = static_cast<std::uint8_t>(fields.whole("pad", 0, 255));
    } else {
      fields.null("pad", "null, but for the fit letterbox");
    }
    made.antialias = fields.flag("antialias");
    if (made.filter == Filter::nearest && made.antialias) fields.fault("antialias", "false for the filter nearest");
    made.scale = fields.number("scale", smallest_number);
    const std::string count = std::to_string(made.channels()), each = " numbers, one for each channel of " + made.colour;
    made.mean = fields.numbers("mean", made.channels(), -largest_number, count + " finite" + each);
    made.std = fields.numbers("std", made.channels(), smallest_number, count + " positive" + each);
    return made;
  }

  /// Where an image of `h` by `w` pixels lands in the model's input.
  Geometry geometry(std::int64_t h, std::int64_t w) const {
    Geometry placed{0, 0, h, w, height, width, 0, 0};
    if (fit == "resize-crop") {
      placed.resized_height = h <= w ? shorter_side : shorter_side * h / w;
      placed.resized_width = h <= w ? shorter_side * w / h : shorter_side;
      placed.offset_top = -half_to_even(placed.resized_height - height);
      placed.offset_left = -half_to_even(placed.resized_width - width);
    } else if (fit == "crop-resize") {
      const bool wide = w * height > h * width;
      placed.cut_height = wide ? h : std::max<std::int64_t>(1, w * height / width);
      placed.cut_width = wide ? std::max<std::int64_t>(1, h * width / height) : w;
      placed.cut_top = (h - placed.cut_height) / 2, placed.cut_left = (w - placed.cut_width) / 2;
    } else if (fit == "letterbox") {
      const double factor = std::min(static_cast<double>(height) / static_cast<double>(h),
                                     static_cast<double>(width) / static_cast<double>(w));
      const auto fitted = [factor](std::int64_t side, std::int64_t most) {
        const auto rounded = static_cast<std::int64_t>(std::floor(static_cast<double>(side) * factor + 0.5));
        return std::max<std::int64_t>(1, std::min(most, rounded));
      };
      placed.resized_height = fitted(h, height), placed.resized_width = fitted(w, width);
      placed.offset_top = (height - placed.resized_height) / 2, placed.offset_left = (width - placed.resized_width) / 2;
    }
    if (placed.resized_height * placed.resized_width > max_pixels) {
      refuse(Kind::data, "an image of " + std::to_string(h) + " x " + std::to_string(w) + " pixels", "image",
             "at most " + std::to_string(max_pixels) + " pixels when its shorter side is resized to " +
                 std::to_string(shorter_side),
             "cut the image into parts that are less long");
    }
    return placed;
  }

  /// The model's input float32 [1, C, H, W] or [1, H, W, C] of one image.
  Tensor apply(const ImageView& image) const {
    check(image);
    const Geometry placed = geometry(static_cast<std::int64_t>(image.height), static_cast<std::int64_t>(image.width));
    return normalized(canvas(image, placed));
  }

  /// Refuse what is no image.
  static void check(const ImageView& image) {
    const bool sized = image.height >= 1 && image.width >= 1 && image.height <= static_cast<std::size_t>(max_pixels) &&
                       image.width <= static_cast<std::size_t>(max_pixels) / image.height;
    const bool packed = image.row_bytes == 0 || image.row_bytes >= image.width * image.channels;
    if (image.pixels == nullptr || !sized || (image.channels != 1 && image.channels != 3) || !packed) {
      refuse(Kind::data,
             "got an image [" + std::to_string(image.height) + ", " + std::to_string(image.width) + ", " +
                 std::to_string(image.channels) + "]",
             "image", "bytes [height, width, 3] in RGB order or [height, width, 1] grey, at most 100 megapixels",
             "drop an alpha channel; a prepared tensor goes to predict as a Tensor");
    }
  }

 private:
  /// The part of the image that is used, in the model's colours.
  Image coloured(const ImageView& image, const Geometry& placed) const {
    const std::size_t row = image.row_bytes != 0 ? image.row_bytes : image.width * image.channels;
    Image made = blank(static_cast<std::size_t>(placed.cut_height), static_cast<std::size_t>(placed.cut_width),
                       channels(), 0);
    std::uint8_t* to = made.pixels.data();
    for (std::size_t y = 0; y < made.height; ++y) {
      const std::uint8_t* from = image.pixels + (y + static_cast<std::size_t>(placed.cut_top)) * row +
                                 static_cast<std::size_t>(placed.cut_left) * image.channels;
      for (std::size_t x = 0; x < made.width; ++x, from += image.channels) {
        const std::uint8_t red = from[0], green = from[image.channels == 3 ? 1 : 0], blue = from[image.channels - 1];
        if (made.channels == 1) {
          // ITU-R 601-2 luma in 16-bit fixed point, as Pillow's convert("L").
          *to++ = image.channels == 1
                      ? red
                      : static_cast<std::uint8_t>((19595u * red + 38470u * green + 7471u * blue + 0x8000u) >> 16);
        } else {
          *to++ = colour == "BGR" ? blue : red, *to++ = green, *to++ = colour == "BGR" ? red : blue;
        }
      }
    }
    return made;
  }

  Image canvas(const ImageView& image, const Geometry& placed) const {
    const Image part = resize(coloured(image, placed), static_cast<std::size_t>(placed.resized_height),
                              static_cast<std::size_t>(placed.resized_width), filter, antialias);
    Image made = blank(static_cast<std::size_t>(height), static_cast<std::size_t>(width), channels(), pad);
    const auto at = [](std::int64_t offset) { return static_cast<std::size_t>(std::max<std::int64_t>(offset, 0)); };
    const std::size_t from_top = at(-placed.offset_top), from_left = at(-placed.offset_left);
    const std::size_t to_top = at(placed.offset_top), to_left = at(placed.offset_left);
    const std::size_t rows = std::min(part.height - from_top, made.height - to_top);
    const std::size_t columns = std::min(part.width - from_left, made.width - to_left);
    for (std::size_t y = 0; y < rows; ++y) {
      const std::uint8_t* from = part.pixels.data() + ((y + from_top) * part.width + from_left) * part.channels;
      std::copy(from, from + columns * part.channels,
                made.pixels.data() + ((y + to_top) * made.width + to_left) * made.channels);
    }
    return made;
  }

  Tensor normalized(const Image& image) const {
    const std::size_t count = image.channels, area = image.height * image.width;
    std::vector<float> values(area * count);
    for (std::size_t c = 0; c < count; ++c) {
      // Bytes have 256 values. A division, because torch's ToTensor divides: multiplying by 1/255 differs in the last bit.
      std::array<float, 256> table{};
      for (std::size_t byte = 0; byte < 256; ++byte) {
        const float scaled = static_cast<float>(byte) / static_cast<float>(1.0 / scale);
        table[byte] = (scaled - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
      }
      for (std::size_t i = 0; i < area; ++i) {
        values[channels_first ? c * area + i : i * count + c] = table[image.pixels[i * count + c]];
      }
    }
    const auto planes = static_cast<std::int64_t>(count);
    return Tensor::of(channels_first ? std::vector<std::int64_t>{1, planes, height, width}
                                     : std::vector<std::int64_t>{1, height, width, planes},
                      values);
  }
};

}  // namespace edgekit::detail
