// A library that is opened at run time, so that neither its headers nor its name are needed to build.
#pragma once

#include <cstring>
#include <filesystem>
#include <string>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace edgekit::detail {

/// A shared library. It stays in memory to the end of the process: ONNX Runtime's threads do not survive unloading.
class Library {
 public:
  explicit Library(const std::string& name) {
#ifdef _WIN32
    handle_ = LoadLibraryW(std::filesystem::u8path(name).c_str());
    if (handle_ == nullptr) failed_ = "Windows error " + std::to_string(GetLastError());
#else
    handle_ = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) {
      const char* reason = ::dlerror();
      failed_ = reason != nullptr ? reason : "unknown";
    }
#endif
  }
  bool opened() const noexcept { return handle_ != nullptr; }
  const std::string& reason() const noexcept { return failed_; }

  template <class Pointer>
  Pointer find(const char* name) const noexcept {
#ifdef _WIN32
    const FARPROC found = GetProcAddress(handle_, name);
#else
    void* const found = ::dlsym(handle_, name);
#endif
    Pointer pointer = nullptr;
    static_assert(sizeof pointer == sizeof found, "functions and data have pointers of one size");
    std::memcpy(&pointer, &found, sizeof pointer);
    return pointer;
  }

 private:
#ifdef _WIN32
  HMODULE handle_ = nullptr;
#else
  void* handle_ = nullptr;
#endif
  std::string failed_;
};

}  // namespace edgekit::detail
