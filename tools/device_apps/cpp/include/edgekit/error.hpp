// Errors that say the value, the rule, the place and the way out; and Result<T>, which holds one of them or a value.
//
// Nothing of edgekit's public interface throws: inside, faults travel as exceptions of one type, and `guarded` turns
// them into a Result at the boundary.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <utility>
#include <variant>

namespace edgekit {

/// Whose fault an error is.
enum class Kind {
  bundle,    ///< the bundle is not whole, not ours, or not safe to load
  provider,  ///< ONNX Runtime, or an execution provider of it, is absent or did not run the model
  data,      ///< the input does not fit the model, or a key is none
  runtime,   ///< ONNX Runtime failed while it ran
  memory,    ///< out of memory
};

/// A fault that the caller can mend.
struct Error {
  Kind kind = Kind::runtime;
  std::string problem;  ///< what was found, with the offending value
  std::string where;    ///< the place: a file, a key, an argument
  std::string rule;     ///< what would have been right
  std::string way_out;  ///< what to do now

  /// All of it in lines, as edgekit's Python errors print themselves.
  std::string text() const {
    std::string lines = problem;
    const std::pair<const char*, const std::string*> parts[] = {
        {"where", &where}, {"rule", &rule}, {"way out", &way_out}};
    for (const auto& [name, part] : parts) {
      if (!part->empty()) lines += std::string("\n  ") + name + ": " + *part;
    }
    return lines;
  }
};

/// A value, or the error that there is instead. Asking for what is not there ends the program with the error's text.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}                // NOLINT: `return value;` is meant
  Result(Error error) noexcept : held_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: likewise

  bool ok() const noexcept { return held_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  T& value() & noexcept { return *checked(); }
  const T& value() const& noexcept { return *const_cast<Result*>(this)->checked(); }
  T value() && noexcept { return std::move(*checked()); }
  T& operator*() & noexcept { return *checked(); }
  const T& operator*() const& noexcept { return value(); }
  T operator*() && noexcept { return std::move(*checked()); }
  T* operator->() noexcept { return checked(); }
  const T* operator->() const noexcept { return &value(); }

  const Error& error() const noexcept {
    if (ok()) fail("edgekit: a Result that holds a value was asked for its error");
    return *std::get_if<1>(&held_);
  }

 private:
  T* checked() noexcept {
    if (!ok()) fail(std::get_if<1>(&held_)->problem.c_str());
    return std::get_if<0>(&held_);
  }
  [[noreturn]] static void fail(const char* text) noexcept {
    std::fprintf(stderr, "%s\n", text);
    std::abort();
  }

  std::variant<T, Error> held_;
};

namespace detail {

/// How an error travels inside; no such exception leaves the public interface.
struct Fault {
  Error error;
};

[[noreturn]] inline void refuse(Kind kind, std::string problem, std::string where, std::string rule,
                                std::string way_out = {}) {
  throw Fault{Error{kind, std::move(problem), std::move(where), std::move(rule), std::move(way_out)}};
}

[[noreturn]] inline void refuse_bundle(std::string problem, std::string where, std::string rule,
                                       std::string way_out = {}) {
  refuse(Kind::bundle, std::move(problem), std::move(where), std::move(rule), std::move(way_out));
}

/// What `work` returns, or the error it ended with.
template <class T, class Work>
Result<T> guarded(Work&& work) noexcept {
  try {
    return Result<T>(std::forward<Work>(work)());
  } catch (Fault& fault) {
    return Result<T>(std::move(fault.error));
  } catch (const std::bad_alloc&) {
    Error error;  // "out of memory" fits into a text that needs no allocation.
    error.kind = Kind::memory;
    error.problem = "out of memory";
    return Result<T>(std::move(error));
  } catch (const std::exception& unexpected) {
    return Result<T>(Error{Kind::runtime, unexpected.what(), "edgekit", {}, {}});
  } catch (...) {
    return Result<T>(Error{Kind::runtime, "an unknown exception", "edgekit", {}, {}});
  }
}

}  // namespace detail
}  // namespace edgekit
