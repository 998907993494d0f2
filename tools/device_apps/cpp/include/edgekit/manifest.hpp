// `edgekit/bundle.json`: what a bundle says about itself (edgekit/device/manifest.py). Format `edgekit-bundle` 1.0.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "answers.hpp"
#include "fields.hpp"
#include "files.hpp"
#include "image.hpp"
#include "json.hpp"
#include "log_mel.hpp"
#include "sound.hpp"
#include "tensor.hpp"
#include "waveform.hpp"
#include "wordpiece.hpp"

namespace edgekit {

/// A size, or the name of a dynamic dimension.
struct Dimension {
  std::int64_t size = -1;  ///< -1 where it is dynamic
  std::string name;
};

/// One input or output of a model.
struct TensorSpec {
  std::string name;
  DType dtype = DType::float32;
  std::vector<Dimension> shape;

  /// Whether a tensor has this type, this rank and these fixed dimensions.
  bool accepts(DType type, const std::vector<std::int64_t>& sizes) const noexcept {
    if (type != dtype || sizes.size() != shape.size()) return false;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] < 0 || (shape[i].size >= 0 && shape[i].size != sizes[i])) return false;
    }
    return true;
  }
  /// Type and shape, as errors write them.
  std::string text() const {
    std::vector<std::string> sides;
    for (const Dimension& side : shape) sides.push_back(side.size >= 0 ? std::to_string(side.size) : side.name);
    return std::string(detail::info(dtype).name) + " [" + detail::joined(sides) + "]";
  }
};

/// One file of the model and what it is for.
struct Variant {
  std::string name, provider, precision, target;
  std::map<std::string, double> tolerance;  ///< how far each output may lie from the golden one
  bool measured = true;                     ///< else assumed from the precision

  std::string file() const { return "models/model/" + name + "/model.onnx"; }
  std::string text() const { return name + " (" + precision + ", " + provider + ", for " + target + ")"; }
};

namespace detail {

constexpr const char* bundle_file = "edgekit/bundle.json";
constexpr const char* golden_file = "edgekit/golden.npz";
constexpr const char* package_file = "manifest.json";
constexpr const char* component_file = "models/model/component.json";
constexpr std::size_t max_files = 1000;
constexpr std::int64_t max_file_bytes = 2147483647;
constexpr std::size_t longest_path = 240;
constexpr std::uint64_t max_elements = 1u << 28;  // of an input or output

using Preprocessing = std::variant<std::monostate, ImagePreprocessing, LogMelPreprocessing, WaveformPreprocessing,
                                   WordpiecePreprocessing>;
/// Hz of the recordings that a preprocessing takes; none where it takes no sound.
inline std::optional<std::int64_t> sample_rate_of(const Preprocessing& before) {
  if (const auto* mels = std::get_if<LogMelPreprocessing>(&before)) return mels->sample_rate();
  if (const auto* samples = std::get_if<WaveformPreprocessing>(&before)) return samples->sample_rate();
  return std::nullopt;
}

/// The model's input of a recording; none where the preprocessing takes no sound.
inline std::optional<Tensor> heard(const Preprocessing& before, const Sound& sound) {
  if (const auto* mels = std::get_if<LogMelPreprocessing>(&before)) return mels->apply(sound);
  if (const auto* samples = std::get_if<WaveformPreprocessing>(&before)) return samples->apply(sound);
  return std::nullopt;
}

using Postprocessing =
    std::variant<std::monostate, ClassificationPostprocessing, DetectionPostprocessing, TextPostprocessing>;

/// The providers' names in a bundle, and ONNX Runtime's.
inline constexpr std::pair<const char*, const char*> providers[] = {
    {"cpu", "CPUExecutionProvider"}, {"cuda", "CUDAExecutionProvider"}, {"tensorrt", "TensorrtExecutionProvider"}};

inline std::string provider_name(const std::string& provider) {
  for (const auto& [name, full] : providers) {
    if (provider == name) return full;
  }
  return {};
}

struct FileEntry {
  std::string sha256;
  std::uint64_t size = 0;
};

inline bool is_letter_or_digit(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// `first` letters or digits (or one of `more_first`), then these or '.', '_' and '-'; at most `longest`.
inline bool is_name(std::string_view text, std::size_t longest, bool underscore_first) noexcept {
  if (text.empty() || text.size() > longest) return false;
  if (!is_letter_or_digit(text[0]) && !(underscore_first && text[0] == '_')) return false;
  return std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-'; });
}

/// Refuse a path that could leave the bundle, or that some file system reads differently.
inline void check_path(std::string_view path, const std::string& where) {
  bool good = path.size() <= longest_path;
  std::size_t parts = 0;
  for (std::string_view rest = path; good; ++parts) {
    const std::size_t end = rest.find('/');
    good = is_name(rest.substr(0, end), 100, true) && parts < 8;
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (!good) {
    refuse_bundle("path " + in_quotes(path), where,
                  "a relative path; its parts are letters, digits, '.', '_' and '-', and none begins with '.'");
  }
}

inline std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

/// Whether a text is a time with a zone, such as 2026-01-31T12:00:00+00:00 (ISO 8601).
inline bool is_time(std::string_view text) noexcept {
  const auto number = [&](std::size_t at, std::size_t digits) {
    int value = 0;
    for (std::size_t i = at; i < at + digits; ++i) {
      if (i >= text.size() || text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const auto is = [&](std::size_t at, char c) { return at < text.size() && text[at] == c; };
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2);
  constexpr int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (year < 1 || !is(4, '-') || month < 1 || month > 12 || !is(7, '-') || day < 1) return false;
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  if (day > days[month - 1] + (month == 2 && leap ? 1 : 0)) return false;
  const auto clock = [&](std::size_t at) {
    return number(at, 2) >= 0 && number(at, 2) < 24 && is(at + 2, ':') && number(at + 3, 2) >= 0 && number(at + 3, 2) < 60;
  };
  if (!is(10, 'T') || !clock(11) || !is(16, ':') || number(17, 2) < 0 || number(17, 2) > 59) return false;
  std::size_t at = 19;
  if (is(at, '.')) {
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9' && at < 26;) ++at;
    if (at != 23 && at != 26) return false;
  }
  if (is(at, 'Z')) return at + 1 == text.size();
  return (is(at, '+') || is(at, '-')) && clock(at + 1) && at + 6 == text.size();
}

/// A bundle's own description.
struct Manifest {
  std::string name, created;
  std::vector<TensorSpec> inputs, outputs;
  std::vector<std::string> labels;
  Preprocessing preprocessing;
  Postprocessing postprocessing;
  std::vector<Variant> variants;
  std::size_t golden_samples = 0;
  std::map<std::string, FileEntry> files;
  std::string version = "1.0";     ///< major and minor, as the bundle says
  std::vector<std::string> notes;  ///< what a caller should hear of it

  static Manifest read(const Json& data, const std::string& where) {
    Manifest made;
    const bool strict = !made.is_newer(data, where);
    const Fields fields(data, where, {"format", "version", "name", "created", "io", "labels", "postprocessing",
                                      "preprocessing", "metrics", "provenance", "variants", "golden_samples", "files"},
                        strict);
    made.name = fields.text("name", true);
    if (made.name.empty() || utf8_length(made.name) > 200) {
      refuse_bundle("a name of " + std::to_string(utf8_length(made.name)) + " characters", fields.place("name"),
                    "1 to 200 characters");
    }
    made.created = fields.text("created", true);
    if (!is_time(made.created)) fields.fault("created", "a time such as 2026-01-31T12:00:00+00:00");
    for (const char* key : {"metrics", "provenance"}) {
      if (fields.at(key).object() == nullptr) fields.fault(key, "expected an object");
    }
    for (const Json& label : fields.list("labels")) {
      if (label.text() == nullptr) refuse_bundle("a label is no text", fields.place("labels"), "a list of texts");
      made.labels.push_back(*label.text());
    }
    made.golden_samples = static_cast<std::size_t>(fields.whole("golden_samples", 0, 1000));
    made.read_files(fields);
    made.read_variants(fields);
    const Fields io(fields.at("io"), fields.place("io"), {"inputs", "outputs"}, strict);
    made.inputs = read_tensors(io, "inputs");
    made.outputs = read_tensors(io, "outputs");
    made.read_preprocessing(fields.at("preprocessing"), fields.place("preprocessing"), strict);
    made.read_postprocessing(fields.at("postprocessing"), fields.place("postprocessing"), strict);
    made.check_preprocessing(where);
    made.check_postprocessing(where);
    made.check_variants(where);
    return made;
  }

  /// The file in the bundle that holds the vocabulary, if the processing needs one.
  std::optional<std::string> vocabulary_file() const {
    if (const auto* before = std::get_if<WordpiecePreprocessing>(&preprocessing)) return before->vocabulary_file;
    if (const auto* after = std::get_if<TextPostprocessing>(&postprocessing)) return after->vocabulary_file;
    return std::nullopt;
  }

  /// What ONNX Runtime's own files of the package must hold: they name what bundle.json does, and nothing else.
  std::string package_json() const {
    std::string quoted_name;
    for (const char c : name) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      quoted_name += static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' ? std::string(escape) : std::string(1, c);
    }
    return R"({"schema_version":"1.0","components":{"model":"models/model"},"additional_metadata":{"edgekit":)"
           R"({"format":"edgekit-bundle","version":")" + version + R"(","file":"edgekit/bundle.json","name":")" + quoted_name + "\"}}}";
  }
  std::string component_json() const {
    std::vector<std::string> rows;
    for (const Variant& each : variants) {
      rows.push_back("\"" + each.name + "\":{\"ep\":\"" + provider_name(each.provider) +
                     R"(","executor_info":{"ort":{"model_file":"model.onnx"}}})");
    }
    return R"({"component_name":"model","variants":{)" + joined(rows) + "}}";
  }

 private:
  bool is_newer(const Json& data, const std::string& where) {
    const Json* format = data.find("format");
    if (format == nullptr || format->text() == nullptr || *format->text() != "edgekit-bundle") {
      refuse_bundle("got " + (format == nullptr ? std::string("None") : format->shown()), where + ".format",
                    "'edgekit-bundle'");
    }
    const Json* given = data.find("version");
    const std::string* text = given != nullptr ? given->text() : nullptr;
    const auto digits = [](std::string_view part) {
      return !part.empty() && part.size() <= 4 && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    const std::size_t dot = text != nullptr ? text->find('.') : std::string::npos;
    if (dot == std::string::npos || !digits(text->substr(0, dot)) || !digits(text->substr(dot + 1))) {
      refuse_bundle("got " + (given == nullptr ? std::string("None") : given->shown()), where + ".version", "major.minor");
    }
    if (text->substr(0, dot) != "1") {
      refuse_bundle("version " + *text, where + ".version", "this edgekit reads 1.x",
                    "install the edgekit that wrote the bundle, or write it again with this one");
    }
    version = *text;
    const bool newer = text->find_first_not_of('0', dot + 1) != std::string::npos;
    if (newer) notes.push_back(where + ": version " + *text + " is newer than 1.0; what it adds is ignored");
    return newer;
  }

  void read_files(const Fields& fields) {
    const Json& listed_files = fields.at("files");
    if (listed_files.object() == nullptr) fields.fault("files", "expected an object");
    std::set<std::string> folded;
    for (const auto& [path, data] : *listed_files.object()) {
      const std::string where = fields.place("files") + "[" + in_quotes(path) + "]";
      check_path(path, where);
      const Fields entry(data, where, {"sha256", "size"});
      const std::string digest = entry.text("sha256", true);
      if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
        entry.fault("sha256", "64 hexadecimal digits in lower case");
      }
      files[path] = {digest, static_cast<std::uint64_t>(entry.whole("size", 0, max_file_bytes))};
      folded.insert(lower(path));
    }
    if (files.size() > max_files) {
      refuse_bundle(std::to_string(files.size()) + " files", fields.place("files"), "at most " + std::to_string(max_files));
    }
    if (files.count(bundle_file) != 0) {
      refuse_bundle(std::string(bundle_file) + " lists itself", fields.place("files"), "every other file");
    }
    if (folded.size() != files.size()) {
      refuse_bundle("two paths differ only in case", fields.place("files"), "paths that every file system tells apart");
    }
  }

  void read_variants(const Fields& fields) {
    const Json::List& rows = fields.list("variants");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Fields row(rows[i], fields.place("variants") + "[" + std::to_string(i) + "]",
                       {"name", "provider", "precision", "target", "tolerance_from", "file", "tolerance"});
      Variant made;
      made.name = row.text("name", true);
      made.precision = row.text("precision", true);
      for (const char* key : {"name", "precision"}) {
        if (!is_name(*row.at(key).text(), 64, false)) row.fault(key, "letters, digits, '.', '_' and '-', 64 at most");
      }
      made.provider = row.choice("provider", {"cpu", "cuda", "tensorrt"});
      made.target = row.choice("target", {"any", "x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt"});
      made.measured = row.choice("tolerance_from", {"measured", "assumed"}) == "measured";
      if (row.at("tolerance").object() == nullptr) row.fault("tolerance", "expected an object");
      for (const auto& [output, value] : *row.at("tolerance").object()) {
        if (!value.is_number() || value.number() < 0) {
          refuse_bundle("got " + value.shown(), row.place("tolerance") + "[" + in_quotes(output) + "]", "a number from 0 up");
        }
        made.tolerance[output] = value.number();
      }
      if (row.text("file", true) != made.file()) row.fault("file", made.file());
      variants.push_back(std::move(made));
    }
  }

  static std::vector<TensorSpec> read_tensors(const Fields& io, const char* side) {
    std::vector<TensorSpec> made;
    std::vector<std::string> names;
    const Json::List& rows = io.list(side, "expected a list of tensors");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Fields row(rows[i], io.place(side) + "[" + std::to_string(i) + "]", {"name", "dtype", "shape"}, false);
      TensorSpec spec;
      spec.name = row.text("name", true);
      const std::string dtype = row.text("dtype", true);
      bool known = false;
      for (const DTypeInfo& each : dtypes) {
        if (dtype == each.name) spec.dtype = each.dtype, known = true;
      }
      if (!known) row.fault("dtype", "one of bool, float16, float32, float64, int16, int32, int64, int8, uint16, uint32, uint64, uint8");
      for (const Json& side_size : row.list("shape", "expected list")) {
        const bool size = side_size.integer() != nullptr && *side_size.integer() >= 0;
        if (!size && side_size.text() == nullptr) {
          refuse_bundle("got " + side_size.shown(), row.place("shape") + "[" + std::to_string(spec.shape.size()) + "]",
                        "a size or a dimension's name");
        }
        spec.shape.push_back(size ? Dimension{*side_size.integer(), {}} : Dimension{-1, *side_size.text()});
      }
      std::uint64_t elements = 1;  // open sizes aside
      for (const Dimension& each : spec.shape) {
        if (each.size < 0) continue;
        const auto size = static_cast<std::uint64_t>(each.size);
        elements = size != 0 && elements > max_elements / size ? max_elements + 1 : elements * size;
      }
      if (elements > max_elements) {
        refuse_bundle(spec.text(), io.place(side),
                      "at most " + std::to_string(max_elements) + " elements, open sizes aside");
      }
      names.push_back(spec.name);
      made.push_back(std::move(spec));
    }
    if (made.empty() || std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
      refuse_bundle("got [" + joined(names) + "]", io.place(side), "at least one tensor, each with its own name");
    }
    return made;
  }

  static std::string kind_of(const Json& data, const std::string& where, std::initializer_list<const char*> kinds) {
    if (data.object() == nullptr) refuse_bundle(std::string("got ") + data.type_name(), where, "expected an object");
    const Json* kind = data.find("kind");
    for (const char* known : kinds) {
      if (kind != nullptr && kind->text() != nullptr && *kind->text() == known) return known;
    }
    refuse_bundle("got " + (kind == nullptr ? std::string("None") : kind->shown()), where + ".kind", "one of " + one_of(kinds));
  }

  void read_preprocessing(const Json& data, const std::string& where, bool strict) {
    if (data.is_null()) return;
    const std::string kind = kind_of(data, where, {"image", "log_mel", "waveform", "wordpiece"});
    if (kind == "image") preprocessing = ImagePreprocessing::read(data, where, strict);
    if (kind == "log_mel") preprocessing = LogMelPreprocessing::read(data, where, strict);
    if (kind == "waveform") preprocessing = WaveformPreprocessing::read(data, where, strict);
    if (kind == "wordpiece") preprocessing = WordpiecePreprocessing::read(data, where, strict);
  }

  void read_postprocessing(const Json& data, const std::string& where, bool strict) {
    if (data.is_null()) return;
    const std::string kind = kind_of(data, where, {"classification", "detection", "text"});
    if (kind == "classification") postprocessing = ClassificationPostprocessing::read(data, where, strict);
    if (kind == "detection") postprocessing = DetectionPostprocessing::read(data, where, strict);
    if (kind == "text") postprocessing = TextPostprocessing::read(data, where, strict);
  }

  static std::vector<std::string> names_of(const std::vector<TensorSpec>& tensors) {
    std::vector<std::string> names;
    for (const TensorSpec& tensor : tensors) names.push_back(tensor.name);
    return names;
  }

  void check_preprocessing(const std::string& where) const {
    if (const auto* words = std::get_if<WordpiecePreprocessing>(&preprocessing)) {
      std::vector<std::string> wanted = words->names(), there = names_of(inputs);
      std::sort(wanted.begin(), wanted.end()), std::sort(there.begin(), there.end());
      if (wanted != there) {
        refuse_bundle("got [" + joined(wanted) + "]", where + ".preprocessing.inputs",
                      "the names of all inputs, [" + joined(there) + "]");
      }
    } else if (preprocessing.index() != 0 && inputs.size() != 1) {
      refuse_bundle(std::to_string(inputs.size()) + " inputs", where + ".preprocessing", "one input for this kind");
    }
  }

  void check_postprocessing(const std::string& where) const {
    const std::vector<std::string> there = names_of(outputs);
    const auto check_output = [&](const char* key, const std::string& output) {
      if (std::find(there.begin(), there.end(), output) == there.end()) {
        refuse_bundle("got " + in_quotes(output), where + ".postprocessing." + key,
                      "the name of an output, of [" + joined(there) + "]");
      }
    };
    if (const auto* classes = std::get_if<ClassificationPostprocessing>(&postprocessing)) {
      check_output("output", classes->output);
      if (labels.empty()) {
        refuse_bundle("no labels", where + ".labels", "a label for each class, for the postprocessing classification");
      }
    } else if (const auto* objects = std::get_if<DetectionPostprocessing>(&postprocessing)) {
      check_output("boxes", objects->boxes);
      check_output("scores", objects->scores);
    } else if (const auto* text = std::get_if<TextPostprocessing>(&postprocessing)) {
      check_output("output", text->output);
      if (vocabulary_file() != text->vocabulary_file) {
        refuse_bundle("got " + *vocabulary_file() + ", " + text->vocabulary_file, where + ".postprocessing.vocabulary",
                      "one for both sides of the model");
      }
    }
    const auto vocabulary = vocabulary_file();
    if (vocabulary && files.count(*vocabulary) == 0) {
      refuse_bundle(*vocabulary + " is not listed", where + ".files", "every file of the bundle, the vocabulary too");
    }
  }

  void check_variants(const std::string& where) const {
    if (variants.empty()) refuse_bundle("no variant", where + ".variants", "at least one");
    std::set<std::string> folded, needed{package_file, component_file};
    for (const Variant& each : variants) folded.insert(lower(each.name)), needed.insert(each.file());
    if (folded.size() != variants.size()) {
      refuse_bundle("two variants of one name", where + ".variants", "names that differ in more than case");
    }
    if (golden_samples > 0) needed.insert(golden_file);
    for (const std::string& path : needed) {
      if (files.count(path) == 0) refuse_bundle(path + " is not listed", where + ".files", "every file of the bundle");
    }
    std::vector<std::string> wanted = golden_samples > 0 ? names_of(outputs) : std::vector<std::string>();
    std::sort(wanted.begin(), wanted.end());
    for (std::size_t i = 0; i < variants.size(); ++i) {
      std::vector<std::string> found;
      for (const auto& [output, value] : variants[i].tolerance) found.push_back(output);
      if (found != wanted) {
        refuse_bundle("got [" + joined(found) + "]", where + ".variants[" + std::to_string(i) + "].tolerance",
                      golden_samples > 0 ? "one number for each output" : "empty without golden vectors");
      }
    }
  }
};

}  // namespace detail
}  // namespace edgekit
