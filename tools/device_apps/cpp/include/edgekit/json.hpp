// JSON from a stranger: no duplicate keys, no NaN, no depth or size without bound (edgekit/device/strict_json.py).
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "error.hpp"
#include "text.hpp"

namespace edgekit::detail {

constexpr std::size_t max_json_bytes = 8'000'000;
constexpr int max_json_depth = 24;
constexpr std::size_t max_json_values = 400'000;

/// A JSON value. Whole numbers and others are told apart, as Python does: `1.0` is no size.
struct Json {
  struct Member;
  using List = std::vector<Json>;
  using Object = std::vector<Member>;  // sorted by key

  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Object> held;

  bool is_null() const noexcept { return held.index() == 0; }
  const bool* boolean() const noexcept { return std::get_if<bool>(&held); }
  const std::int64_t* integer() const noexcept { return std::get_if<std::int64_t>(&held); }
  const std::string* text() const noexcept { return std::get_if<std::string>(&held); }
  const List* list() const noexcept { return std::get_if<List>(&held); }
  const Object* object() const noexcept { return std::get_if<Object>(&held); }
  bool is_number() const noexcept { return held.index() == 2 || held.index() == 3; }
  double number() const noexcept {
    const auto* whole = integer();
    return whole != nullptr ? static_cast<double>(*whole) : std::get<double>(held);
  }

  /// The member named `key`; null if there is none, or if this is no object.
  inline const Json* find(std::string_view key) const noexcept;
  /// Python's name of the type, for errors.
  const char* type_name() const noexcept {
    static constexpr const char* names[] = {"NoneType", "bool", "int", "float", "str", "list", "dict"};
    return names[held.index()];
  }
  /// The value, for errors: a short one as it is, a long one by its type.
  inline std::string shown() const;
  inline bool operator==(const Json& other) const;
};

struct Json::Member {
  std::string key;
  Json value;
};

inline const Json* Json::find(std::string_view key) const noexcept {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  const auto found = std::lower_bound(members->begin(), members->end(), key,
                                      [](const Member& member, std::string_view wanted) { return member.key < wanted; });
  return found != members->end() && found->key == key ? &found->value : nullptr;
}

inline std::string Json::shown() const {
  switch (held.index()) {
    case 0: return "None";
    case 1: return *boolean() ? "True" : "False";
    case 2: return std::to_string(*integer());
    case 3: return short_number(std::get<double>(held));
    case 4: return in_quotes(*text());
    default: return type_name();
  }
}

inline bool Json::operator==(const Json& other) const {
  if (held.index() != other.held.index()) return false;
  if (const auto* members = object()) {
    return std::equal(members->begin(), members->end(), other.object()->begin(), other.object()->end(),
                      [](const Member& a, const Member& b) { return a.key == b.key && a.value == b.value; });
  }
  if (const auto* items = list()) {
    return std::equal(items->begin(), items->end(), other.list()->begin(), other.list()->end());
  }
  switch (held.index()) {
    case 1: return *boolean() == *other.boolean();
    case 2: return *integer() == *other.integer();
    case 3: return std::get<double>(held) == std::get<double>(other.held);
    case 4: return *text() == *other.text();
    default: return true;
  }
}

class JsonParser {
 public:
  JsonParser(std::string_view data, std::string where) : data_(data), where_(std::move(where)) {}

  /// The object that the whole text is.
  Json parse() {
    if (data_.size() > max_json_bytes) {
      refuse_bundle(std::to_string(data_.size()) + " bytes", where_,
                    "at most " + std::to_string(max_json_bytes) + " bytes of JSON");
    }
    if (!is_utf8(data_)) malformed("bytes that are not UTF-8");
    Json value = read(1);
    space();
    if (at_ != data_.size()) malformed("something after the end");
    if (value.object() == nullptr) refuse_bundle(std::string("got ") + value.type_name(), where_, "expected an object");
    return value;
  }

 private:
  [[noreturn]] void malformed(const std::string& what) const {
    refuse_bundle("not JSON: " + what + " at byte " + std::to_string(at_), where_, "JSON in UTF-8");
  }
  void count() {
    if (++values_ > max_json_values) {
      refuse_bundle("more than " + std::to_string(max_json_values) + " values", where_,
                    "at most " + std::to_string(max_json_values) + " values");
    }
  }
  char peek() const noexcept { return at_ < data_.size() ? data_[at_] : '\0'; }
  void space() noexcept {
    while (at_ < data_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) ++at_;
  }
  bool take(char wanted) noexcept {
    space();
    if (peek() != wanted || at_ >= data_.size()) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view wanted) noexcept {
    if (data_.substr(at_, wanted.size()) != wanted) return false;
    at_ += wanted.size();
    return true;
  }

  Json read(int depth) {
    if (depth > max_json_depth) {
      refuse_bundle("nested too deeply", where_, "at most " + std::to_string(max_json_depth) + " levels");
    }
    count();
    space();
    if (take('{')) return {object(depth)};
    if (take('[')) return {list(depth)};
    if (peek() == '"') return {string()};
    if (word("true")) return {true};
    if (word("false")) return {false};
    if (word("null")) return {};
    for (const char* name : {"NaN", "Infinity", "-Infinity"}) {
      if (word(name)) refuse_bundle(std::string("got ") + name, where_, "numbers that JSON has");
    }
    return number();
  }

  Json::Object object(int depth) {
    Json::Object members;
    if (take('}')) return members;
    do {
      space();
      if (peek() != '"') malformed("a key was expected");
      if (depth + 1 > max_json_depth) {
        refuse_bundle("nested too deeply", where_, "at most " + std::to_string(max_json_depth) + " levels");
      }
      count();
      std::string key = string();
      if (!take(':')) malformed("':' was expected");
      members.push_back({std::move(key), read(depth + 1)});
    } while (take(','));
    if (!take('}')) malformed("',' or '}' was expected");
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
    const auto twice = std::adjacent_find(members.begin(), members.end(),
                                          [](const auto& a, const auto& b) { return a.key == b.key; });
    if (twice != members.end()) refuse_bundle("key " + in_quotes(twice->key) + " stands there twice", where_, "each key once");
    return members;
  }

  Json::List list(int depth) {
    Json::List items;
    if (take(']')) return items;
    do {
      items.push_back(read(depth + 1));
    } while (take(','));
    if (!take(']')) malformed("',' or ']' was expected");
    return items;
  }

  std::string string() {
    ++at_;
    std::string out;
    for (;;) {
      if (at_ >= data_.size()) malformed("a text without end");
      const char c = data_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) malformed("a control character in a text");
      if (c == '\\') {
        escape(out);
      } else {
        out += c;
      }
    }
  }

  void escape(std::string& out) {
    const char c = peek();
    ++at_;
    switch (c) {
      case '"': case '\\': case '/': out += c; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': break;
      default: malformed("an unknown escape");
    }
    std::uint32_t code = unit();
    if (code >= 0xD800 && code <= 0xDFFF) {
      const bool pair = code <= 0xDBFF && word("\\u");
      const std::uint32_t low = pair ? unit() : 0;
      if (low < 0xDC00 || low > 0xDFFF) refuse_bundle("a text is no Unicode text", where_, "surrogates come in pairs");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    const auto put = [&](std::uint32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    } else {
      put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    }
  }

  /// Four hexadecimal digits.
  std::uint32_t unit() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) malformed("four hexadecimal digits were expected");
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return code;
  }

  void digits() {
    if (peek() < '0' || peek() > '9') malformed("a value was expected");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  Json number() {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
    } else {
      digits();
    }
    bool whole = true;
    if (peek() == '.') {
      whole = false, ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false, ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    const std::string_view text = data_.substr(start, at_ - start);
    if (whole) {
      std::int64_t value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size() || value == INT64_MIN) {
        refuse_bundle("an integer is out of range", where_, "numbers that fit in 64 bits");
      }
      return {value};
    }
    const double value = real(text);
    if (!std::isfinite(value)) {
      refuse_bundle(std::string(text.substr(0, 40)) + " is out of range", where_, "numbers that fit in 64 bits");
    }
    return {value};
  }

  static double real(std::string_view text) {
#if defined(__cpp_lib_to_chars)
    double quick = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), quick).ec == std::errc()) return quick;
#endif
    // from_chars does not tell too large from too small, and older libraries lack it; strtod would ask the locale.
    std::istringstream stream{std::string(text)};
    stream.imbue(std::locale::classic());
    double value = 0;
    stream >> value;
    return stream.fail() ? HUGE_VAL : value;
  }

  std::string_view data_;
  std::string where_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
};

/// The JSON object in `data`, or a fault that names `where`.
inline Json parse_json(std::string_view data, const std::string& where) { return JsonParser(data, where).parse(); }

}  // namespace edgekit::detail
