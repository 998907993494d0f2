// From sound to the samples themselves, for networks that listen to the waveform (edgekit/device/processing/waveform.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "fields.hpp"
#include "sound.hpp"
#include "tensor.hpp"

namespace edgekit {
namespace detail {

/// How mono samples become a network's input: cut or filled, and brought to mean 0 and variance 1; in double precision,
/// rounded to float32 at the end.
class WaveformPreprocessing {
 public:
  static WaveformPreprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "sample_rate", "samples", "normalize", "layout"}, strict);
    WaveformPreprocessing made;
    made.sample_rate_ = fields.whole("sample_rate", 1, 1'000'000);
    made.samples_ = static_cast<std::size_t>(fields.optional_whole("samples", 1, max_samples).value_or(0));
    if (!fields.at("normalize").is_null()) made.normalize_ = fields.choice("normalize", {"recording", "input"});
    made.layout_ = fields.choice("layout", {"T", "1T"});
    return made;
  }

  std::int64_t sample_rate() const noexcept { return sample_rate_; }

  /// The model's input float32 in the shape that `layout` says.
  Tensor apply(const Sound& sound) const {
    check(sound);
    const std::size_t given = sound.samples.size(), count = samples_ != 0 ? samples_ : given;
    std::vector<double> samples(sound.samples.begin(),
                                sound.samples.begin() + static_cast<std::ptrdiff_t>(std::min(given, count)));
    if (normalize_ == "recording") normal(samples);
    samples.resize(count, 0.0);
    if (normalize_ == "input") normal(samples);
    std::vector<float> values(count);
    std::transform(samples.begin(), samples.end(), values.begin(), [](double x) { return static_cast<float>(x); });
    const auto length = static_cast<std::int64_t>(count);
    return Tensor::of(layout_ == "1T" ? std::vector<std::int64_t>{1, 1, length} : std::vector<std::int64_t>{1, length},
                      values);
  }

 private:
  static void normal(std::vector<double>& samples) {
    const auto count = static_cast<double>(samples.size());
    double mean = 0.0, variance = 0.0;
    for (const double x : samples) mean += x / count;
    for (const double x : samples) variance += (x - mean) * (x - mean) / count;
    const double spread = std::sqrt(variance + 1e-7);
    for (double& x : samples) x = (x - mean) / spread;
  }

  std::int64_t sample_rate_ = 0;
  std::size_t samples_ = 0;  // 0 takes a recording as it is
  std::string normalize_, layout_;
};

}  // namespace detail
}  // namespace edgekit
