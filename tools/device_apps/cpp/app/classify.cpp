// classify: what a bundle says of images, recordings, texts or arrays.
//
//   classify BUNDLE photo.ppm
//   classify BUNDLE --check
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <edgekit/edgekit.hpp>

#include "inputs.hpp"
#include "print.hpp"

namespace {

constexpr const char* usage =
    "usage: classify [OPTION...] BUNDLE [INPUT...]\n"
    "\n"
    "BUNDLE is a folder or a NAME.edgekit.zip; INPUT a .ppm or .pgm image, a .wav recording, a .txt text (ASCII), or an\n"
    ".npy array (an image's bytes, samples, or the model's input itself).\n"
    "\n"
    "  --check         replay the bundle's golden vectors: print each prediction, and how far outputs lie from those\n"
    "                  recorded when the bundle was made\n"
    "  --explain       say which of the bundle's files runs here, and why\n"
    "  --json          print one JSON object: model, check, answers; or error\n"
    "  --provider P    cpu, cuda or tensorrt (default: the bundle's first that runs here)\n"
    "  --threads N     threads of one run (default: 1; 0 lets ONNX Runtime choose)\n"
    "  --digest SHA    refuse the bundle unless this is its identity (SHA-256 of edgekit/bundle.json)\n"
    "  --key FILE      refuse the bundle unless it is signed with this key (PEM); its signature, NAME.edgekit.sig, lies\n"
    "                  beside it\n"
    "  --isa NAME      choose as on another processor: x86-vnni, x86-avx2, x86, arm64\n"
    "  --runtime FILE  the library of ONNX Runtime (default: the variable EDGEKIT_ONNXRUNTIME, or the system's)\n"
    "  --help          print this\n";

struct Arguments {
  edgekit::Options options;
  std::vector<std::string> files;
  std::string key;
  bool check = false, explain = false, json = false;
};

bool parse(int count, char** values, Arguments& made) {
  for (int i = 1; i < count; ++i) {
    const std::string word = values[i];
    const char* value = i + 1 < count ? values[i + 1] : nullptr;
    if (word == "--check" || word == "--explain" || word == "--json") {
      (word == "--check" ? made.check : word == "--explain" ? made.explain : made.json) = true;
    } else if (word.size() > 1 && word[0] == '-') {
      if (value == nullptr) return false;
      if (word == "--provider") made.options.provider = value;
      else if (word == "--digest") made.options.digest = value;
      else if (word == "--key") made.key = value;
      else if (word == "--isa") made.options.isa = value;
      else if (word == "--runtime") made.options.runtime_library = value;
      else if (word == "--threads" && std::strspn(value, "0123456789") == std::strlen(value)) made.options.threads = std::atoi(value);
      else return false;
      ++i;
    } else {
      made.files.push_back(word);
    }
  }
  return !made.files.empty() && (made.files.size() > 1 || made.check || made.explain);
}

/// Prints answers as they come, or collects them for JSON.
class Output {
 public:
  explicit Output(bool json) noexcept : json_(json) {}
  void part(const std::string& key, const std::string& json, const std::string& text) {
    parts_.push_back(app::json_text(key) + ": " + json);
    if (!json_) std::printf("%s\n", text.c_str());
  }
  void answer(const std::string& name, const edgekit::Answer& answer) {
    answers_.push_back("{\"input\": " + app::json_text(name) + ", \"answer\": " + app::json(answer) + "}");
    if (!json_) std::printf("%s: %s\n", name.c_str(), app::text(answer).c_str());
  }
  int failed(const edgekit::Error& error) const {
    if (json_) {
      constexpr const char* kinds[] = {"bundle", "provider", "data", "runtime", "memory"};
      std::printf("{\"error\": {\"kind\": \"%s\", \"problem\": %s, \"where\": %s, \"rule\": %s, \"way_out\": %s}}\n",
                  kinds[static_cast<int>(error.kind)], app::json_text(error.problem).c_str(),
                  app::json_text(error.where).c_str(), app::json_text(error.rule).c_str(),
                  app::json_text(error.way_out).c_str());
    }
    std::fprintf(stderr, "%s\n", error.text().c_str());
    return 4;
  }
  void finish() {
    parts_.push_back("\"answers\": [" + edgekit::detail::joined(answers_) + "]");
    if (json_) std::printf("{%s}\n", edgekit::detail::joined(parts_).c_str());
  }

 private:
  bool json_;
  std::vector<std::string> parts_, answers_;
};

edgekit::Result<edgekit::Answer> golden_answer(const edgekit::Model& model, const edgekit::RawInput& raw, const edgekit::Tensors& inputs) {
  if (const auto* image = std::get_if<edgekit::Image>(&raw)) return model.predict(*image);
  if (const auto* sound = std::get_if<edgekit::Sound>(&raw)) return model.predict(*sound);
  return model.predict(inputs);  // a text too: it may be more than ASCII, and its ids stand beside it
}

int check(const edgekit::Model& model, Output& output) {
  const auto samples = model.golden_inputs();
  if (!samples) return output.failed(samples.error());
  for (std::size_t i = 0; i < samples->size(); ++i) {
    const auto answer = golden_answer(model, (*samples)[i].first, (*samples)[i].second);
    if (!answer) return output.failed(answer.error());
    output.answer("golden sample " + std::to_string(i), *answer);
  }
  const auto checked = model.check();
  if (!checked) return output.failed(checked.error());
  std::string text = "golden vectors: " + std::to_string(checked->samples) + " samples agree";
  for (const auto& [name, difference] : checked->differences) {
    text += "; " + name + " differs by " + edgekit::detail::short_number(difference) + " at most, of " +
            edgekit::detail::short_number(checked->tolerances.at(name)) + " allowed";
  }
  for (const std::string& note : checked->notes) text += "\n" + note;
  output.part("check",
              "{\"samples\": " + std::to_string(checked->samples) + ", \"differences\": " +
                  app::json_numbers(checked->differences) + ", \"tolerances\": " + app::json_numbers(checked->tolerances) +
                  ", \"preprocessing\": " + app::json_number(checked->preprocessing) + ", \"notes\": " +
                  app::json_list(checked->notes, app::json_text) + "}",
              text);
  return 0;
}

edgekit::Result<edgekit::Answer> predict(const edgekit::Model& model, const std::string& file) {
  const auto input = edgekit::detail::guarded<app::Input>([&] { return app::read_input(file, model.sample_rate().value_or(0)); });
  if (!input) return input.error();
  return std::visit([&](const auto& value) { return model.predict(value); }, *input);
}

int run(Arguments& arguments) {
  Output output(arguments.json);
  if (!arguments.key.empty()) {
    auto key = edgekit::detail::guarded<std::string>(
        [&] { return std::string(edgekit::detail::text_of(app::read_file(arguments.key))); });
    if (!key) return output.failed(key.error());
    arguments.options.public_key = std::move(*key);
  }
  const auto model = edgekit::Model::load(arguments.files[0], arguments.options);
  if (!model) return output.failed(model.error());
  const std::string about = "{\"name\": " + app::json_text(model->name()) + ", \"digest\": " + app::json_text(model->digest()) +
                            ", \"variant\": " + app::json_text(model->choice().variant.name) + ", \"runtime\": " +
                            app::json_text(model->runtime_version()) + ", \"explain\": " + app::json_text(model->explain()) + "}";
  if (arguments.explain || arguments.json) {
    output.part("model", about, model->explain() + "\nONNX Runtime " + model->runtime_version() + ", bundle " + model->digest());
  }
  if (arguments.check) {
    const int code = check(*model, output);
    if (code != 0) return code;
  }
  for (std::size_t i = 1; i < arguments.files.size(); ++i) {
    const auto answer = predict(*model, arguments.files[i]);
    if (!answer) return output.failed(answer.error());
    output.answer(arguments.files[i], *answer);
  }
  output.finish();
  return 0;
}

}  // namespace

int main(int count, char** values) {
  if (count == 2 && std::strcmp(values[1], "--help") == 0) {
    std::fputs(usage, stdout);
    return 0;
  }
  Arguments arguments;
  if (!parse(count, values, arguments)) {
    std::fputs(usage, stderr);
    return 2;
  }
#ifndef _WIN32
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
  arguments.options.on_note = [](const std::string& note) { std::fprintf(stderr, "note: %s\n", note.c_str()); };
  return run(arguments);
}
