// What an ONNX file holds, read before ONNX Runtime sees a byte (edgekit/device/onnx_scan.py).
//
// ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
// through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest.
#pragma once

#include <cstdint>
#include <cstring>
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

class OnnxWalker {
 public:
  OnnxWalker(std::string_view data, std::string where) : data_(data), where_(std::move(where)) {}

  OnnxScan walk() {
    if (data_.size() >= 8 && data_.substr(4, 4) == "ORTM") {
      fault("an ORT-format model", "an ONNX model; ORT files are made for one machine");
    }
    // A stack instead of recursion: depth is the file's to choose.
    std::vector<Message> stack{{Type::model, data_, 0}};
    while (!stack.empty()) {
      const Message message = stack.back();
      stack.pop_back();
      if (message.depth > max_depth) {
        fault("graphs nested too deeply", "at most " + std::to_string(max_depth) + " levels");
      }
      visit(message, stack);
    }
    if (!graph_seen_ || scan_.opsets.empty()) fault("no graph or no operator set", "an ONNX model");
    return std::move(scan_);
  }

 private:
  static constexpr int max_depth = 32;
  static constexpr std::uint64_t max_nodes = 200'000;
  enum class Type { none, model, training, graph, function, node, attribute, sparse, tensor, opset };
  enum Wire : unsigned { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  struct Message {
    Type type;
    std::string_view data;
    int depth;
  };
  struct Field {
    std::uint64_t number;
    unsigned wire;
    std::uint64_t value;
    std::string_view bytes;
  };

  [[noreturn]] void fault(std::string problem, std::string rule) const {
    refuse_bundle(std::move(problem), where_, std::move(rule), "export the model with edgekit, or do not trust the file");
  }

  /// The message that a field leads to.
  static Type nested(Type type, std::uint64_t field) noexcept {
    switch (type) {
      case Type::model:
        return field == 7 ? Type::graph : field == 8 ? Type::opset : field == 20 ? Type::training
               : field == 25 ? Type::function : Type::none;
      case Type::training: return field == 1 || field == 2 ? Type::graph : Type::none;
      case Type::graph:
        return field == 1 ? Type::node : field == 5 ? Type::tensor : field == 15 ? Type::sparse : Type::none;
      case Type::function:
        return field == 7 ? Type::node : field == 9 ? Type::opset : field == 11 ? Type::attribute : Type::none;
      case Type::node: return field == 5 ? Type::attribute : Type::none;
      case Type::attribute:
        return field == 5 || field == 10 ? Type::tensor : field == 6 || field == 11 ? Type::graph
               : field == 22 || field == 23 ? Type::sparse : Type::none;
      case Type::sparse: return field == 1 || field == 2 ? Type::tensor : Type::none;
      default: return Type::none;
    }
  }

  static std::uint64_t domain_field(Type type) noexcept {
    return type == Type::node ? 7 : type == Type::opset ? 1 : type == Type::function ? 10 : 0;
  }

  void visit(const Message& message, std::vector<Message>& stack) {
    constexpr std::uint64_t tensor_external = 13, tensor_location = 14, node_operator = 4, opset_version = 2, ir = 1;
    graph_seen_ = graph_seen_ || message.type == Type::graph;
    std::string_view domain, operation;
    std::uint64_t opset = 0, ir_version = 0;
    for (std::size_t at = 0; at < message.data.size();) {
      const Field field = next(message.data, at);
      // Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
      if (message.type == Type::tensor && (field.number == tensor_external || field.number == tensor_location)) {
        fault("a tensor keeps its data in another file", "all weights inside the ONNX file");
      }
      if (field.wire == Wire::varint) {
        if (message.type == Type::opset && field.number == opset_version) opset = field.value;
        if (message.type == Type::model && field.number == ir) ir_version = field.value;
      } else if (field.wire == Wire::bytes) {
        const Type inner = nested(message.type, field.number);
        if (inner != Type::none) {
          stack.push_back({inner, field.bytes, message.depth + 1});
        } else {
          // The last one counts. A field of another wire type than its own is unknown to a parser: it must not replace
          // a text here that the parser keeps.
          if (field.number == domain_field(message.type)) domain = field.bytes;
          if (message.type == Type::node && field.number == node_operator) operation = field.bytes;
        }
      }
    }
    if (message.type == Type::model) scan_.ir_version = ir_version;
    if (message.type == Type::tensor) ++scan_.tensors;
    if (domain_field(message.type) == 0) return;
    check_domain(domain);
    const bool standard = domain.empty() || domain == "ai.onnx";
    if (message.type == Type::opset) scan_.opsets[standard ? "ai.onnx" : std::string(domain)] = opset;
    if (message.type == Type::node) take_node(standard ? std::string_view() : domain, operation);
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

  Field next(std::string_view data, std::size_t& at) const {
    const std::uint64_t tag = number(data, at);
    Field field{tag >> 3, static_cast<unsigned>(tag & 7), 0, {}};
    if (field.number < 1 || field.number >= 1u << 29) {
      fault("field number " + std::to_string(field.number), "protocol buffers");
    }
    std::uint64_t length = 0;
    switch (field.wire) {
      case Wire::varint: field.value = number(data, at); return field;
      case Wire::bytes: length = number(data, at); break;
      case Wire::fixed32: length = 4; break;
      case Wire::fixed64: length = 8; break;
      default: fault("wire type " + std::to_string(field.wire), "protocol buffers without groups");
    }
    if (length > data.size() - at) {
      fault("a field of " + std::to_string(length) + " bytes where " + std::to_string(data.size() - at) + " are left",
            "a whole ONNX file");
    }
    field.bytes = data.substr(at, static_cast<std::size_t>(length));
    at += static_cast<std::size_t>(length);
    return field;
  }

  std::uint64_t number(std::string_view data, std::size_t& at) const {
    std::uint64_t result = 0;
    for (int shift = 0;; shift += 7) {
      if (at >= data.size()) fault("the file ends within a number", "a whole ONNX file");
      if (shift >= 70) fault("a number of more than 10 bytes", "protocol buffers");
      const auto byte = static_cast<unsigned char>(data[at++]);
      if (shift < 64) result |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return result;
    }
  }

  std::string_view data_;
  std::string where_;
  OnnxScan scan_;
  bool graph_seen_ = false;
};

/// Walk an ONNX model and refuse what could reach beyond it.
inline OnnxScan scan_onnx(std::string_view data, const std::string& where) { return OnnxWalker(data, where).walk(); }

}  // namespace edgekit::detail
