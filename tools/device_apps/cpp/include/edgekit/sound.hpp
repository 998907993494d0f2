// A recording (edgekit/device/processing/sound.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "fields.hpp"

namespace edgekit {

/// A recording of one channel, in [-1, 1].
struct Sound {
  std::vector<float> samples;

  /// Of 16-bit samples.
  static Sound from_pcm(const std::int16_t* pcm, std::size_t count) {
    Sound made;
    made.samples.reserve(count);
    for (std::size_t i = 0; i < count; ++i) made.samples.push_back(static_cast<float>(pcm[i]) / 32768.0f);
    return made;
  }
};

namespace detail {

constexpr std::int64_t max_samples = 100'000'000;

/// Refuse what is no recording.
inline void check(const Sound& sound) {
  const std::size_t given = sound.samples.size();
  const bool finite = std::all_of(sound.samples.begin(), sound.samples.end(), [](float x) { return std::isfinite(x); });
  if (given == 0 || given > static_cast<std::size_t>(max_samples) || !finite) {
    refuse(Kind::data, "got " + std::to_string(given) + " samples" + (finite ? "" : ", not all finite"), "sound",
           "samples of one channel in [-1, 1], 1 to " + std::to_string(max_samples) + " of them");
  }
}

}  // namespace detail
}  // namespace edgekit
