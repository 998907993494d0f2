// What the tests ask of the loader's parts; each answers on stdout, and the tests compare by other means.
//
//   probe sha256 FILE...     probe json FILE...   probe scan FILE.onnx...   (a line for each)
//   probe isa
//   probe process KIND FILE  (cases as JSON, without what is expected)
//   probe runtime            probe threads BUNDLE FILE.npy                  probe memory BUNDLE FILE.npy
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <edgekit/edgekit.hpp>

#include "../app/inputs.hpp"
#include "../app/print.hpp"

namespace {

using namespace edgekit::detail;
using edgekit::Kind;
using edgekit::Tensor;
using edgekit::Tensors;

static_assert(!std::is_copy_constructible_v<edgekit::Model> && !std::is_copy_assignable_v<edgekit::Model>);
static_assert(std::is_nothrow_move_constructible_v<edgekit::Model> && std::is_nothrow_move_assignable_v<edgekit::Model>);
static_assert(noexcept(edgekit::Model::load(std::declval<const std::filesystem::path&>(), std::declval<const edgekit::Options&>())));
static_assert(noexcept(edgekit::Runtime::open(std::declval<const std::string&>())));
static_assert(noexcept(std::declval<const edgekit::Model&>().predict(std::declval<const Tensor&>())));
static_assert(noexcept(std::declval<const edgekit::Model&>().check()));

std::string file_text(const char* path) {
  const Bytes data = app::read_file(path);
  return std::string(text_of(data));
}

Tensor tensor(const Json& data) {
  Tensor made;
  std::vector<double> values;
  for (const Json& value : *data.find("data")->list()) values.push_back(value.number());
  for (const Json& side : *data.find("shape")->list()) made.shape.push_back(*side.integer());
  for (const DTypeInfo& each : dtypes) {
    if (*data.find("dtype")->text() == each.name) made.dtype = each.dtype;
  }
  const auto as = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> converted;
    for (const double value : values) converted.push_back(static_cast<T>(value));
    return Tensor::of(made.shape, converted);
  };
  switch (made.dtype) {
    case edgekit::DType::uint8: return as(std::uint8_t{});
    case edgekit::DType::int16: return as(std::int16_t{});
    case edgekit::DType::int32: return as(std::int32_t{});
    case edgekit::DType::int64: return as(std::int64_t{});
    case edgekit::DType::float64: return as(double{});
    default: return as(float{});
  }
}

std::string write(const Tensor& made) {
  return "{\"dtype\": \"" + std::string(info(made.dtype).name) + "\", \"shape\": " + listed(made.shape) +
         ", \"data\": " + app::json_list(made.doubles(), app::json_number) + "}";
}

Tensors tensors(const Json& data) {
  Tensors made;
  for (const auto& [name, value] : *data.object()) made[name] = tensor(value);
  return made;
}

std::vector<std::string> texts(const Json& data) {
  std::vector<std::string> made;
  for (const Json& value : *data.list()) made.push_back(*value.text());
  return made;
}

Vocabulary vocabulary(const Json& data) {
  return Vocabulary::parse(joined(texts(data), "\n") + "\n", "vocabulary");
}

std::string processed(const std::string& kind, const Json& data) {
  const auto before = [&]() -> const Json& { return *data.find("preprocessing"); };
  const auto after = [&]() -> const Json& { return *data.find("postprocessing"); };
  if (kind == "image") {
    const Tensor image = tensor(*data.find("raw")->find("image"));
    const auto side = [&](std::size_t i) { return static_cast<std::size_t>(image.shape[i]); };
    const edgekit::ImageView view{side(0), side(1), image.shape.size() == 3 ? side(2) : 1, image.bytes.data(), 0};
    return write(ImagePreprocessing::read(before(), "preprocessing", true).apply(view));
  }
  if (kind == "log_mel" || kind == "waveform") {
    const Tensor samples = tensor(*data.find("raw")->find("samples"));
    edgekit::Sound sound;
    for (const double value : samples.doubles()) {
      sound.samples.push_back(static_cast<float>(value / (samples.dtype == edgekit::DType::int16 ? 32768.0 : 1.0)));
    }
    if (kind == "log_mel") return write(LogMelPreprocessing::read(before(), "preprocessing", true).apply(sound));
    return write(WaveformPreprocessing::read(before(), "preprocessing", true).apply(sound));
  }
  if (kind == "wordpiece") {
    const auto made = WordpiecePreprocessing::read(before(), "preprocessing", true)
                          .apply(*data.find("raw")->find("text")->text(), vocabulary(*data.find("vocabulary")));
    std::vector<std::string> parts;
    for (const auto& [name, value] : made) parts.push_back(app::json_text(name) + ": " + write(value));
    return "{" + joined(parts) + "}";
  }
  const Tensors outputs = tensors(*data.find("outputs"));
  if (kind == "text") {
    return app::json_text(TextPostprocessing::read(after(), "postprocessing", true).apply(outputs, vocabulary(*data.find("vocabulary"))));
  }
  const std::vector<std::string> labels = texts(*data.find("labels"));
  const auto shown_as_json = [](const auto& each) { return app::json(each); };
  if (kind == "classification") {
    return app::json_list(ClassificationPostprocessing::read(after(), "postprocessing", true).apply(outputs, labels), shown_as_json);
  }
  const auto objects = DetectionPostprocessing::read(after(), "postprocessing", true);
  const auto& size = *data.find("image")->list();
  const std::int64_t height = *size[0].integer(), width = *size[1].integer();
  if (before().is_null()) return app::json_list(objects.apply(outputs, labels, 32, 48, nullptr, height, width), shown_as_json);
  const auto image = ImagePreprocessing::read(before(), "preprocessing", true);
  const Geometry placed = image.geometry(height, width);
  return app::json_list(objects.apply(outputs, labels, image.height, image.width, &placed, height, width), shown_as_json);
}

/// A result, or the error as an object.
std::string answered(const std::string& kind, const Json& data) {
  const auto made = guarded<std::string>([&] { return processed(kind, data); });
  return made ? *made : "{\"error\": " + app::json_text(made.error().text()) + "}";
}

std::string scanned(const char* path) {
  const OnnxScan made = scan_onnx(file_text(path), path);
  std::map<std::string, double> operators, opsets;
  for (const auto& [name, count] : made.operators) operators[name] = static_cast<double>(count);
  for (const auto& [name, version] : made.opsets) opsets[name] = static_cast<double>(version);
  return "{\"ir_version\": " + std::to_string(made.ir_version) + ", \"nodes\": " + std::to_string(made.nodes) +
         ", \"tensors\": " + std::to_string(made.tensors) + ", \"operators\": " + app::json_numbers(operators) +
         ", \"opsets\": " + app::json_numbers(opsets) + "}";
}

/// The functions of the table that no model exercises, called so that a wrong number would show.
std::string runtime() {
  const OrtLibrary library("");
  const OrtApi& api = library.api();
  constexpr int invalid_argument = 2;
  OrtStatus* status = api.create_status(invalid_argument, "a text of our own");
  const int code = api.get_error_code(status);
  const std::string text = library.failure(status);
  OrtSessionOptions* options = nullptr;
  library.check(api.create_session_options(&options), Kind::runtime, "options");
  const Owned<OrtSessionOptions> owned(options, {api.release_session_options.pointer});
  const std::string twice = [&] {
    library.check(api.add_session_config_entry(options, "session.x64quantprecision", "1"), Kind::runtime, "options");
    return library.failure(api.add_session_config_entry(options, "", "1"));
  }();
  // Neither provider is in a build for the CPU, and it says so: with the wrong numbers other functions would answer.
  OrtCudaOptions* cuda = nullptr;
  const std::string no_cuda = library.failure(api.create_cuda_options(&cuda));
  if (cuda != nullptr) api.release_cuda_options(cuda);
  OrtTensorRTOptions* tensorrt = nullptr;
  const std::string no_tensorrt = library.failure(api.create_tensorrt_options(&tensorrt));
  if (tensorrt != nullptr) api.release_tensorrt_options(tensorrt);
  // Options of zeros: not even they get that far, and null would be read.
  alignas(64) static std::uint8_t zeros[8192] = {};
  if (cuda == nullptr) cuda = reinterpret_cast<OrtCudaOptions*>(zeros);
  if (tensorrt == nullptr) tensorrt = reinterpret_cast<OrtTensorRTOptions*>(zeros);
  const std::string append_cuda = library.failure(api.append_cuda(options, cuda));
  const std::string append_tensorrt = library.failure(api.append_tensorrt(options, tensorrt));
  return "{\"version\": " + app::json_text(library.version()) + ", \"code\": " + std::to_string(code) +
         ", \"text\": " + app::json_text(text) + ", \"config\": " + app::json_text(twice) +
         ", \"cuda\": " + app::json_text(no_cuda) + ", \"tensorrt\": " + app::json_text(no_tensorrt) +
         ", \"append_cuda\": " + app::json_text(append_cuda) + ", \"append_tensorrt\": " + app::json_text(append_tensorrt) +
         ", \"providers\": " + app::json_list(library.providers(), app::json_text) + "}";
}

std::string answer(const edgekit::Model& model, const Tensor& input) {
  const auto made = model.predict(input);
  if (!made) throw Fault{made.error()};
  return app::json(*made);
}

edgekit::Model loaded(const char* path) {
  auto model = edgekit::Model::load(path);
  if (!model) throw Fault{model.error()};
  return std::move(model).value();
}

/// One model, moved once, asked by four threads at once.
std::string threads(const char* path, const char* file) {
  edgekit::Model first = loaded(path);
  const Tensor input = NpyParser(file_text(file), file, Kind::data).parse();
  const std::string expected = answer(first, input);
  const edgekit::Model model = std::move(first);
  std::atomic<int> same{0}, others{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      for (int run = 0; run < 25; ++run) {
        const auto made = model.predict(input);
        ++(made && app::json(*made) == expected ? same : others);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  return "{\"same\": " + std::to_string(same.load()) + ", \"others\": " + std::to_string(others.load()) + "}";
}

/// Loads, runs, is refused and lets go several times over, for those who look for leaks.
std::string memory(const char* path, const char* file) {
  const Tensor input = NpyParser(file_text(file), file, Kind::data).parse();
  const auto runtime = edgekit::Runtime::open();
  if (!runtime) throw Fault{runtime.error()};
  std::string last;
  for (int i = 0; i < 3; ++i) {
    auto model = edgekit::Model::load(path, *runtime);
    if (!model) throw Fault{model.error()};
    last = answer(*model, input);
    if (!model->check()) throw Fault{model->check().error()};
    Tensor wrong = input;
    if (!wrong.bytes.empty()) wrong.bytes.pop_back();
    if (model->predict(wrong)) last = "a tensor of too few bytes was taken";
    edgekit::Options options;
    options.provider = "cuda";
    if (edgekit::Model::load(path, *runtime, options)) last = "there is no cuda here";
  }
  return last;
}

std::string digests(const char* path) {
  const Bytes data = app::read_file(path);
  const auto file = std::make_shared<const File>(path, true, path);
  return Sha256::of(data.data(), data.size()) + " " + sha256_of({file, 0, file->size()}, path);
}

std::string type_of_json(const char* path) { return parse_json(file_text(path), "file").type_name(); }

/// A line for each file: the answer, or what is wrong with the file.
std::string each_file(int count, char** values, std::string (*answer_file)(const char*)) {
  std::vector<std::string> lines;
  for (int i = 2; i < count; ++i) {
    const auto made = guarded<std::string>([&] { return answer_file(values[i]); });
    lines.push_back(made ? *made : "refused: " + made.error().problem);
  }
  return joined(lines, "\n");
}

std::string asked(int count, char** values) {
  const std::string what = count > 1 ? values[1] : "";
  if (what == "isa") return edgekit::isa_target();
  if (what == "runtime") return runtime();
  for (const auto& [name, answer_file] : {std::pair{"sha256", digests}, std::pair{"json", type_of_json}, std::pair{"scan", scanned}}) {
    if (what == name) return each_file(count, values, answer_file);
  }
  if (count == 4 && what == "threads") return threads(values[2], values[3]);
  if (count == 4 && what == "memory") return memory(values[2], values[3]);
  if (count == 4 && what == "process") {
    const Json cases = parse_json(file_text(values[3]), values[3]);
    return app::json_list(*cases.find("cases")->list(), [&](const Json& each) { return answered(values[2], each); });
  }
  refuse(Kind::data, "got " + what, "probe", "one of the questions above");
}

}  // namespace

int main(int count, char** values) {
  const auto made = guarded<std::string>([&] { return asked(count, values); });
  std::printf("%s\n", made ? made->c_str() : made.error().text().c_str());
  return made ? 0 : 4;
}
