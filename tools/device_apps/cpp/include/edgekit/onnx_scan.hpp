// What an ONNX file holds, read before ONNX Runtime sees a byte (edgekit/device/{onnx_scan,onnx_tensor,protobuf}.py).
//
// ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
// through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest. What a graph
// does when it runs is not known here: a ConstantOfShape or a Loop of a few bytes may ask for any memory or time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"
#include "text.hpp"

namespace edgekit::detail {

/// What a scan found: operators with their counts, operator sets, the IR version.
struct OnnxScan {
  std::uint64_t ir_version = 0;
  std::map<std::string, std::uint64_t> opsets;
  std::map<std::string, std::uint64_t> operators;
  std::uint64_t nodes = 0;
  std::uint64_t tensors = 0;
};

[[noreturn]] inline void refuse_model(std::string problem, const std::string& where, std::string rule) {
  refuse_bundle(std::move(problem), shown(where), std::move(rule), "export the model with edgekit, or do not trust the file");
}

/// A field of a message. `value` is its number, of the wire type varint; `bytes` what it holds, of the others.
struct ProtoField {
  enum Wire : unsigned { varint = 0, fixed64 = 1, bytes_wire = 2, fixed32 = 5 };
  std::uint64_t number = 0;
  unsigned wire = 0;
  std::uint64_t value = 0;
  std::string_view bytes;

  bool is_number() const noexcept { return wire == varint; }
  bool is_bytes() const noexcept { return wire == bytes_wire; }
};

/// The fields of a message, one after the other.
class ProtoReader {
 public:
  ProtoReader(std::string_view data, const std::string& where) : data_(data), where_(where) {}

  bool at_end() const noexcept { return at_ >= data_.size(); }

  std::uint64_t number() {
    std::uint64_t result = 0;
    for (int shift = 0;; shift += 7) {
      if (at_end()) refuse_model("the file ends within a number", where_, "a whole ONNX file");
      if (shift >= 70) refuse_model("a number of more than 10 bytes", where_, "protocol buffers");
      const auto byte = static_cast<unsigned char>(data_[at_++]);
      result |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return result;
    }
  }

  ProtoField next() {
    const std::uint64_t tag = number();
    ProtoField field;
    field.number = tag >> 3, field.wire = static_cast<unsigned>(tag & 7);
    if (field.number < 1 || field.number >= 1u << 29) {
      refuse_model("field number " + std::to_string(field.number), where_, "protocol buffers");
    }
    std::uint64_t length = 0;
    switch (field.wire) {
      case ProtoField::varint: field.value = number(); return field;
      case ProtoField::bytes_wire: length = number(); break;
      case ProtoField::fixed32: length = 4; break;
      case ProtoField::fixed64: length = 8; break;
      default: refuse_model("wire type " + std::to_string(field.wire), where_, "protocol buffers without groups");
    }
    const std::size_t left = data_.size() - at_;
    if (length > left) {
      refuse_model("a field of " + std::to_string(length) + " bytes where " + std::to_string(left) + " are left", where_,
                   "a whole ONNX file");
    }
    field.bytes = data_.substr(at_, static_cast<std::size_t>(length));
    at_ += static_cast<std::size_t>(length);
    return field;
  }

 private:
  std::string_view data_;
  const std::string& where_;
  std::size_t at_ = 0;
};

/// Sizes of a tensor as they come in, one by one or packed.
class ProtoSizes {
 public:
  static constexpr std::uint64_t endless = UINT64_MAX;

  void take(const ProtoField& field, const std::string& where) {
    if (field.is_number()) {
      push(field.value, where);
      return;
    }
    for (ProtoReader reader(field.bytes, where); !reader.at_end();) push(reader.number(), where);
  }
  /// Their product, or `endless` where it does not fit.
  std::uint64_t elements() const noexcept {
    std::uint64_t product = 1;
    if (std::find(values_.begin(), values_.end(), std::uint64_t{0}) != values_.end()) return 0;
    for (const std::uint64_t size : values_) {
      if (product > (endless - 1) / size) return endless;
      product *= size;
    }
    return product;
  }
  std::string text() const {
    return listed(std::vector<std::uint64_t>(values_.begin(), values_.begin() + std::min<std::ptrdiff_t>(8, std::ptrdiff_t(values_.size()))));
  }

 private:
  void push(std::uint64_t size, const std::string& where) {
    constexpr std::size_t most = 64;
    values_.push_back(size);
    if (size >= std::uint64_t{1} << 63 || values_.size() > most) {
      refuse_model("sizes below 0 or without end", where, "at most " + std::to_string(most) + " sizes from 0 up");
    }
  }
  std::vector<std::uint64_t> values_;
};

/// A tensor, field by field: what it declares, against what it holds.
class ProtoTensor {
 public:
  void take(const ProtoField& field, const std::string& where) {
    constexpr std::uint64_t dims = 1, data_type = 2, strings = 6, raw = 9, external = 13, location = 14;
    // Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
    if (field.number == external || field.number == location) {
      refuse_model("a tensor keeps its data in another file", where, "all weights inside the ONNX file");
    }
    const std::uint64_t length = field.is_number() ? 1 : field.bytes.size();
    if (field.number == dims) {
      sizes_.take(field, where);
    } else if (field.number == data_type && field.is_number()) {
      data_type_ = field.value;
    } else if (field.number == raw && field.is_bytes()) {
      raw_ = length;
    } else if (field.number == 4 || field.number == 5 || field.number == 7 || field.number == 10 || field.number == 11) {
      typed_ += length;  // in float, int32, int64, double or uint64
    } else if (field.number == strings) {
      ++texts_;
    }
  }

  /// Refuse a tensor that declares more than it holds: memory would be had for the asking.
  void check(const std::string& where) const {
    // Bits of an element by TensorProto.DataType; texts (8) are never raw.
    constexpr std::uint64_t bits[] = {0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2};
    constexpr std::uint64_t most_in_a_byte = 4, most = std::uint64_t{1} << 48;  // 2-bit elements, packed
    const std::uint64_t elements = sizes_.elements();
    const std::uint64_t each = data_type_ < std::size(bits) ? bits[data_type_] : 0;
    if (raw_ != 0 && (elements > most || raw_ != (elements * each + 7) / 8)) {
      refuse_model("a tensor of sizes " + sizes_.text() + " in " + std::to_string(raw_) + " bytes", where,
                   "as many bytes as sizes and type say");
    }
    if (raw_ == 0 && elements > std::max(most_in_a_byte * typed_, texts_)) {
      refuse_model("a tensor of sizes " + sizes_.text() + " that holds less", where, "tensors that hold what they declare");
    }
  }

 private:
  ProtoSizes sizes_;
  std::uint64_t data_type_ = 0, raw_ = 0, typed_ = 0, texts_ = 0;
};

/// One walk over one model, with a stack instead of recursion: depth is the file's to choose.
class OnnxWalker {
 public:
  OnnxWalker(std::string_view data, const std::string& where) : data_(data), where_(where) {}

  OnnxScan walk() {
    if (data_.size() >= 8 && data_.substr(4, 4) == "ORTM") {
      fault("an ORT-format model", "an ONNX model; ORT files are made for one machine");
    }
    std::vector<Message> stack{{Type::model, data_, 0}};
    while (!stack.empty()) {
      const Message message = stack.back();
      stack.pop_back();
      if (message.depth > max_depth) {
        fault("graphs nested too deeply", "at most " + std::to_string(max_depth) + " levels");
      }
      graph_seen_ = graph_seen_ || message.type == Type::graph;
      if (message.type == Type::tensor) {
        take_tensor(message);
      } else {
        look_into(message, stack);
      }
    }
    if (!graph_seen_ || scan_.opsets.empty()) fault("no graph or no operator set", "an ONNX model");
    return std::move(scan_);
  }

 private:
  static constexpr int max_depth = 32;
  static constexpr std::uint64_t max_nodes = 200'000, max_tensors = 200'000;
  static constexpr std::uint64_t max_fields = 5'000'000;  // of all messages: what bounds the time that a scan takes
  static constexpr std::uint64_t max_sparse = 1u << 26;   // elements: ONNX Runtime writes the zeros out when it loads
  enum class Type { none, model, training, graph, node, attribute, sparse, tensor, opset, property };
  struct Message {
    Type type;
    std::string_view data;
    int depth;
  };

  [[noreturn]] void fault(std::string problem, std::string rule) const {
    refuse_model(std::move(problem), where_, std::move(rule));
  }

  /// The message that a field leads to.
  static Type nested(Type type, std::uint64_t field) noexcept {
    switch (type) {
      case Type::model:
        return field == 7 ? Type::graph : field == 8 ? Type::opset : field == 14 ? Type::property
               : field == 20 ? Type::training : Type::none;
      case Type::training: return field == 1 || field == 2 ? Type::graph : Type::none;
      case Type::graph:
        return field == 1 ? Type::node : field == 5 ? Type::tensor : field == 15 ? Type::sparse : Type::none;
      case Type::node: return field == 5 ? Type::attribute : Type::none;
      case Type::attribute:
        return field == 5 || field == 10 ? Type::tensor : field == 6 || field == 11 ? Type::graph
               : field == 22 || field == 23 ? Type::sparse : Type::none;
      case Type::sparse: return field == 1 || field == 2 ? Type::tensor : Type::none;
      default: return Type::none;
    }
  }

  /// Whether a tensor stands there once: a parser would merge the parts of one, and sizes that it declares multiply.
  static bool only_once(Type type, std::uint64_t field) noexcept {
    return (type == Type::attribute && (field == 5 || field == 22)) || (type == Type::sparse && (field == 1 || field == 2));
  }

  ProtoField next(ProtoReader& reader) {
    if (++fields_ > max_fields) {
      fault("more than " + std::to_string(max_fields) + " fields", "at most " + std::to_string(max_fields) + " fields");
    }
    return reader.next();
  }

  void take_tensor(const Message& message) {
    if (++scan_.tensors > max_tensors) {
      fault("more than " + std::to_string(max_tensors) + " tensors", "at most " + std::to_string(max_tensors) + " tensors");
    }
    ProtoTensor tensor;
    for (ProtoReader reader(message.data, where_); !reader.at_end();) tensor.take(next(reader), where_);
    tensor.check(where_);
  }

  void look_into(const Message& message, std::vector<Message>& stack) {
    constexpr std::uint64_t sparse_sizes = 3, longest_field = 32;
    std::map<std::uint64_t, std::string_view> texts;
    std::map<std::uint64_t, std::uint64_t> numbers;
    ProtoSizes sizes;
    bool seen[longest_field] = {};
    for (ProtoReader reader(message.data, where_); !reader.at_end();) {
      const ProtoField field = next(reader);
      const Type inner = nested(message.type, field.number);
      if (message.type == Type::sparse && field.number == sparse_sizes) {
        sizes.take(field, where_);
      } else if (field.is_number()) {
        numbers[field.number] = field.value;
      } else if (field.is_bytes() && inner != Type::none) {
        if (only_once(message.type, field.number) && seen[field.number]) fault("a tensor in two parts", "each tensor once");
        seen[field.number] = true;
        stack.push_back({inner, field.bytes, message.depth + 1});
      } else if (field.is_bytes()) {
        // The last one counts. A field of another wire type than its own is unknown to a parser: it must not replace a
        // text here that the parser keeps.
        texts[field.number] = field.bytes;
      }
    }
    take(message.type, texts, numbers);
    if (message.type != Type::sparse) return;
    const std::uint64_t elements = sizes.elements();
    sparse_elements_ = elements > max_sparse ? max_sparse + 1 : sparse_elements_ + elements;
    if (sparse_elements_ > max_sparse) {
      fault("sparse tensors without end", "at most " + std::to_string(max_sparse) + " elements in all");
    }
  }

  void take(Type type, std::map<std::uint64_t, std::string_view>& texts, std::map<std::uint64_t, std::uint64_t>& numbers) {
    constexpr std::uint64_t ir = 1, functions = 25, property_key = 1, opset_version = 2, node_operator = 4;
    if (type == Type::model) {
      scan_.ir_version = numbers[ir];
      if (texts.count(functions) != 0) {
        fault("functions of its own", "operators written out: functions can call each other");
      }
    } else if (type == Type::property && texts[property_key] == "ort_config") {
      // Metadata under this key can set options of the session in ONNX Runtime.
      fault("session settings in the metadata", "settings are the application's");
    } else if (type == Type::opset || type == Type::node) {
      const std::string_view domain = texts[type == Type::node ? 7 : 1];
      check_domain(domain);
      const bool standard = domain.empty() || domain == "ai.onnx";
      if (type == Type::opset) {
        scan_.opsets[standard ? "ai.onnx" : std::string(domain)] = numbers[opset_version];
      } else {
        take_node(standard ? std::string_view() : domain, texts[node_operator]);
      }
    }
  }

  void check_domain(std::string_view domain) const {
    for (const char* known : {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}) {
      if (domain == known) return;
    }
    fault("operator domain " + in_quotes(domain), "one of ai.onnx, ai.onnx.ml, com.microsoft");
  }

  void take_node(std::string_view domain, std::string_view operation) {
    // These carry compiled code or call into Python.
    for (const char* refused : {"EPContext", "PythonOp", "PythonOpGrad", "ATen"}) {
      if (operation == refused) {
        fault("operator " + std::string(refused), "operators without compiled or foreign code");
      }
    }
    ++scan_.operators[(domain.empty() ? std::string() : std::string(domain) + ".") + shown(operation)];
    if (++scan_.nodes > max_nodes) {
      fault("more than " + std::to_string(max_nodes) + " nodes", "at most " + std::to_string(max_nodes) + " nodes");
    }
  }

  std::string_view data_;
  const std::string& where_;
  OnnxScan scan_;
  std::uint64_t fields_ = 0, sparse_elements_ = 0;
  bool graph_seen_ = false;
};

/// Walk an ONNX model and refuse what could reach beyond it.
inline OnnxScan scan_onnx(std::string_view data, const std::string& where) { return OnnxWalker(data, where).walk(); }

}  // namespace edgekit::detail
