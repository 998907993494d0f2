// A bundle, loaded: predicts from raw input (edgekit/device/model.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "environment.hpp"
#include "manifest.hpp"
#include "onnx_scan.hpp"
#include "runtime.hpp"
#include "signature.hpp"
#include "variants.hpp"

namespace edgekit {

/// How a bundle is loaded.
struct Options {
  std::string runtime_library;              ///< path of libonnxruntime; empty: EDGEKIT_ONNXRUNTIME or the system's name
  std::optional<std::string> provider;      ///< cpu, cuda or tensorrt; none: the first variant that runs here
  int threads = 1;                          ///< intra-op threads; 0 lets ONNX Runtime choose
  bool verify = true;                       ///< compare the SHA-256 of every file; false: only of those that are used
  std::optional<std::string> digest;        ///< the bundle's identity, where it is known from a source that is trusted
  std::optional<std::string> public_key;    ///< PEM text: load only what is signed with this key; needs OpenSSL 3
  std::string signature;                    ///< path of the signature; empty: NAME.edgekit.sig beside the bundle
  std::string crypto_library;               ///< path of OpenSSL's libcrypto; empty: the system's
  std::string isa;                          ///< take this processor for the choice of a variant; empty: the one here
  std::function<void(const std::string&)> on_note;  ///< hears of every fallback and compromise; they are in `notes` too
};

/// What came of replaying the golden vectors.
struct Check {
  std::size_t samples = 0;
  std::map<std::string, double> differences;  ///< the largest of each output
  std::map<std::string, double> tolerances;   ///< how large it may be
  double preprocessing = 0.0;                 ///< the largest difference of a preprocessed input
  std::vector<std::string> notes;             ///< what could not be checked, and why
};

/// An answer, in the form that the bundle's postprocessing has.
struct Answer {
  enum class Kind { tensors, classes, objects, text };
  Kind kind = Kind::tensors;
  std::vector<Prediction> predictions;  ///< of `classes`: one for each sample of the batch
  std::vector<Detection> detections;    ///< of `objects`: the surest first
  std::string text;                     ///< of `text`
  Tensors outputs;                      ///< what the model put out, always
};

/// A raw input that a golden vector was made from.
using RawInput = std::variant<std::monostate, Image, Sound, std::string>;

namespace detail {

/// The largest absolute difference; infinite where shapes differ or something is not a number on one side only.
inline double max_difference(const Tensor& value, const Tensor& expected) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (value.shape != expected.shape) return infinite;
  const std::vector<double> a = value.doubles(), b = expected.doubles();
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double difference = std::fabs(a[i] - b[i]);
    largest = std::isnan(difference) ? infinite : std::max(largest, difference);
  }
  return largest;
}

}  // namespace detail

/// A model that is ready to run. It moves and does not copy; its functions may be called from several threads at once.
class Model {
 public:
  /// Verify a bundle (a folder, or NAME.edgekit.zip), choose the variant that suits this machine, and open it.
  /// ONNX Runtime is handed bytes whose digest was checked, never a path.
  static Result<Model> load(const std::filesystem::path& path, const Options& options = {}) noexcept {
    return detail::guarded<Model>([&] {
      // The bundle first: what is wrong with it is worth knowing even where ONNX Runtime is missing.
      auto bundle = opened(path, options);
      const Runtime runtime(std::make_shared<const detail::OrtLibrary>(options.runtime_library));
      return Model(std::move(bundle), runtime, options);
    });
  }
  /// The same, in an ONNX Runtime that is open already.
  static Result<Model> load(const std::filesystem::path& path, const Runtime& runtime, const Options& options = {}) noexcept {
    return detail::guarded<Model>([&] { return Model(opened(path, options), runtime, options); });
  }

  Model(Model&&) noexcept = default;
  Model& operator=(Model&&) noexcept = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model() = default;

  const std::string& name() const noexcept { return manifest().name; }
  /// SHA-256 of edgekit/bundle.json: the bundle's identity.
  const std::string& digest() const noexcept { return bundle_->digest(); }
  const std::vector<TensorSpec>& inputs() const noexcept { return manifest().inputs; }
  const std::vector<TensorSpec>& outputs() const noexcept { return manifest().outputs; }
  const std::vector<std::string>& labels() const noexcept { return manifest().labels; }
  const std::vector<Variant>& variants() const noexcept { return manifest().variants; }
  /// The variant that runs, and why.
  const Choice& choice() const noexcept { return choice_; }
  /// What the caller should know: variants that were passed over, compromises.
  const std::vector<std::string>& notes() const noexcept { return notes_; }
  /// ONNX Runtime's version.
  const std::string& runtime_version() const noexcept { return library_->version(); }
  /// Hz of the recordings that the model takes; none for models that take no sound.
  std::optional<std::int64_t> sample_rate() const noexcept {
    return detail::sample_rate_of(manifest().preprocessing);
  }

  /// Which variant runs, why, and what is wrong with that, in lines.
  std::string explain() const {
    std::vector<std::string> lines{choice_.variant.text() + " runs with " + std::to_string(threads_) +
                                   " thread(s): " + choice_.reason};
    if (!choice_.compromise.empty()) lines.push_back("compromise: " + choice_.compromise);
    lines.insert(lines.end(), notes_.begin(), notes_.end());
    return detail::joined(lines, "\n");
  }

  /// Predict from an image.
  Result<Answer> predict(const ImageView& image) const noexcept {
    return detail::guarded<Answer>([&] {
      const auto* before = std::get_if<detail::ImagePreprocessing>(&manifest().preprocessing);
      if (before == nullptr) return answer(bare(pixels(image)), nullptr);
      const Tensor input = before->apply(image);
      return answer({&input}, &image);
    });
  }
  /// Predict from a recording of the rate `sample_rate()`.
  Result<Answer> predict(const Sound& sound) const noexcept {
    return detail::guarded<Answer>([&] {
      const std::optional<Tensor> input = detail::heard(manifest().preprocessing, sound);
      if (!input) {
        const Tensor raw = Tensor::of({static_cast<std::int64_t>(sound.samples.size())}, sound.samples);
        return answer(bare(raw), nullptr);
      }
      return answer({&*input}, nullptr);
    });
  }
  /// Predict from a text, which must be ASCII.
  Result<Answer> predict(std::string_view text) const noexcept {
    return detail::guarded<Answer>([&] {
      const auto* before = std::get_if<detail::WordpiecePreprocessing>(&manifest().preprocessing);
      if (before == nullptr) wrong_input("a text");
      return answer(ordered(before->apply(text, *vocabulary_)), nullptr);
    });
  }
  Result<Answer> predict(const char* text) const noexcept { return predict(std::string_view(text)); }
  /// Predict from the tensor of a model with one input, with or without its batch dimension; or from the bytes of an
  /// image, or samples of a recording, in a tensor.
  Result<Answer> predict(const Tensor& tensor) const noexcept {
    return detail::guarded<Answer>([&] { return from_tensor(tensor); });
  }
  /// Predict from tensors by name.
  Result<Answer> predict(const Tensors& feeds) const noexcept {
    return detail::guarded<Answer>([&] { return answer(ordered(feeds), nullptr); });
  }

  /// Outputs by name, for inputs by name.
  Result<Tensors> run(const Tensors& feeds) const noexcept {
    return detail::guarded<Tensors>([&] { return session_->run(checked(ordered(feeds))); });
  }

  /// Replay the golden vectors: preprocessing and outputs must come out as when the bundle was made.
  Result<Check> check() const noexcept {
    return detail::guarded<Check>([&] { return replayed(); });
  }
  /// The inputs of the golden vectors as they went into the preprocessing; nothing where that is not known.
  Result<std::vector<std::pair<RawInput, Tensors>>> golden_inputs() const noexcept {
    using Inputs = std::vector<std::pair<RawInput, Tensors>>;
    return detail::guarded<Inputs>([&] {
      Inputs made;
      for (detail::Golden& sample : golden()) made.emplace_back(raw_input(sample), std::move(sample.inputs));
      return made;
    });
  }

 private:
  static std::unique_ptr<const detail::Bundle> opened(const std::filesystem::path& path, const Options& options) {
    auto bundle = std::make_unique<const detail::Bundle>(path);
    if (options.digest && *options.digest != bundle->digest()) {
      detail::refuse_bundle("another bundle: its digest is " + bundle->digest(), detail::shown(bundle->where()),
                            "expected " + *options.digest);
    }
    if (options.public_key) {
      const auto signature = options.signature.empty() ? detail::signature_beside(path) : std::filesystem::path(options.signature);
      detail::check_signature(bundle->digests(), *options.public_key, signature, options.crypto_library);
    } else if (!options.signature.empty()) {
      detail::refuse_bundle("a signature, but no key", "Options", "a signature says nothing without public_key");
    }
    if (options.verify) bundle->check_digests();
    return bundle;
  }

  Model(std::unique_ptr<const detail::Bundle> bundle, const Runtime& runtime, const Options& options)
      : bundle_(std::move(bundle)), library_(runtime.library_), threads_(options.threads), notes_(manifest().notes) {
    const std::string isa = options.isa.empty() ? isa_target() : options.isa;
    const auto choices = detail::rank(manifest().variants, options.provider, library_->providers(), isa);
    open_best(choices, !options.provider);
    if (const auto file = manifest().vocabulary_file()) {
      vocabulary_ = std::make_unique<const detail::Vocabulary>(
          detail::Vocabulary::parse(detail::text_of(bundle_->read(*file)), bundle_->place(*file)));
      if (const auto* words = std::get_if<detail::WordpiecePreprocessing>(&manifest().preprocessing)) {
        words->check(*vocabulary_, detail::bundle_file);
      }
    }
    if (options.on_note) {
      for (const std::string& note : notes_) options.on_note(note);
      if (!choice_.compromise.empty()) options.on_note(choice_.variant.text() + ": " + choice_.compromise);
    }
  }

  const detail::Manifest& manifest() const noexcept { return bundle_->manifest(); }

  /// Open the first choice whose provider really works, and note what became of those before it.
  void open_best(const std::vector<Choice>& choices, bool fall_back) {
    for (std::size_t i = 0; i < choices.size(); ++i) {
      try {
        open(choices[i]);
        return;
      } catch (detail::Fault& fault) {
        const bool last = !fall_back || i + 1 == choices.size();
        if (last || fault.error.kind != Kind::provider) throw;
        notes_.push_back("passed over " + choices[i].variant.text() + ": " + fault.error.problem);
      }
    }
  }

  void open(const Choice& choice) {
    const std::string file = choice.variant.file(), where = bundle_->place(file);
    const detail::Bytes model = bundle_->read(file);
    detail::scan_onnx(detail::text_of(model), where);
    auto session = std::make_unique<const detail::Session>(library_, model, choice, threads_, where);
    const auto check_names = [&](const char* side, const std::vector<TensorSpec>& specs, const std::vector<std::string>& found) {
      std::vector<std::string> wanted;
      for (const TensorSpec& spec : specs) wanted.push_back(spec.name);
      if (wanted != found) {
        detail::refuse_bundle(std::string(side) + " [" + detail::joined(found) + "]", detail::shown(bundle_->where()),
                              "[" + detail::joined(wanted) + "] as in edgekit/bundle.json");
      }
    };
    check_names("inputs", manifest().inputs, session->inputs());
    check_names("outputs", manifest().outputs, session->outputs());
    session_ = std::move(session);
    choice_ = choice;
  }

  [[noreturn]] void wrong_input(const std::string& got) const {
    std::vector<std::string> wanted;
    for (const TensorSpec& spec : manifest().inputs) wanted.push_back(detail::in_quotes(spec.name) + " " + spec.text());
    detail::refuse(Kind::data, "got " + got, "predict", "the model takes " + detail::joined(wanted),
                   "give tensors by name, or a bundle whose preprocessing takes this");
  }

  /// Pointers to the tensors, in the order of the model's inputs.
  std::vector<const Tensor*> ordered(const Tensors& feeds) const {
    std::vector<std::string> wanted, got;
    std::vector<const Tensor*> found;
    for (const TensorSpec& spec : manifest().inputs) {
      wanted.push_back(spec.name);
      const auto feed = feeds.find(spec.name);
      if (feed != feeds.end()) found.push_back(&feed->second);
    }
    for (const auto& [name, feed] : feeds) got.push_back(name);
    if (found.size() != wanted.size() || got.size() != wanted.size()) {
      detail::refuse(Kind::data, "got inputs [" + detail::joined(got) + "]", "feeds",
                     "expected [" + detail::joined(wanted) + "]");
    }
    return found;
  }

  /// Refuse tensors of another type or shape, and such whose bytes are not as many as their shape says.
  std::vector<const Tensor*> checked(std::vector<const Tensor*> feeds) const {
    for (std::size_t i = 0; i < feeds.size(); ++i) {
      const TensorSpec& spec = manifest().inputs[i];
      const std::size_t count = detail::element_count(feeds[i]->shape), size = detail::info(feeds[i]->dtype).size;
      const bool whole = count <= feeds[i]->bytes.size() && count * size == feeds[i]->bytes.size();
      if (!spec.accepts(feeds[i]->dtype, feeds[i]->shape) || !whole) {
        detail::refuse(Kind::data,
                       "got " + feeds[i]->text() + (whole ? "" : " of " + std::to_string(feeds[i]->bytes.size()) + " bytes"),
                       "tensor " + detail::in_quotes(spec.name), "expected " + spec.text(),
                       "convert the values, or leave the preprocessing to the bundle");
      }
    }
    return feeds;
  }

  /// The only input, where the bundle has no preprocessing for it.
  std::vector<const Tensor*> bare(const Tensor& tensor) const {
    const bool one = manifest().inputs.size() == 1 && manifest().preprocessing.index() == 0;
    if (!one || !manifest().inputs[0].accepts(tensor.dtype, tensor.shape)) wrong_input(tensor.text());
    return {&tensor};
  }

  /// An image's bytes as a tensor [height, width, 3], as bundles take it that have their preprocessing in the graph.
  static Tensor pixels(const ImageView& image) {
    detail::ImagePreprocessing::check(image);
    Tensor made{DType::uint8, {static_cast<std::int64_t>(image.height), static_cast<std::int64_t>(image.width), 3}, {}};
    const std::size_t row = image.row_bytes != 0 ? image.row_bytes : image.width * image.channels;
    made.bytes.reserve(image.height * image.width * 3);
    for (std::size_t y = 0; y < image.height; ++y) {
      for (std::size_t i = 0; i < image.width * 3; ++i) {
        made.bytes.push_back(image.pixels[y * row + (image.channels == 3 ? i : i / 3)]);
      }
    }
    return made;
  }

  Answer from_tensor(const Tensor& tensor) const {
    if (manifest().inputs.size() != 1) wrong_input("one tensor");
    const TensorSpec& spec = manifest().inputs[0];
    if (spec.accepts(tensor.dtype, tensor.shape)) return answer({&tensor}, nullptr);
    std::vector<std::int64_t> batch{1};
    batch.insert(batch.end(), tensor.shape.begin(), tensor.shape.end());
    if (spec.accepts(tensor.dtype, batch)) {
      const Tensor one{tensor.dtype, batch, tensor.bytes};
      return answer({&one}, nullptr);
    }
    const auto* image = std::get_if<detail::ImagePreprocessing>(&manifest().preprocessing);
    if (image != nullptr && is_image(tensor)) {
      const ImageView seen = view(tensor);
      const Tensor input = image->apply(seen);
      return answer({&input}, &seen);
    }
    if (sample_rate() && is_sound(tensor)) {
      const std::optional<Tensor> input = detail::heard(manifest().preprocessing, recording(tensor));
      return answer({&*input}, nullptr);
    }
    return answer({&tensor}, nullptr);  // whose check says what is wrong with it
  }

  static bool is_image(const Tensor& tensor) noexcept {
    const std::size_t rank = tensor.shape.size();
    return tensor.dtype == DType::uint8 && (rank == 2 || (rank == 3 && (tensor.shape[2] == 3 || tensor.shape[2] == 1))) &&
           detail::element_count(tensor.shape) == tensor.bytes.size() && !tensor.bytes.empty();
  }
  static ImageView view(const Tensor& tensor) noexcept {
    return {static_cast<std::size_t>(tensor.shape[0]), static_cast<std::size_t>(tensor.shape[1]),
            tensor.shape.size() == 3 ? static_cast<std::size_t>(tensor.shape[2]) : 1, tensor.bytes.data(), 0};
  }
  static bool is_sound(const Tensor& tensor) noexcept {
    return tensor.shape.size() == 1 && (tensor.dtype == DType::int16 || tensor.dtype == DType::float32 ||
                                        tensor.dtype == DType::float64 || tensor.dtype == DType::float16);
  }
  static Sound recording(const Tensor& tensor) {
    const double divisor = tensor.dtype == DType::int16 ? 32768.0 : 1.0;
    Sound made;
    for (const double value : tensor.doubles()) made.samples.push_back(static_cast<float>(value / divisor));
    return made;
  }

  /// Run, and make of the outputs what the bundle's postprocessing says. `image` is what boxes are found in.
  Answer answer(std::vector<const Tensor*> feeds, const ImageView* image) const {
    Answer made;
    feeds = checked(std::move(feeds));
    made.outputs = session_->run(feeds);
    const detail::Postprocessing& after = manifest().postprocessing;
    if (const auto* classes = std::get_if<detail::ClassificationPostprocessing>(&after)) {
      made.kind = Answer::Kind::classes;
      made.predictions = classes->apply(made.outputs, manifest().labels);
    } else if (const auto* objects = std::get_if<detail::DetectionPostprocessing>(&after)) {
      made.kind = Answer::Kind::objects;
      made.detections = detections(*objects, made.outputs, *feeds[0], image);
    } else if (const auto* text = std::get_if<detail::TextPostprocessing>(&after)) {
      made.kind = Answer::Kind::text;
      made.text = text->apply(made.outputs, *vocabulary_);
    }
    return made;
  }

  std::vector<Detection> detections(const detail::DetectionPostprocessing& objects, const Tensors& outputs,
                                    const Tensor& input, const ImageView* image) const {
    const auto* before = std::get_if<detail::ImagePreprocessing>(&manifest().preprocessing);
    if (before != nullptr && image != nullptr) {
      const auto height = static_cast<std::int64_t>(image->height), width = static_cast<std::int64_t>(image->width);
      const detail::Geometry placed = before->geometry(height, width);
      return objects.apply(outputs, manifest().labels, before->height, before->width, &placed, height, width);
    }
    std::int64_t height = 0, width = 0;
    if (before != nullptr) {
      height = before->height, width = before->width;
    } else {
      const std::vector<std::int64_t>& shape = input.shape;
      if (shape.size() != 3 && shape.size() != 4) {
        detail::refuse_bundle("an input " + detail::listed(shape), manifest().name, "boxes need a model that sees an image");
      }
      // [height, width, channels] is what a bundle with its preprocessing in the graph takes.
      const bool planes = shape.size() == 4 && (shape[1] == 1 || shape[1] == 3);
      const std::size_t first = planes ? 2 : shape.size() - 3;
      height = shape[first], width = shape[first + 1];
    }
    return objects.apply(outputs, manifest().labels, height, width, nullptr, height, width);
  }

  std::vector<detail::Golden> golden() const {
    if (manifest().golden_samples == 0) return {};
    return detail::read_golden(bundle_->read(detail::golden_file), manifest());
  }

  static RawInput raw_input(const detail::Golden& sample) {
    if (sample.raw_kind == "image" && is_image(sample.raw)) {
      const ImageView seen = view(sample.raw);
      return Image{seen.height, seen.width, seen.channels, sample.raw.bytes};
    }
    if (sample.raw_kind == "samples") return recording(sample.raw);
    if (sample.raw_kind == "text") return std::string(detail::text_of(sample.raw.bytes));
    return std::monostate();
  }

  Check replayed() const {
    const std::vector<detail::Golden> samples = golden();
    if (samples.empty()) detail::refuse_bundle("no golden vectors", manifest().name, "a bundle that can be checked");
    Check made;
    made.samples = samples.size();
    made.tolerances = choice_.variant.tolerance;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      check_preprocessing(samples[i], i, made);
      const Tensors outputs = session_->run(checked(ordered(samples[i].inputs)));
      for (const auto& [output, value] : outputs) {
        const double found = detail::max_difference(value, samples[i].outputs.at(output));
        const double tolerance = choice_.variant.tolerance.at(output);
        if (!(found <= tolerance)) {
          detail::refuse_bundle("output " + detail::in_quotes(output) + " of golden sample " + std::to_string(i) +
                                    " differs by " + detail::short_number(found),
                                manifest().name + ", variant " + choice_.variant.text(),
                                "at most " + detail::short_number(tolerance) + ", " +
                                    (choice_.variant.measured ? "measured" : "assumed") + " when the bundle was made",
                                "this machine computes another result: " +
                                    (choice_.compromise.empty() ? "try another provider" : choice_.compromise));
        }
        double& largest = made.differences[output];
        largest = std::max(largest, found);
      }
    }
    return made;
  }

  void check_preprocessing(const detail::Golden& sample, std::size_t index, Check& made) const {
    if (sample.raw_kind.empty()) return;
    const std::string number = std::to_string(index);
    const auto wrong = [&] {
      detail::refuse_bundle("golden sample " + number + " has raw input of the kind " + detail::in_quotes(sample.raw_kind),
                            manifest().name, "raw input needs preprocessing of its kind");
    };
    Tensors prepared;
    const RawInput raw = raw_input(sample);
    const std::string& input = manifest().inputs[0].name;
    const detail::Preprocessing& before = manifest().preprocessing;
    if (const auto* image = std::get_if<Image>(&raw)) {
      const auto* kind = std::get_if<detail::ImagePreprocessing>(&before);
      if (kind == nullptr) wrong();
      prepared[input] = kind->apply(*image);
    } else if (const auto* sound = std::get_if<Sound>(&raw)) {
      std::optional<Tensor> made_of_it = detail::heard(before, *sound);
      if (!made_of_it) wrong();
      prepared[input] = std::move(*made_of_it);
    } else if (const auto* text = std::get_if<std::string>(&raw)) {
      const auto* kind = std::get_if<detail::WordpiecePreprocessing>(&before);
      if (kind == nullptr) wrong();
      if (std::any_of(text->begin(), text->end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
        made.notes.push_back("the preprocessing of golden sample " + number + " was not checked: its text is not ASCII");
        return;
      }
      prepared = kind->apply(*text, *vocabulary_);
    } else {
      wrong();
    }
    double found = 0.0, allowed = 1e-5;
    for (const auto& [name, expected] : sample.inputs) {
      found = std::max(found, detail::max_difference(prepared.at(name), expected));
      for (const double value : expected.doubles()) allowed = std::max(allowed, 1e-5 * std::fabs(value));
    }
    if (!(found <= allowed)) {
      detail::refuse_bundle("the preprocessed input of golden sample " + number + " differs by " + detail::short_number(found),
                            manifest().name, "at most " + detail::short_number(allowed));
    }
    made.preprocessing = std::max(made.preprocessing, found);
  }

  std::unique_ptr<const detail::Bundle> bundle_;
  std::shared_ptr<const detail::OrtLibrary> library_;
  int threads_ = 1;
  std::vector<std::string> notes_;
  Choice choice_;
  std::unique_ptr<const detail::Session> session_;
  std::unique_ptr<const detail::Vocabulary> vocabulary_;
};

}  // namespace edgekit
