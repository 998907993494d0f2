// From text to token ids, as BERT and its relatives were trained, and from ids back to text
// (edgekit/device/processing/{vocabulary,wordpiece,text}.py). ASCII only: there are no Unicode tables here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fields.hpp"
#include "tensor.hpp"

namespace edgekit::detail {

/// Tokens by id, and ids by token.
struct Vocabulary {
  std::vector<std::string> tokens;
  std::map<std::string, std::int64_t, std::less<>> index;

  /// UTF-8, one token a line, the line's number its id. Only a line feed ends a line: tokens may hold other separators.
  static Vocabulary parse(std::string_view data, const std::string& where) {
    constexpr std::size_t most = 2'000'000;
    if (!is_utf8(data)) refuse_bundle("no UTF-8", where, "one token a line in UTF-8");
    if (!data.empty() && data.back() == '\n') data.remove_suffix(1);
    Vocabulary made;
    for (;;) {
      const std::size_t end = data.find('\n');
      std::string_view line = data.substr(0, end);
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      const auto id = static_cast<std::int64_t>(made.tokens.size());
      if (made.tokens.size() >= most) refuse_bundle("too many tokens", where, "at most " + std::to_string(most));
      if (!made.index.emplace(std::string(line), id).second) {
        refuse_bundle(in_quotes(line) + " stands there twice", where + ", line " + std::to_string(id + 1), "each token once");
      }
      made.tokens.emplace_back(line);
      if (end == std::string_view::npos) return made;
      data.remove_prefix(end + 1);
    }
  }
};

/// How text becomes token ids: cleaned, split into words, then the longest piece first (Devlin et al., BERT, 2019; Wu et
/// al., Google's Neural Machine Translation System, 2016, 4.1).
struct WordpiecePreprocessing {
  std::string vocabulary_file;
  bool lowercase = true;
  std::optional<std::int64_t> length;
  std::string unknown;
  std::optional<std::string> first, last, padding;
  std::string ids;
  std::optional<std::string> mask, types;

  static WordpiecePreprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "vocabulary", "lowercase", "length", "unknown", "first", "last", "padding",
                                      "inputs"}, strict);
    WordpiecePreprocessing made;
    made.vocabulary_file = fields.text("vocabulary");
    made.lowercase = fields.flag("lowercase");
    made.unknown = fields.text("unknown");
    made.first = fields.optional_text("first");
    made.last = fields.optional_text("last");
    made.padding = fields.optional_text("padding");
    made.length = fields.optional_whole("length", std::max<std::int64_t>(made.around(), 1), 1'000'000);
    if (made.length && !made.padding) fields.fault("padding", "a token, since ids are padded to `length`");
    const Fields names(fields.at("inputs"), where + ".inputs", {"ids", "mask", "types"}, strict);
    made.ids = names.text("ids");
    made.mask = names.optional_text("mask");
    made.types = names.optional_text("types");
    if (made.mask == made.ids || made.types == made.ids || (made.mask && made.mask == made.types)) {
      fields.fault("inputs", "the name of an input for `ids`, and others or null for `mask` and `types`");
    }
    return made;
  }

  /// The inputs that there are.
  std::vector<std::string> names() const {
    std::vector<std::string> found{ids};
    if (mask) found.push_back(*mask);
    if (types) found.push_back(*types);
    return found;
  }

  /// Refuse a vocabulary that lacks one of the special tokens.
  void check(const Vocabulary& vocabulary, const std::string& where) const {
    const std::pair<const char*, std::optional<std::string>> special[] = {
        {"unknown", unknown}, {"first", first}, {"last", last}, {"padding", padding}};
    for (const auto& [name, token] : special) {
      if (token && vocabulary.index.count(*token) == 0) {
        refuse_bundle("got " + in_quotes(*token), where + ".preprocessing." + name, "a token of " + vocabulary_file);
      }
    }
  }

  /// The model's inputs int64 [1, length] by name.
  Tensors apply(std::string_view text, const Vocabulary& vocabulary) const {
    constexpr std::size_t most = 1'000'000;
    for (const char c : text) {
      if (static_cast<unsigned char>(c) >= 0x80) {
        refuse(Kind::data, "a text with characters beyond ASCII", "text",
               "ASCII: this loader has no Unicode tables, and a wrong split would give wrong ids without a word",
               "give the ids by name as tensors, or tokenize with edgekit's Python or JavaScript loader");
      }
    }
    if (text.size() > most) {
      refuse(Kind::data, std::to_string(text.size()) + " characters", "text", "at most " + std::to_string(most));
    }
    std::vector<std::int64_t> row;
    if (first) row.push_back(vocabulary.index.at(*first));
    for (const std::string& word : words(text)) append_pieces(word, vocabulary, row);
    const std::size_t after = last ? 1 : 0;
    if (length) row.resize(std::min(row.size(), static_cast<std::size_t>(*length) - after));
    if (last) row.push_back(vocabulary.index.at(*last));
    std::vector<std::int64_t> marks(row.size(), 1);
    if (length) {
      row.resize(static_cast<std::size_t>(*length), padding ? vocabulary.index.at(*padding) : 0);
      marks.resize(row.size(), 0);
    }
    const std::vector<std::int64_t> shape{1, static_cast<std::int64_t>(row.size())};
    Tensors made{{ids, Tensor::of(shape, row)}};
    if (mask) made[*mask] = Tensor::of(shape, marks);
    if (types) made[*types] = Tensor::of(shape, std::vector<std::int64_t>(row.size(), 0));
    return made;
  }

 private:
  std::int64_t around() const noexcept { return (first ? 1 : 0) + (last ? 1 : 0); }

  /// The words of an ASCII text, as BERT's basic tokenizer splits it.
  std::vector<std::string> words(std::string_view text) const {
    std::vector<std::string> found;
    std::string word;
    const auto finish = [&] {
      if (!word.empty()) found.push_back(std::move(word));
      word.clear();
    };
    for (const char c : text) {
      const bool upper = c >= 'A' && c <= 'Z', alphanumeric = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        finish();
      } else if (alphanumeric) {
        word += upper && lowercase ? static_cast<char>(c - 'A' + 'a') : c;
      } else if (c > ' ' && c < '\x7f') {
        finish();
        found.emplace_back(1, c);
      }  // else a control character, which leaves no trace
    }
    finish();
    return found;
  }

  void append_pieces(const std::string& word, const Vocabulary& vocabulary, std::vector<std::int64_t>& row) const {
    constexpr std::size_t longest_word = 100;
    const std::size_t before = row.size();
    std::size_t start = word.size() > longest_word ? word.size() : 0;
    bool known = start == 0;
    while (start < word.size() && known) {
      std::string piece = (start != 0 ? "##" : "") + word.substr(start);
      const std::size_t prefix = start != 0 ? 2 : 0;
      auto found = vocabulary.index.find(piece);
      while (found == vocabulary.index.end() && piece.size() > prefix + 1) {
        piece.pop_back();
        found = vocabulary.index.find(piece);
      }
      known = found != vocabulary.index.end();
      if (known) row.push_back(found->second), start += piece.size() - prefix;
    }
    if (!known) row.resize(before), row.push_back(vocabulary.index.at(unknown));
  }
};

/// How ids, or the likeliest of scores, become text.
struct TextPostprocessing {
  std::string output, vocabulary_file;
  std::optional<std::string> stop;
  std::vector<std::string> skip;
  std::string joiner;

  static TextPostprocessing read(const Json& data, const std::string& where, bool strict) {
    const Fields fields(data, where, {"kind", "output", "vocabulary", "stop", "skip", "joiner"}, strict);
    TextPostprocessing made;
    made.output = fields.text("output");
    made.vocabulary_file = fields.text("vocabulary");
    made.stop = fields.optional_text("stop");
    for (const Json& token : fields.list("skip", "a list of tokens")) {
      if (token.text() == nullptr) fields.fault("skip", "a list of tokens");
      made.skip.push_back(*token.text());
    }
    made.joiner = fields.text("joiner", true);
    return made;
  }

  std::string apply(const Tensors& outputs, const Vocabulary& vocabulary) const {
    std::string text;
    for (const std::int64_t id : token_ids(outputs.at(output))) {
      if (id < 0 || static_cast<std::uint64_t>(id) >= vocabulary.tokens.size()) {
        refuse_bundle("id " + std::to_string(id), "output " + in_quotes(output),
                      "0 to " + std::to_string(vocabulary.tokens.size() - 1));
      }
      const std::string& token = vocabulary.tokens[static_cast<std::size_t>(id)];
      if (stop && token == *stop) break;
      bool skipped = false;
      for (const std::string& each : skip) skipped = skipped || token == each;
      if (skipped) continue;
      if (token.compare(0, joiner.size(), joiner) == 0) {
        text.append(token, joiner.size(), std::string::npos);
      } else {
        text += text.empty() ? token : " " + token;
      }
    }
    return text;
  }

 private:
  std::vector<std::int64_t> token_ids(const Tensor& value) const {
    const bool scores = value.shape.size() == 3 && value.shape[2] > 0;
    const bool integers = value.dtype != DType::float16 && value.dtype != DType::float32 &&
                          value.dtype != DType::float64 && value.dtype != DType::boolean;
    if (!(scores || (value.shape.size() == 2 && integers)) || value.shape[0] != 1) {
      refuse_bundle("got " + value.text(), "output " + in_quotes(output), "ids [1, n], or scores [1, n, vocabulary]",
                    "use `run` for the raw outputs");
    }
    if (value.dtype == DType::int64 && !scores) return value.values<std::int64_t>();
    const std::vector<double> numbers = value.doubles();
    const std::size_t width = scores ? static_cast<std::size_t>(value.shape[2]) : 1;
    std::vector<std::int64_t> found;
    for (std::size_t row = 0; row + width <= numbers.size(); row += width) {
      const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(row);
      found.push_back(scores ? std::max_element(begin, begin + static_cast<std::ptrdiff_t>(width)) - begin
                             : static_cast<std::int64_t>(*begin));
    }
    return found;
  }
};

}  // namespace edgekit::detail
