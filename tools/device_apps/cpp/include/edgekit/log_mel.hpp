// From sound to log-mel features, exactly as in training (edgekit/device/processing/log_mel.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fields.hpp"
#include "sound.hpp"
#include "tensor.hpp"

namespace edgekit {

namespace detail {

constexpr double pi = 3.14159265358979323846;

/// The discrete Fourier transform of a fixed length: radix 2 (Cooley and Tukey, 1965), and by way of it any other length
/// (Bluestein, 1970).
class Fourier {
 public:
  using Complex = std::complex<double>;

  explicit Fourier(std::size_t length) : length_(length), inner_(1) {
    const bool direct = (length & (length - 1)) == 0;
    while (inner_ < (direct ? length : 2 * length - 1)) inner_ *= 2;
    for (std::size_t i = 0; i < inner_ / 2; ++i) {
      twiddles_.push_back(std::polar(1.0, -2.0 * pi * static_cast<double>(i) / static_cast<double>(inner_)));
    }
    if (direct) return;
    chirp_.resize(length);
    kernel_.assign(inner_, Complex());
    for (std::size_t i = 0; i < length; ++i) {
      // i² modulo 2n keeps the angle small and so exact.
      const std::size_t square = i * i % (2 * length);
      chirp_[i] = std::polar(1.0, -pi * static_cast<double>(square) / static_cast<double>(length));
      kernel_[i] = std::conj(chirp_[i]);
      if (i != 0) kernel_[inner_ - i] = kernel_[i];
    }
    radix2(kernel_);
  }

  /// Transform `values`, which are as many as the length.
  void transform(std::vector<Complex>& values) const {
    if (chirp_.empty()) {
      radix2(values);
      return;
    }
    std::vector<Complex> work(inner_);
    for (std::size_t i = 0; i < length_; ++i) work[i] = values[i] * chirp_[i];
    radix2(work);
    for (std::size_t i = 0; i < inner_; ++i) work[i] = std::conj(work[i] * kernel_[i]);
    radix2(work);  // of the conjugate: the inverse transform, but for its size
    for (std::size_t i = 0; i < length_; ++i) {
      values[i] = std::conj(work[i]) / static_cast<double>(inner_) * chirp_[i];
    }
  }

 private:
  void radix2(std::vector<Complex>& values) const {
    for (std::size_t i = 1, j = 0; i < inner_; ++i) {
      std::size_t bit = inner_ / 2;
      for (; (j & bit) != 0; bit /= 2) j ^= bit;
      j ^= bit;
      if (i < j) std::swap(values[i], values[j]);
    }
    for (std::size_t span = 2; span <= inner_; span *= 2) {
      for (std::size_t begin = 0; begin < inner_; begin += span) {
        for (std::size_t i = 0; i < span / 2; ++i) {
          const Complex& twiddle = twiddles_[i * (inner_ / span)];
          const Complex& high = values[begin + i + span / 2];
          // Written out: operator* of std::complex looks for infinities, which costs more than the product.
          const Complex turned(high.real() * twiddle.real() - high.imag() * twiddle.imag(),
                               high.real() * twiddle.imag() + high.imag() * twiddle.real());
          values[begin + i + span / 2] = values[begin + i] - turned;
          values[begin + i] += turned;
        }
      }
    }
  }

  std::size_t length_, inner_;
  std::vector<Complex> twiddles_, chirp_, kernel_;
};

/// How mono samples become log-mel features: frames, window, spectrum, mel filters, logarithm, (x - mean) / std; in
/// double precision, rounded to float32 at the end.
class LogMelPreprocessing {
 public:
  static LogMelPreprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where,
                        {"kind", "sample_rate", "samples", "window", "fft", "hop", "centre", "window_function", "power",
                         "mels", "low_hz", "high_hz", "mel_scale", "norm", "log", "floor", "floor_by", "mean", "std",
                         "layout"}, strict);
    LogMelPreprocessing made;
    made.sample_rate_ = fields.whole("sample_rate", 1, 1'000'000);
    made.window_ = size(fields.whole("window", 2, max_fft));
    made.fft_ = size(fields.whole("fft", static_cast<std::int64_t>(made.window_), max_fft));
    made.hop_ = size(fields.whole("hop", 1, max_fft));
    made.centre_ = fields.flag("centre");
    const auto shortest = static_cast<std::int64_t>(made.shortest());
    made.samples_ = size(fields.optional_whole("samples", shortest, max_samples).value_or(0));
    const std::string function = fields.choice("window_function", {"hann", "hann_symmetric", "hamming"});
    made.power_ = fields.whole("power", 1, 2);
    made.mels_ = size(fields.whole("mels", 1, 1024));
    const double rate = static_cast<double>(made.sample_rate_);
    const double high_hz = fields.number("high_hz", 1e-3, rate / 2), low_hz = fields.number("low_hz", 0.0, high_hz);
    if (low_hz >= high_hz) fields.fault("low_hz", "less than high_hz, " + short_number(high_hz));
    const bool slaney = fields.choice("mel_scale", {"htk", "slaney"}) == "slaney";
    const bool normed = !fields.at("norm").is_null() && !fields.choice("norm", {"slaney"}).empty();
    made.natural_ = fields.choice("log", {"natural", "log10"}) == "natural";
    made.floor_ = fields.number("floor", smallest_number);
    made.add_ = fields.choice("floor_by", {"add", "max"}) == "add";
    made.mean_ = fields.number("mean");
    made.std_ = fields.number("std", smallest_number);
    made.layout_ = fields.choice("layout", {"TF", "FT", "1TF", "1FT"});
    made.make_window(function);
    made.make_filters(low_hz, high_hz, slaney, normed);
    made.fourier_ = std::make_shared<const Fourier>(made.fft_);
    return made;
  }

  std::int64_t sample_rate() const noexcept { return sample_rate_; }

  /// The model's input float32 in the shape that `layout` says.
  Tensor apply(const Sound& sound) const {
    check(sound);
    const std::size_t given = sound.samples.size();
    std::vector<double> samples(samples_ != 0 ? samples_ : std::max(given, shortest()), 0.0);
    std::copy_n(sound.samples.begin(), std::min(given, samples.size()), samples.begin());
    if (centre_) samples = reflected(samples, fft_ / 2);
    const std::size_t length = centre_ ? fft_ : window_, frames = 1 + (samples.size() - length) / hop_;
    const bool by_time = layout_ == "TF" || layout_ == "1TF";
    std::vector<float> values(frames * mels_);
    std::vector<std::complex<double>> spectrum;
    std::vector<double> energies(fft_ / 2 + 1);
    for (std::size_t frame = 0; frame < frames; ++frame) {
      spectrum.assign(fft_, {});
      for (std::size_t i = 0; i < length; ++i) spectrum[i] = samples[frame * hop_ + i] * shape_[i];
      fourier_->transform(spectrum);
      for (std::size_t i = 0; i < energies.size(); ++i) {
        const double energy = std::norm(spectrum[i]);
        energies[i] = power_ == 2 ? energy : std::sqrt(energy);
      }
      for (std::size_t mel = 0; mel < mels_; ++mel) {
        values[by_time ? frame * mels_ + mel : mel * frames + frame] = feature(energies, filters_[mel]);
      }
    }
    const auto rows = static_cast<std::int64_t>(by_time ? frames : mels_);
    const auto columns = static_cast<std::int64_t>(by_time ? mels_ : frames);
    return Tensor::of(layout_[0] == '1' ? std::vector<std::int64_t>{1, 1, rows, columns}
                                        : std::vector<std::int64_t>{1, rows, columns},
                      values);
  }

 private:
  static constexpr std::int64_t max_fft = 65'536;
  /// The part of a triangular filter that is not zero.
  struct MelFilter {
    std::size_t first = 0;
    std::vector<double> weights;
  };

  static std::size_t size(std::int64_t value) noexcept { return static_cast<std::size_t>(value); }

  /// Samples of the shortest recording; a reflection needs one more than it reflects.
  std::size_t shortest() const noexcept { return centre_ ? std::max(window_, fft_ / 2 + 1) : window_; }

  static std::vector<double> reflected(const std::vector<double>& samples, std::size_t count) {
    std::vector<double> made(samples.size() + 2 * count);
    for (std::size_t i = 0; i < count; ++i) {
      made[i] = samples[count - i];
      made[count + samples.size() + i] = samples[samples.size() - 2 - i];
    }
    std::copy(samples.begin(), samples.end(), made.begin() + static_cast<std::ptrdiff_t>(count));
    return made;
  }

  void make_window(const std::string& function) {
    const double period = static_cast<double>(function == "hann_symmetric" ? window_ - 1 : window_);
    const double constant = function == "hamming" ? 0.54 : 0.5;
    const std::size_t before = centre_ ? (fft_ - window_) / 2 : 0;
    shape_.assign(centre_ ? fft_ : window_, 0.0);
    for (std::size_t i = 0; i < window_; ++i) {
      shape_[before + i] = constant - (1 - constant) * std::cos(2 * pi * static_cast<double>(i) / period);
    }
  }

  void make_filters(double low_hz, double high_hz, bool slaney, bool normed) {
    const auto mel = [slaney](double hz) {
      if (!slaney) return 2595.0 * std::log10(1.0 + hz / 700.0);
      return hz < 1000 ? hz * 3 / 200 : 15 + 27 * std::log(hz / 1000) / std::log(6.4);
    };
    const auto hertz = [slaney](double at) {
      if (!slaney) return 700.0 * (std::pow(10.0, at / 2595.0) - 1.0);
      return at < 15 ? at * 200 / 3 : 1000 * std::exp((at - 15) * std::log(6.4) / 27);
    };
    const double low = mel(low_hz), high = mel(high_hz), step = (high - low) / static_cast<double>(mels_ + 1);
    std::vector<double> edges;
    for (std::size_t i = 0; i < mels_ + 2; ++i) {
      edges.push_back(hertz(i == mels_ + 1 ? high : static_cast<double>(i) * step + low));
    }
    const double width = static_cast<double>(sample_rate_) / static_cast<double>(fft_);
    for (std::size_t i = 0; i < mels_; ++i) {
      MelFilter filter;
      for (std::size_t bin = 0; bin <= fft_ / 2; ++bin) {
        const double hz = static_cast<double>(bin) * width;
        const double rising = (hz - edges[i]) / (edges[i + 1] - edges[i]);
        const double falling = (edges[i + 2] - hz) / (edges[i + 2] - edges[i + 1]);
        const double height = std::max(0.0, std::min(rising, falling));
        if (height > 0.0 && filter.weights.empty()) filter.first = bin;
        if (height > 0.0) filter.weights.push_back(normed ? height * (2.0 / (edges[i + 2] - edges[i])) : height);
      }
      filters_.push_back(std::move(filter));
    }
  }

  float feature(const std::vector<double>& energies, const MelFilter& filter) const noexcept {
    double energy = 0.0;
    for (std::size_t i = 0; i < filter.weights.size(); ++i) energy += energies[filter.first + i] * filter.weights[i];
    const double floored = add_ ? energy + floor_ : std::max(energy, floor_);
    return static_cast<float>(((natural_ ? std::log(floored) : std::log10(floored)) - mean_) / std_);
  }

  std::int64_t sample_rate_ = 0, power_ = 2;
  std::size_t samples_ = 0, window_ = 0, fft_ = 0, hop_ = 1, mels_ = 0;  // samples: 0 takes a recording as it is
  bool centre_ = false, natural_ = true, add_ = true;
  double floor_ = 0.0, mean_ = 0.0, std_ = 1.0;
  std::string layout_;
  std::vector<double> shape_;
  std::vector<MelFilter> filters_;
  std::shared_ptr<const Fourier> fourier_;
};

}  // namespace detail
}  // namespace edgekit
