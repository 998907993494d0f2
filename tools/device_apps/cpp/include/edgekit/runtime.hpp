// ONNX Runtime without its headers: its library is opened at run time, and its functions are found by their places in
// the table that it hands out.
//
// `OrtGetApiBase()->GetApi(17)` returns a table of function pointers. Upstream never moves an entry (the file
// onnxruntime_c_api.cc asserts it: ReleaseCustomOpDomain is 101, ReleaseAvailableProviders 126,
// SynchronizeBoundOutputs 203), so that a number found in one version holds in all later ones. Version 17 is what ONNX
// Runtime 1.17 brought; older libraries are refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#ifdef _WIN32
#define EDGEKIT_ORT_CALL __stdcall
#else
#define EDGEKIT_ORT_CALL
#endif

#include "error.hpp"
#include "files.hpp"
#include "library.hpp"
#include "manifest.hpp"
#include "tensor.hpp"
#include "text.hpp"
#include "variants.hpp"

namespace edgekit {
namespace detail {

// ONNX Runtime's objects, which are only ever pointed to.
struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtAllocator;
struct OrtTensorInfo;
struct OrtCudaOptions;
struct OrtTensorRTOptions;

/// A function of the table: its place, and its type.
template <std::size_t slot, class Returned, class... Arguments>
struct OrtFunction {
  using Pointer = Returned(EDGEKIT_ORT_CALL*)(Arguments...);
  Pointer pointer = nullptr;

  void find(const void* const* table) noexcept {
    static_assert(sizeof(Pointer) == sizeof(void*), "functions and data have pointers of one size");
    std::memcpy(&pointer, table + slot, sizeof pointer);
  }
  Returned operator()(Arguments... arguments) const noexcept { return pointer(arguments...); }
};

/// The functions that this loader uses, with their numbers in `struct OrtApi` (onnxruntime_c_api.h).
struct OrtApi {
  OrtFunction<0, OrtStatus*, int, const char*> create_status;
  OrtFunction<1, int, const OrtStatus*> get_error_code;
  OrtFunction<2, const char*, const OrtStatus*> get_error_message;
  OrtFunction<3, OrtStatus*, int, const char*, OrtEnv**> create_env;
  OrtFunction<6, OrtStatus*, const OrtEnv*> disable_telemetry_events;
  OrtFunction<8, OrtStatus*, const OrtEnv*, const void*, std::size_t, const OrtSessionOptions*, OrtSession**>
      create_session_from_array;
  OrtFunction<9, OrtStatus*, OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, std::size_t,
              const char* const*, std::size_t, OrtValue**>
      run;
  OrtFunction<10, OrtStatus*, OrtSessionOptions**> create_session_options;
  OrtFunction<22, OrtStatus*, OrtSessionOptions*, int> set_session_log_severity_level;
  OrtFunction<24, OrtStatus*, OrtSessionOptions*, int> set_intra_op_num_threads;
  OrtFunction<25, OrtStatus*, OrtSessionOptions*, int> set_inter_op_num_threads;
  OrtFunction<30, OrtStatus*, const OrtSession*, std::size_t*> session_get_input_count;
  OrtFunction<31, OrtStatus*, const OrtSession*, std::size_t*> session_get_output_count;
  OrtFunction<36, OrtStatus*, const OrtSession*, std::size_t, OrtAllocator*, char**> session_get_input_name;
  OrtFunction<37, OrtStatus*, const OrtSession*, std::size_t, OrtAllocator*, char**> session_get_output_name;
  OrtFunction<49, OrtStatus*, const OrtMemoryInfo*, void*, std::size_t, const std::int64_t*, std::size_t, int, OrtValue**>
      create_tensor_with_data;
  OrtFunction<50, OrtStatus*, const OrtValue*, int*> is_tensor;
  OrtFunction<51, OrtStatus*, OrtValue*, void**> get_tensor_mutable_data;
  OrtFunction<60, OrtStatus*, const OrtTensorInfo*, int*> get_tensor_element_type;
  OrtFunction<61, OrtStatus*, const OrtTensorInfo*, std::size_t*> get_dimensions_count;
  OrtFunction<62, OrtStatus*, const OrtTensorInfo*, std::int64_t*, std::size_t> get_dimensions;
  OrtFunction<65, OrtStatus*, const OrtValue*, OrtTensorInfo**> get_tensor_type_and_shape;
  OrtFunction<69, OrtStatus*, int, int, OrtMemoryInfo**> create_cpu_memory_info;
  OrtFunction<76, OrtStatus*, OrtAllocator*, void*> allocator_free;
  OrtFunction<78, OrtStatus*, OrtAllocator**> get_allocator_with_default_options;
  OrtFunction<92, void, OrtEnv*> release_env;
  OrtFunction<93, void, OrtStatus*> release_status;
  OrtFunction<94, void, OrtMemoryInfo*> release_memory_info;
  OrtFunction<95, void, OrtSession*> release_session;
  OrtFunction<96, void, OrtValue*> release_value;
  OrtFunction<99, void, OrtTensorInfo*> release_tensor_info;
  OrtFunction<100, void, OrtSessionOptions*> release_session_options;
  OrtFunction<125, OrtStatus*, char***, int*> get_available_providers;
  OrtFunction<126, OrtStatus*, char**, int> release_available_providers;
  OrtFunction<130, OrtStatus*, OrtSessionOptions*, const char*, const char*> add_session_config_entry;
  OrtFunction<170, OrtStatus*, OrtSessionOptions*, const OrtTensorRTOptions*> append_tensorrt;
  OrtFunction<171, OrtStatus*, OrtTensorRTOptions**> create_tensorrt_options;
  OrtFunction<174, void, OrtTensorRTOptions*> release_tensorrt_options;
  OrtFunction<204, OrtStatus*, OrtSessionOptions*, const OrtCudaOptions*> append_cuda;
  OrtFunction<205, OrtStatus*, OrtCudaOptions**> create_cuda_options;
  OrtFunction<208, void, OrtCudaOptions*> release_cuda_options;

  explicit OrtApi(const void* const* table) noexcept {
    create_status.find(table), get_error_code.find(table), get_error_message.find(table), create_env.find(table);
    disable_telemetry_events.find(table), create_session_from_array.find(table), run.find(table);
    create_session_options.find(table), set_session_log_severity_level.find(table), set_intra_op_num_threads.find(table);
    set_inter_op_num_threads.find(table), session_get_input_count.find(table), session_get_output_count.find(table);
    session_get_input_name.find(table), session_get_output_name.find(table), create_tensor_with_data.find(table);
    is_tensor.find(table), get_tensor_mutable_data.find(table), get_tensor_element_type.find(table);
    get_dimensions_count.find(table), get_dimensions.find(table), get_tensor_type_and_shape.find(table);
    create_cpu_memory_info.find(table), allocator_free.find(table), get_allocator_with_default_options.find(table);
    release_env.find(table), release_status.find(table), release_memory_info.find(table), release_session.find(table);
    release_value.find(table), release_tensor_info.find(table), release_session_options.find(table);
    get_available_providers.find(table), release_available_providers.find(table), add_session_config_entry.find(table);
    append_tensorrt.find(table), create_tensorrt_options.find(table), release_tensorrt_options.find(table);
    append_cuda.find(table), create_cuda_options.find(table), release_cuda_options.find(table);
  }
};

/// Calls a release function of the table on what a unique_ptr holds.
template <class Object>
struct Releaser {
  void(EDGEKIT_ORT_CALL* release)(Object*) = nullptr;
  void operator()(Object* object) const noexcept { release(object); }
};
template <class Object>
using Owned = std::unique_ptr<Object, Releaser<Object>>;

/// An open ONNX Runtime; sessions share it.
class OrtLibrary {
 public:
  explicit OrtLibrary(const std::string& given) {
    std::vector<std::string> names{given}, reasons;
    const char* named = std::getenv("EDGEKIT_ONNXRUNTIME");
    if (given.empty() && named != nullptr && *named != '\0') names = {named};
    if (names[0].empty()) names = system_names();
    for (const std::string& name : names) {
      const Library library(name);
      if (library.opened()) {
        open(library, name);
        return;
      }
      reasons.push_back(library.reason());
    }
    refuse(Kind::provider, "cannot open ONNX Runtime: " + joined(reasons, "; "), joined(names),
           "the library of ONNX Runtime 1.17 or newer",
           "name it (Options::runtime_library, or the variable EDGEKIT_ONNXRUNTIME), or install it where the system "
           "looks for libraries; Python's wheel has one in onnxruntime/capi");
  }

  const OrtApi& api() const noexcept { return *api_; }
  const OrtEnv* env() const noexcept { return env_.get(); }
  const OrtMemoryInfo* memory() const noexcept { return memory_.get(); }
  const std::string& version() const noexcept { return version_; }
  const std::vector<std::string>& providers() const noexcept { return providers_; }

  /// The text of a failed call, whose status is released; empty where it succeeded.
  std::string failure(OrtStatus* status) const {
    if (status == nullptr) return {};
    const Owned<OrtStatus> owned(status, {api_->release_status.pointer});
    const char* text = api_->get_error_message(status);
    return text != nullptr && *text != '\0' ? text : "unknown failure";
  }
  /// Refuse a failed call.
  void check(OrtStatus* status, Kind kind, const std::string& where) const {
    if (status != nullptr) refuse(kind, "ONNX Runtime: " + failure(status), where, {});
  }

 private:
  static std::vector<std::string> system_names() {
#if defined(_WIN32)
    return {"onnxruntime.dll"};
#elif defined(__APPLE__)
    return {"libonnxruntime.1.dylib", "libonnxruntime.dylib"};
#else
    return {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif
  }

  void open(const Library& library, const std::string& name) {
    struct ApiBase {
      const void* const*(EDGEKIT_ORT_CALL* get_api)(std::uint32_t);
      const char*(EDGEKIT_ORT_CALL* get_version_string)();
    };
    const auto get_base = library.find<const ApiBase*(EDGEKIT_ORT_CALL*)()>("OrtGetApiBase");
    const ApiBase* base = get_base != nullptr ? get_base() : nullptr;
    if (base == nullptr) refuse(Kind::provider, "no OrtGetApiBase in the library", name, "ONNX Runtime");
    version_ = base->get_version_string();
    const void* const* table = base->get_api(17);
    if (table == nullptr) {
      refuse(Kind::provider, "ONNX Runtime " + version_, name, "1.17 or newer", "install a newer ONNX Runtime");
    }
    api_ = std::make_unique<OrtApi>(table);
    OrtEnv* env = nullptr;
    constexpr int log_errors = 3;
    check(api_->create_env(log_errors, "edgekit", &env), Kind::provider, name);
    env_ = {env, {api_->release_env.pointer}};
    check(api_->disable_telemetry_events(env), Kind::provider, name);
    OrtMemoryInfo* memory = nullptr;
    constexpr int device_allocator = 0, default_memory = 0;
    check(api_->create_cpu_memory_info(device_allocator, default_memory, &memory), Kind::provider, name);
    memory_ = {memory, {api_->release_memory_info.pointer}};
    char** listed_providers = nullptr;
    int count = 0;
    check(api_->get_available_providers(&listed_providers, &count), Kind::provider, name);
    for (int i = 0; i < count; ++i) providers_.emplace_back(listed_providers[i]);
    check(api_->release_available_providers(listed_providers, count), Kind::provider, name);
  }

  std::unique_ptr<OrtApi> api_;
  Owned<OrtEnv> env_{nullptr, {}};
  Owned<OrtMemoryInfo> memory_{nullptr, {}};
  std::string version_;
  std::vector<std::string> providers_;
};

/// A model that ONNX Runtime has loaded from memory. `run` may be called from several threads at once.
class Session {
 public:
  Session(std::shared_ptr<const OrtLibrary> library, const Bytes& model, const Choice& choice, int threads,
          const std::string& where)
      : library_(std::move(library)) {
    const OrtApi& api = library_->api();
    OrtSessionOptions* made = nullptr;
    library_->check(api.create_session_options(&made), Kind::runtime, where);
    const Owned<OrtSessionOptions> options(made, {api.release_session_options.pointer});
    const auto set = [&](OrtStatus* status) { library_->check(status, Kind::runtime, where); };
    constexpr int log_errors = 3;
    set(api.set_session_log_severity_level(made, log_errors));
    set(api.set_intra_op_num_threads(made, threads));
    set(api.set_inter_op_num_threads(made, 1));
    for (const auto& [key, value] : choice.config) set(api.add_session_config_entry(made, key.c_str(), value.c_str()));
    const std::string failed = append_provider(made, choice.variant.provider);
    const bool cpu = choice.variant.provider == "cpu";
    if (!failed.empty()) refuse_provider(choice, failed, where);
    OrtSession* session = nullptr;
    OrtStatus* status = api.create_session_from_array(library_->env(), model.data(), model.size(), made, &session);
    if (status != nullptr) {
      const std::string reason = library_->failure(status);
      if (!cpu) refuse_provider(choice, reason, where);
      refuse_bundle("ONNX Runtime refuses the model: " + reason, where, "an ONNX model that this ONNX Runtime runs",
                    "update ONNX Runtime; the bundle's provenance says which version made it");
    }
    session_ = {session, {api.release_session.pointer}};
    inputs_ = names(true, where);
    outputs_ = names(false, where);
  }

  const std::vector<std::string>& inputs() const noexcept { return inputs_; }
  const std::vector<std::string>& outputs() const noexcept { return outputs_; }

  /// Outputs by name, for inputs in the model's order; their bytes must be as many as their shapes say.
  Tensors run(const std::vector<const Tensor*>& feeds) const {
    const OrtApi& api = library_->api();
    std::vector<const char*> input_names, output_names;
    std::vector<OrtValue*> values, results(outputs_.size(), nullptr);
    std::vector<Owned<OrtValue>> owned;
    for (const std::string& name : inputs_) input_names.push_back(name.c_str());
    for (const std::string& name : outputs_) output_names.push_back(name.c_str());
    for (const Tensor* feed : feeds) {
      OrtValue* value = nullptr;
      // ONNX Runtime reads inputs and never writes to them, but its interface knows no constant data.
      library_->check(api.create_tensor_with_data(library_->memory(), const_cast<std::uint8_t*>(feed->bytes.data()),
                                                  feed->bytes.size(), feed->shape.data(), feed->shape.size(),
                                                  static_cast<int>(feed->dtype), &value),
                      Kind::runtime, "inputs");
      owned.emplace_back(value, Releaser<OrtValue>{api.release_value.pointer});
      values.push_back(value);
    }
    OrtStatus* status = api.run(session_.get(), nullptr, input_names.data(), values.data(), values.size(),
                                output_names.data(), output_names.size(), results.data());
    for (OrtValue* result : results) {
      if (result != nullptr) owned.emplace_back(result, Releaser<OrtValue>{api.release_value.pointer});
    }
    library_->check(status, Kind::runtime, "run");
    Tensors made;
    for (std::size_t i = 0; i < results.size(); ++i) made.emplace(outputs_[i], tensor(results[i], outputs_[i]));
    return made;
  }

 private:
  [[noreturn]] void refuse_provider(const Choice& choice, const std::string& reason, const std::string& where) const {
    refuse(Kind::provider, provider_name(choice.variant.provider) + " did not load the model: " + reason, where,
           "a session runs on the provider that was asked for",
           "check the driver and the provider's libraries, or ask for cpu");
  }

  /// Put a provider before the CPU's; returns why that failed, or nothing.
  std::string append_provider(OrtSessionOptions* options, const std::string& provider) const {
    const OrtApi& api = library_->api();
    if (provider == "cuda") {
      OrtCudaOptions* made = nullptr;
      const std::string failed = library_->failure(api.create_cuda_options(&made));
      if (!failed.empty()) return failed;
      const Owned<OrtCudaOptions> owned(made, {api.release_cuda_options.pointer});
      return library_->failure(api.append_cuda(options, made));
    }
    if (provider == "tensorrt") {
      OrtTensorRTOptions* made = nullptr;
      const std::string failed = library_->failure(api.create_tensorrt_options(&made));
      if (!failed.empty()) return failed;
      const Owned<OrtTensorRTOptions> owned(made, {api.release_tensorrt_options.pointer});
      return library_->failure(api.append_tensorrt(options, made));
    }
    return {};
  }

  std::vector<std::string> names(bool input, const std::string& where) const {
    const OrtApi& api = library_->api();
    OrtAllocator* allocator = nullptr;
    library_->check(api.get_allocator_with_default_options(&allocator), Kind::runtime, where);
    std::size_t count = 0;
    library_->check(input ? api.session_get_input_count(session_.get(), &count)
                          : api.session_get_output_count(session_.get(), &count),
                    Kind::runtime, where);
    std::vector<std::string> found;
    for (std::size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      library_->check(input ? api.session_get_input_name(session_.get(), i, allocator, &name)
                            : api.session_get_output_name(session_.get(), i, allocator, &name),
                      Kind::runtime, where);
      found.emplace_back(name);
      library_->check(api.allocator_free(allocator, name), Kind::runtime, where);
    }
    return found;
  }

  Tensor tensor(OrtValue* value, const std::string& name) const {
    const OrtApi& api = library_->api();
    const auto ask = [&](OrtStatus* status) { library_->check(status, Kind::runtime, "output " + in_quotes(name)); };
    int is_tensor = 0;
    if (value != nullptr) ask(api.is_tensor(value, &is_tensor));
    if (is_tensor == 0) refuse(Kind::runtime, "no tensor", "output " + in_quotes(name), "tensors");
    OrtTensorInfo* made_info = nullptr;
    ask(api.get_tensor_type_and_shape(value, &made_info));
    const Owned<OrtTensorInfo> about(made_info, {api.release_tensor_info.pointer});
    int type = 0;
    std::size_t rank = 0;
    ask(api.get_tensor_element_type(made_info, &type));
    ask(api.get_dimensions_count(made_info, &rank));
    Tensor made;
    made.dtype = static_cast<DType>(type);
    made.shape.resize(rank);
    ask(api.get_dimensions(made_info, made.shape.data(), rank));
    if (info(made.dtype).dtype != made.dtype) {
      refuse(Kind::runtime, "element type " + std::to_string(type), "output " + in_quotes(name), "numbers");
    }
    void* data = nullptr;
    ask(api.get_tensor_mutable_data(value, &data));
    made.bytes.resize(element_count(made.shape) * info(made.dtype).size);
    if (!made.bytes.empty()) std::memcpy(made.bytes.data(), data, made.bytes.size());
    return made;
  }

  std::shared_ptr<const OrtLibrary> library_;
  Owned<OrtSession> session_{nullptr, {}};
  std::vector<std::string> inputs_, outputs_;
};

}  // namespace detail

/// An open ONNX Runtime library, to share between models. Copies refer to the same one.
class Runtime {
 public:
  /// Open a library by its path; without one, by EDGEKIT_ONNXRUNTIME or the system's name.
  static Result<Runtime> open(const std::string& library = {}) noexcept {
    return detail::guarded<Runtime>([&] { return Runtime(std::make_shared<const detail::OrtLibrary>(library)); });
  }
  /// ONNX Runtime's version.
  const std::string& version() const noexcept { return library_->version(); }
  /// ONNX Runtime's names of the execution providers that it was built with.
  const std::vector<std::string>& providers() const noexcept { return library_->providers(); }

 private:
  friend class Model;
  explicit Runtime(std::shared_ptr<const detail::OrtLibrary> library) noexcept : library_(std::move(library)) {}
  std::shared_ptr<const detail::OrtLibrary> library_;
};

}  // namespace edgekit
