// Input files that need no library: PPM and PGM images, WAV sound, NumPy arrays, plain text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include <edgekit/edgekit.hpp>

namespace app {

/// What a file held.
using Input = std::variant<edgekit::Image, edgekit::Sound, edgekit::Tensor, std::string>;

[[noreturn]] inline void refuse(const std::string& problem, const std::string& where, const std::string& rule,
                                const std::string& way_out = {}) {
  edgekit::detail::refuse(edgekit::Kind::data, problem, where, rule, way_out);
}

inline edgekit::detail::Bytes read_file(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) refuse("no such file", path.string(), "a readable file");
  const edgekit::detail::File file(path, true, path.string());
  edgekit::detail::Bytes data(static_cast<std::size_t>(file.size()));
  if (!file.read(0, data.data(), data.size())) refuse("cannot read the file", path.string(), "a readable file");
  return data;
}

/// A binary PPM (P6) or PGM (P5) of bytes.
inline edgekit::Image read_pnm(const edgekit::detail::Bytes& data, const std::string& where) {
  const char* rule = "a binary PPM or PGM (P6 or P5) with 255 levels";
  const char* way_out = "convert it: `convert photo.jpg photo.ppm` (ImageMagick), or ffmpeg";
  std::size_t at = 2;
  const auto number = [&] {
    // Blanks, and comments from '#' to the line's end.
    for (bool comment = false; at < data.size(); ++at) {
      const char c = static_cast<char>(data[at]);
      comment = c == '#' || (comment && c != '\n');
      if (!comment && c != ' ' && c != '\t' && c != '\r' && c != '\n') break;
    }
    std::size_t value = 0, digits = 0;
    for (; at < data.size() && data[at] >= '0' && data[at] <= '9' && digits < 9; ++at, ++digits) {
      value = value * 10 + (data[at] - std::size_t{'0'});
    }
    if (digits == 0) refuse("a malformed header", where, rule, way_out);
    return value;
  };
  if (data.size() < 2 || data[0] != 'P' || (data[1] != '6' && data[1] != '5')) refuse("no such image", where, rule, way_out);
  edgekit::Image made;
  made.channels = data[1] == '6' ? 3 : 1;
  made.width = number();
  made.height = number();
  if (number() != 255 || at >= data.size()) refuse("another number of levels", where, rule, way_out);
  ++at;  // one blank ends the header
  const std::size_t left = data.size() - at;
  const bool sized = made.width >= 1 && made.height >= 1 && made.width <= 100'000'000 / made.height;
  if (!sized || made.width * made.height * made.channels != left) {
    refuse(std::to_string(left) + " bytes for " + std::to_string(made.width) + " x " + std::to_string(made.height) + " pixels",
           where, "a whole image of at most 100 megapixels");
  }
  made.pixels.assign(data.begin() + static_cast<std::ptrdiff_t>(at), data.end());
  return made;
}

/// Uncompressed PCM of 8, 16, 24 or 32 bits at the model's rate; channels are averaged.
inline edgekit::Sound read_wav(const edgekit::detail::Bytes& data, const std::string& where, std::int64_t rate) {
  const char* rule = "a .wav file, uncompressed PCM of 8, 16, 24 or 32 bits";
  const auto u16 = [&](std::size_t at) { return std::size_t{data[at]} | std::size_t{data[at + 1]} << 8; };
  const auto u32 = [&](std::size_t at) { return u16(at) | u16(at + 2) << 16; };
  const auto is = [&](std::size_t at, const char* tag) { return std::equal(tag, tag + 4, data.begin() + static_cast<std::ptrdiff_t>(at)); };
  if (data.size() < 12 || !is(0, "RIFF") || !is(8, "WAVE")) refuse("no such sound", where, rule);
  std::size_t channels = 0, found_rate = 0, width = 0, begin = 0, length = 0;
  for (std::size_t at = 12; at + 8 <= data.size() && begin == 0;) {
    const std::size_t size = std::min(u32(at + 4), data.size() - at - 8);
    if (is(at, "fmt ") && size >= 16) {
      const std::size_t format = u16(at + 8);
      const bool pcm = format == 1 || (format == 0xFFFE && size >= 26 && u16(at + 32) == 1);
      channels = u16(at + 10), found_rate = u32(at + 12), width = pcm ? u16(at + 22) / 8 : 0;
    } else if (is(at, "data")) {
      begin = at + 8, length = size;
    }
    at += 8 + size + size % 2;
  }
  if (begin == 0 || channels == 0 || width < 1 || width > 4) refuse("no such sound", where, rule);
  if (found_rate != static_cast<std::size_t>(rate)) {
    // Resampling well is an art of its own, and resampling badly is a fault that nobody would notice.
    refuse(std::to_string(found_rate) + " Hz", where, "the model takes " + std::to_string(rate) + " Hz",
           "ffmpeg -i IN.wav -ac 1 -ar " + std::to_string(rate) + " -c:a pcm_s16le OUT.wav");
  }
  edgekit::Sound made;
  for (std::size_t frame = 0; frame + channels * width <= length; frame += channels * width) {
    double sum = 0.0;
    for (std::size_t channel = 0; channel < channels; ++channel) {
      std::uint32_t bits = 0;  // the sample in the upper bytes of 32 bits
      for (std::size_t i = 0; i < width; ++i) {
        bits |= std::uint32_t{data[begin + frame + channel * width + i]} << (8 * (4 - width + i));
      }
      if (width == 1) bits ^= 0x80000000u;  // the only width without a sign
      sum += static_cast<double>(static_cast<std::int32_t>(bits)) / 2147483648.0;
    }
    made.samples.push_back(static_cast<float>(sum / static_cast<double>(channels)));
  }
  return made;
}

/// A file, read by what its name ends in. `rate` is the sample rate that the model takes; 0 for a model without sound.
inline Input read_input(const std::filesystem::path& path, std::int64_t rate) {
  const std::string where = path.string(), kind = edgekit::detail::lower(path.extension().string());
  const edgekit::detail::Bytes data = read_file(path);
  if (kind == ".ppm" || kind == ".pgm" || kind == ".pnm") return read_pnm(data, where);
  if (kind == ".npy") return edgekit::detail::NpyParser(edgekit::detail::text_of(data), where, edgekit::Kind::data).parse();
  if (kind == ".wav" && rate == 0) refuse("got sound", where, "what the model takes; its bundle has no preprocessing of sound");
  if (kind == ".wav") return read_wav(data, where, rate);
  if (kind == ".txt") return std::string(edgekit::detail::text_of(data));
  refuse("a file that ends in " + edgekit::detail::in_quotes(kind), where, ".ppm, .pgm, .wav, .npy or .txt",
         "convert it: `convert photo.jpg photo.ppm` (ImageMagick) or `ffmpeg -i sound.mp3 sound.wav`");
}

}  // namespace app
