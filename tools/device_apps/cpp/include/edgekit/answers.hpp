// From a model's outputs to labels and boxes (edgekit/device/processing/{classification,detection}.py).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "fields.hpp"
#include "image.hpp"
#include "tensor.hpp"

namespace edgekit {

/// A class and how likely it is.
struct ClassScore {
  std::string label;
  std::size_t index = 0;
  double confidence = 0.0;
};

/// What a classifier says of one sample.
struct Prediction {
  std::string label;         ///< the likeliest class
  std::size_t index = 0;     ///< its number
  double confidence = 0.0;   ///< how likely it is
  std::vector<ClassScore> top;         ///< the likeliest ones, as many as the bundle says an app shows
  std::vector<double> probabilities;   ///< of all classes; of several labels at once (sigmoid) they need not add up to 1
};

/// One object in an image.
struct Detection {
  std::string label;
  std::size_t index = 0;
  double confidence = 0.0;
  std::array<double, 4> box{};  ///< left, top, right, bottom in pixels of the image as it was given
};

namespace detail {

/// Probabilities in place, of rows of `width` scores.
inline void to_probabilities(std::vector<double>& scores, std::size_t width, const std::string& kind) {
  if (kind == "sigmoid") {
    for (double& score : scores) {
      const double small = std::exp(-std::fabs(score));  // exp of a number from 0 down cannot overflow
      score = score >= 0 ? 1 / (1 + small) : small / (1 + small);
    }
  } else if (kind == "softmax") {
    for (std::size_t row = 0; row + width <= scores.size() && width != 0; row += width) {
      const auto begin = scores.begin() + static_cast<std::ptrdiff_t>(row), end = begin + static_cast<std::ptrdiff_t>(width);
      const double largest = *std::max_element(begin, end);
      std::transform(begin, end, begin, [largest](double score) { return std::exp(score - largest); });
      const double total = std::accumulate(begin, end, 0.0);
      std::transform(begin, end, begin, [total](double power) { return power / total; });
    }
  }
}

/// How an output becomes labels with confidences.
struct ClassificationPostprocessing {
  std::string output, scores;
  std::size_t top = 1;

  static ClassificationPostprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "output", "scores", "top"}, strict);
    return {fields.text("output"), fields.choice("scores", {"softmax", "sigmoid", "probabilities"}),
            static_cast<std::size_t>(fields.whole("top", 1, 100))};
  }

  /// A prediction for each row of the output.
  std::vector<Prediction> apply(const Tensors& outputs, const std::vector<std::string>& labels) const {
    const Tensor& value = outputs.at(output);
    if (value.shape.size() != 2 || static_cast<std::size_t>(value.shape[1]) != labels.size() || labels.empty()) {
      refuse_bundle("scores " + listed(value.shape) + " for " + std::to_string(labels.size()) + " labels",
                    "output " + in_quotes(output), "[samples, classes] with one score for each label",
                    "use `run` for the raw outputs");
    }
    std::vector<double> rows = value.doubles();
    to_probabilities(rows, labels.size(), scores);
    std::vector<Prediction> made;
    for (std::size_t row = 0; row < rows.size(); row += labels.size()) {
      const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(row);
      made.push_back(prediction({begin, begin + static_cast<std::ptrdiff_t>(labels.size())}, labels));
    }
    return made;
  }

 private:
  Prediction prediction(std::vector<double> row, const std::vector<std::string>& labels) const {
    std::vector<std::size_t> order(row.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    // What is no number comes last; of equal ones, the class of the lower index comes first.
    const auto shown = static_cast<std::ptrdiff_t>(std::min(top, row.size()));
    std::partial_sort(order.begin(), order.begin() + shown, order.end(), [&row](std::size_t a, std::size_t b) {
      if (std::isnan(row[a]) || std::isnan(row[b])) return std::isnan(row[a]) == std::isnan(row[b]) ? a < b : !std::isnan(row[a]);
      return row[a] != row[b] ? row[a] > row[b] : a < b;
    });
    Prediction made;
    for (std::ptrdiff_t i = 0; i < shown; ++i) {
      const std::size_t index = order[static_cast<std::size_t>(i)];
      made.top.push_back({labels[index], index, row[index]});
    }
    made.label = made.top[0].label, made.index = made.top[0].index, made.confidence = made.top[0].confidence;
    made.probabilities = std::move(row);
    return made;
  }
};

/// Intersection over union of two boxes; 0 where the union is empty.
inline double intersection_over_union(const std::array<double, 4>& a, const std::array<double, 4>& b) noexcept {
  const auto area = [](double left, double top, double right, double bottom) {
    return std::max(right - left, 0.0) * std::max(bottom - top, 0.0);
  };
  const double shared = area(std::max(a[0], b[0]), std::max(a[1], b[1]), std::min(a[2], b[2]), std::min(a[3], b[3]));
  const double both = area(a[0], a[1], a[2], a[3]) + area(b[0], b[1], b[2], b[3]) - shared;
  return both > 0 ? shared / both : 0.0;
}

/// How boxes and scores become detections: activation, decoding, threshold, non-maximum suppression, the way back.
struct DetectionPostprocessing {
  std::string boxes, scores, format;
  std::vector<std::int64_t> strides;
  bool relative = false;
  std::string activation;
  std::optional<std::int64_t> background;
  double score_threshold = 0.0, iou_threshold = 0.0;
  std::size_t max_detections = 0;
  bool class_agnostic = false;

  static DetectionPostprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "boxes", "scores", "format", "strides", "coordinates", "activation",
                                      "background", "score_threshold", "iou_threshold", "max_detections",
                                      "class_agnostic"}, strict);
    DetectionPostprocessing made;
    made.boxes = fields.text("boxes");
    made.scores = fields.text("scores");
    if (made.boxes == made.scores) fields.fault("scores", "another output than boxes");
    made.format = fields.choice("format", {"xyxy", "cxcywh", "ltrb"});
    made.relative = fields.choice("coordinates", {"pixels", "relative"}) == "relative";
    if (made.format != "ltrb") {
      fields.null("strides", "null, but for the format ltrb");
    } else {
      const char* rule = "a list of 1 to 16 numbers of pixels";
      for (const Json& stride : fields.list("strides", rule)) {
        if (stride.integer() == nullptr || *stride.integer() < 1 || *stride.integer() > 16'384) fields.fault("strides", rule);
        made.strides.push_back(*stride.integer());
      }
      if (made.strides.empty() || made.strides.size() > 16) fields.fault("strides", rule);
      if (made.relative) fields.fault("coordinates", "pixels, for the format ltrb");
    }
    made.activation = fields.choice("activation", {"softmax", "sigmoid", "probabilities"});
    made.background = fields.optional_whole("background", 0, 1'000'000);
    made.score_threshold = fields.number("score_threshold", 0.0, 1.0);
    made.iou_threshold = fields.number("iou_threshold", 0.0, 1.0);
    made.max_detections = static_cast<std::size_t>(fields.whole("max_detections", 1, 100'000));
    made.class_agnostic = fields.flag("class_agnostic");
    return made;
  }

  /// The objects of one image, the surest first.
  /// @param height,width of the model's input.
  /// @param placed how the image came into the input; null where the input is the image.
  /// @param image_height,image_width of the image that boxes are clipped to.
  std::vector<Detection> apply(const Tensors& outputs, const std::vector<std::string>& labels, std::int64_t height,
                               std::int64_t width, const Geometry* placed, std::int64_t image_height,
                               std::int64_t image_width) const {
    const Tensor &box_output = outputs.at(boxes), &score_output = outputs.at(scores);
    check(box_output, score_output, labels, height, width);
    const auto classes = static_cast<std::size_t>(score_output.shape[2]);
    std::vector<double> likely = score_output.doubles();
    to_probabilities(likely, classes, activation);
    std::vector<Detection> made;
    for (const Candidate& candidate : suppressed(decoded(box_output.doubles(), height, width), likely, classes)) {
      std::array<double, 4> box = placed != nullptr ? placed->back(candidate.box) : candidate.box;
      for (std::size_t side = 0; side < 4; ++side) {
        const auto most = static_cast<double>(side % 2 == 0 ? image_width : image_height);
        box[side] = std::min(std::max(box[side], 0.0), most);
      }
      const std::size_t index = candidate.index;
      made.push_back({labels.empty() ? std::to_string(index) : labels[index], index, candidate.score, box});
    }
    return made;
  }

 private:
  struct Candidate {
    std::array<double, 4> box;
    std::size_t index;
    double score;
  };

  std::int64_t cells(std::int64_t height, std::int64_t width) const noexcept {
    std::int64_t count = 0;
    for (const std::int64_t stride : strides) {
      count += ((height + stride - 1) / stride) * ((width + stride - 1) / stride);
    }
    return count;
  }

  void check(const Tensor& box, const Tensor& score, const std::vector<std::string>& labels, std::int64_t height,
             std::int64_t width) const {
    const bool fits = box.shape.size() == 3 && score.shape.size() == 3 && box.shape[0] == 1 && box.shape[2] == 4 &&
                      score.shape[0] == 1 && score.shape[1] == box.shape[1];
    if (!fits || (!labels.empty() && static_cast<std::size_t>(score.shape[2]) != labels.size())) {
      refuse_bundle("boxes " + listed(box.shape) + " and scores " + listed(score.shape) + " for " +
                        std::to_string(labels.size()) + " labels",
                    "outputs " + in_quotes(boxes) + " and " + in_quotes(scores),
                    "[1, n, 4] and [1, n, classes], with one class for each label", "use `run` for the raw outputs");
    }
    if (format == "ltrb" && cells(height, width) != box.shape[1]) {
      refuse_bundle(std::to_string(box.shape[1]) + " boxes", "output " + in_quotes(boxes),
                    "one for each of the " + std::to_string(cells(height, width)) + " cells of an input of " +
                        std::to_string(height) + " x " + std::to_string(width),
                    "name the strides of all levels, in the order of the boxes");
    }
  }

  /// Corners in pixels of the input.
  std::vector<std::array<double, 4>> decoded(const std::vector<double>& raw, std::int64_t height, std::int64_t width) const {
    std::vector<std::array<double, 4>> made(raw.size() / 4);
    for (std::size_t i = 0; i < made.size(); ++i) made[i] = {raw[4 * i], raw[4 * i + 1], raw[4 * i + 2], raw[4 * i + 3]};
    if (format == "cxcywh") {
      for (auto& box : made) {
        const double half_width = box[2] / 2, half_height = box[3] / 2;
        box = {box[0] - half_width, box[1] - half_height, box[0] + half_width, box[1] + half_height};
      }
    } else if (format == "ltrb") {
      auto box = made.begin();
      for (const std::int64_t stride : strides) {
        const auto step = static_cast<double>(stride);
        for (std::int64_t row = 0; row < (height + stride - 1) / stride; ++row) {
          for (std::int64_t column = 0; column < (width + stride - 1) / stride; ++column, ++box) {
            const double x = (static_cast<double>(column) + 0.5) * step, y = (static_cast<double>(row) + 0.5) * step;
            const auto far = *box;
            *box = {x - far[0] * step, y - far[1] * step, x + far[2] * step, y + far[3] * step};
          }
        }
      }
    }
    if (relative) {
      const auto w = static_cast<double>(width), h = static_cast<double>(height);
      for (auto& box : made) box = {box[0] * w, box[1] * h, box[2] * w, box[3] * h};
    }
    return made;
  }

  /// What non-maximum suppression leaves, the surest first.
  std::vector<Candidate> suppressed(const std::vector<std::array<double, 4>>& corners, const std::vector<double>& likely,
                                    std::size_t classes) const {
    std::vector<Candidate> left;
    for (std::size_t i = 0; i < corners.size(); ++i) {
      const bool finite = std::all_of(corners[i].begin(), corners[i].end(), [](double side) { return std::isfinite(side); });
      for (std::size_t index = 0; index < classes && finite; ++index) {
        const double score = likely[i * classes + index];
        const bool wanted = !background || index != static_cast<std::size_t>(*background);
        if (wanted && score >= score_threshold) left.push_back({corners[i], index, score});
      }
    }
    // Candidates stand in the order of boxes and classes, and a stable sort leaves ties so.
    std::stable_sort(left.begin(), left.end(), [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    std::vector<Candidate> kept;
    while (!left.empty() && kept.size() < max_detections) {
      const Candidate best = left.front();
      kept.push_back(best);
      left.erase(std::remove_if(left.begin() + 1, left.end(), [&](const Candidate& other) {
        return (class_agnostic || other.index == best.index) &&
               intersection_over_union(best.box, other.box) > iou_threshold;
      }), left.end());
      left.erase(left.begin());
    }
    return kept;
  }
};

}  // namespace detail
}  // namespace edgekit
