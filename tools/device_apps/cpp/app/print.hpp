// Answers as text for people and as JSON for programs.
#pragma once

#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <edgekit/edgekit.hpp>

namespace app {

inline std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : edgekit::detail::shown(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || c == '"' || c == '\\') {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(byte));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

inline std::string json_number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return std::isfinite(value) ? text : "null";
}

template <class Items, class Write>
std::string json_list(const Items& items, Write write) {
  std::vector<std::string> parts;
  for (const auto& item : items) parts.push_back(write(item));
  return "[" + edgekit::detail::joined(parts) + "]";
}

inline std::string json_numbers(const std::map<std::string, double>& numbers) {
  std::vector<std::string> parts;
  for (const auto& [name, number] : numbers) parts.push_back(json_text(name) + ": " + json_number(number));
  return "{" + edgekit::detail::joined(parts) + "}";
}

inline std::string json(const edgekit::Prediction& made) {
  return "{\"label\": " + json_text(made.label) + ", \"index\": " + std::to_string(made.index) +
         ", \"confidence\": " + json_number(made.confidence) + ", \"top\": " +
         json_list(made.top, [](const edgekit::ClassScore& each) {
           return "{\"label\": " + json_text(each.label) + ", \"confidence\": " + json_number(each.confidence) + "}";
         }) + ", \"probabilities\": " + json_list(made.probabilities, json_number) + "}";
}

inline std::string json(const edgekit::Detection& made) {
  return "{\"label\": " + json_text(made.label) + ", \"index\": " + std::to_string(made.index) +
         ", \"confidence\": " + json_number(made.confidence) + ", \"box\": " + json_list(made.box, json_number) + "}";
}

/// Numbers as nested lists, in the tensor's shape.
inline std::string json(const edgekit::Tensor& tensor) {
  const std::vector<double> values = tensor.doubles();
  std::string out;
  std::size_t next = 0;
  const auto write = [&](auto& self, std::size_t axis) -> void {
    if (axis == tensor.shape.size()) {
      out += json_number(values[next++]);
      return;
    }
    out += "[";
    for (std::int64_t i = 0; i < tensor.shape[axis]; ++i) {
      if (i != 0) out += ", ";
      self(self, axis + 1);
    }
    out += "]";
  };
  write(write, 0);
  return out;
}

/// As Python's `plain(model.predict(...))`: an object for one sample, a list for several, a text, or tensors by name.
inline std::string json(const edgekit::Answer& answer) {
  const auto write = [](const auto& each) { return json(each); };
  switch (answer.kind) {
    case edgekit::Answer::Kind::classes:
      return answer.predictions.size() == 1 ? json(answer.predictions[0]) : json_list(answer.predictions, write);
    case edgekit::Answer::Kind::objects: return json_list(answer.detections, write);
    case edgekit::Answer::Kind::text: return json_text(answer.text);
    default: break;
  }
  std::vector<std::string> parts;
  for (const auto& [name, tensor] : answer.outputs) parts.push_back(json_text(name) + ": " + json(tensor));
  return "{" + edgekit::detail::joined(parts) + "}";
}

inline std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%", 100 * share);
  return text;
}

/// For people.
inline std::string text(const edgekit::Answer& answer) {
  std::vector<std::string> lines;
  for (const edgekit::Prediction& made : answer.predictions) {
    std::vector<std::string> parts;
    for (const auto& each : made.top) parts.push_back(each.label + " (" + percent(each.confidence) + ")");
    lines.push_back(edgekit::detail::joined(parts));
  }
  for (const edgekit::Detection& made : answer.detections) {
    char box[120];
    std::snprintf(box, sizeof box, "%.1f, %.1f, %.1f, %.1f", made.box[0], made.box[1], made.box[2], made.box[3]);
    lines.push_back(made.label + " (" + percent(made.confidence) + ") at " + box);
  }
  if (answer.kind == edgekit::Answer::Kind::objects && lines.empty()) lines.push_back("nothing found");
  if (answer.kind == edgekit::Answer::Kind::text) lines.push_back(answer.text);
  if (answer.kind == edgekit::Answer::Kind::tensors) {
    for (const auto& [name, tensor] : answer.outputs) lines.push_back(name + ": " + tensor.text());
  }
  return edgekit::detail::joined(lines, "\n");
}

}  // namespace app
