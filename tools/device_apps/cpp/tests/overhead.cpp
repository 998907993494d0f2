// What a call costs beyond ONNX Runtime's own: overhead BUNDLE [ROUNDS]
//
// Three ways to run the first golden sample, in interleaved rounds, and the median of each: ONNX Runtime's `Run` on
// values that were made beforehand; `Model::run` on a tensor (checks, inputs and outputs as tensors); `Model::predict`
// on the raw input, with preprocessing and postprocessing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <edgekit/edgekit.hpp>

namespace {

using namespace edgekit::detail;

/// `Run` and nothing else: what any wrapper must come near.
class Bare {
 public:
  Bare(const std::string& path, const edgekit::Choice& choice, const edgekit::Tensors& inputs)
      : bundle_(path), library_(std::make_shared<const OrtLibrary>("")) {
    const OrtApi& api = library_->api();
    OrtSessionOptions* options = nullptr;
    library_->check(api.create_session_options(&options), edgekit::Kind::runtime, "options");
    const Owned<OrtSessionOptions> owned(options, {api.release_session_options.pointer});
    library_->check(api.set_intra_op_num_threads(options, 1), edgekit::Kind::runtime, "options");
    library_->check(api.set_inter_op_num_threads(options, 1), edgekit::Kind::runtime, "options");
    const Bytes model = bundle_.read(choice.variant.file());
    OrtSession* session = nullptr;
    library_->check(api.create_session_from_array(library_->env(), model.data(), model.size(), options, &session),
                    edgekit::Kind::runtime, "session");
    session_ = {session, {api.release_session.pointer}};
    for (const auto& spec : bundle_.manifest().inputs) {
      const edgekit::Tensor& tensor = inputs.at(spec.name);
      OrtValue* value = nullptr;
      library_->check(api.create_tensor_with_data(library_->memory(), const_cast<std::uint8_t*>(tensor.bytes.data()),
                                                  tensor.bytes.size(), tensor.shape.data(), tensor.shape.size(),
                                                  static_cast<int>(tensor.dtype), &value),
                      edgekit::Kind::runtime, "value");
      values_.emplace_back(value, Releaser<OrtValue>{api.release_value.pointer});
      pointers_.push_back(value);
      input_names_.push_back(spec.name.c_str());
    }
    for (const auto& spec : bundle_.manifest().outputs) output_names_.push_back(spec.name.c_str());
  }

  void run() {
    const OrtApi& api = library_->api();
    std::vector<OrtValue*> results(output_names_.size(), nullptr);
    library_->check(api.run(session_.get(), nullptr, input_names_.data(), pointers_.data(), pointers_.size(),
                            output_names_.data(), output_names_.size(), results.data()),
                    edgekit::Kind::runtime, "run");
    for (OrtValue* result : results) api.release_value(result);
  }

 private:
  Bundle bundle_;
  std::shared_ptr<const OrtLibrary> library_;
  Owned<OrtSession> session_{nullptr, {}};
  std::vector<Owned<OrtValue>> values_;
  std::vector<OrtValue*> pointers_;
  std::vector<const char*> input_names_, output_names_;
};

template <class Work>
double microseconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double>& times) {
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

int measured(const std::string& path, int rounds) {
  const auto model = edgekit::Model::load(path);
  if (!model) throw Fault{model.error()};
  const auto samples = model->golden_inputs();
  if (!samples) throw Fault{samples.error()};
  if (samples->empty()) refuse_bundle("no golden vectors", path, "a bundle with a sample to run");
  const auto& [raw, inputs] = (*samples)[0];
  Bare bare(path, model->choice(), inputs);
  const auto predict = [&, &raw = raw, &inputs = inputs] {
    if (const auto* image = std::get_if<edgekit::Image>(&raw)) return model->predict(*image).ok();
    if (const auto* sound = std::get_if<edgekit::Sound>(&raw)) return model->predict(*sound).ok();
    if (const auto* text = std::get_if<std::string>(&raw)) return model->predict(*text).ok();
    return model->predict(inputs).ok();
  };
  std::vector<double> times[3];
  for (int round = 0; round < rounds; ++round) {
    bool ok = true;
    times[0].push_back(microseconds([&] { bare.run(); }));
    times[1].push_back(microseconds([&, &inputs = inputs] { ok = model->run(inputs).ok() && ok; }));
    times[2].push_back(microseconds([&] { ok = predict() && ok; }));
    if (!ok) refuse_bundle("a run failed", path, "runs that succeed");
  }
  const double alone = median(times[0]), run = median(times[1]), whole = median(times[2]);
  std::printf("%d interleaved rounds, medians in microseconds, one thread\n", rounds);
  std::printf("ONNX Runtime's Run alone        %10.2f\n", alone);
  std::printf("Model::run, a tensor            %10.2f  (%+.2f)\n", run, run - alone);
  std::printf("Model::predict, the raw input   %10.2f  (%+.2f)\n", whole, whole - alone);
  return 0;
}

}  // namespace

int main(int count, char** values) {
  if (count < 2) {
    std::fputs("usage: overhead BUNDLE [ROUNDS]\n", stderr);
    return 2;
  }
  const int rounds = count > 2 ? std::max(1, std::atoi(values[2])) : 2000;
  const auto made = guarded<int>([&] { return measured(values[1], rounds); });
  if (!made) std::fprintf(stderr, "%s\n", made.error().text().c_str());
  return made ? *made : 4;
}
