// A bundle on disk is what its manifest says, or it is refused before ONNX Runtime sees a byte
// (edgekit/device/verify.py and edgekit/device/opening/).
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "files.hpp"
#include "json.hpp"
#include "manifest.hpp"
#include "tensor.hpp"

namespace edgekit::detail {

/// Where a bundle's bytes come from: the files of a folder, or the entries of one file.
class Source {
 public:
  explicit Source(std::string where) : where_(std::move(where)) {}
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;

  /// The folder or file, as errors name it.
  const std::string& where() const noexcept { return where_; }
  std::string place(const std::string& name) const { return where_ + "/" + name; }
  /// The bytes of each file.
  const std::map<std::string, std::uint64_t>& sizes() const noexcept { return sizes_; }
  /// One of them, for reading.
  virtual Slice open(const std::string& name) const = 0;

 protected:
  std::map<std::string, std::uint64_t> sizes_;  // NOLINT: the two kinds fill it

 private:
  std::string where_;
};

/// The files below a folder, all of them ordinary ones; no link is followed.
class Folder final : public Source {
 public:
  explicit Folder(const std::filesystem::path& path) : Source(path.string()), path_(path) { list("", 0); }

  Slice open(const std::string& name) const override {
    // What the listing saw may have been replaced since: the open file itself must be an ordinary one.
    auto file = std::make_shared<const File>(path_ / name, false, place(name));
    check_ordinary(file->status(), place(name));
    return {file, 0, file->size()};
  }

 private:
  void list(const std::string& folder, int depth) {
    namespace fs = std::filesystem;
    std::error_code error;
    std::vector<fs::path> entries;
    for (fs::directory_iterator entry(path_ / folder, error), end; !error && entry != end; entry.increment(error)) {
      entries.push_back(entry->path());
      if (++count_ > 2 * max_files) {
        refuse_file("more than " + std::to_string(2 * max_files) + " files and folders", where(),
                    "at most " + std::to_string(max_files) + " files");
      }
    }
    const std::string here = folder.empty() ? where() : place(folder.substr(0, folder.size() - 1));
    if (error) refuse_file("cannot read: " + error.message(), here, "readable folders");
    if (entries.empty() && !folder.empty()) refuse_file("an empty folder", here, "only listed files");
    std::sort(entries.begin(), entries.end());
    for (const fs::path& entry : entries) {
      const std::string name = folder + entry.filename().string();
      const FileStatus status = status_of(entry, place(name));
      if (status.folder) {
        if (depth >= 8) refuse_file("folders nested too deeply", here, "at most 8 levels");
        list(name + "/", depth + 1);
      } else {
        check_ordinary(status, place(name));
        sizes_[name] = status.size;
      }
    }
  }

  std::filesystem::path path_;
  std::size_t count_ = 0;
};

/// The entries of a stored zip.
class Archive final : public Source {
 public:
  explicit Archive(const std::filesystem::path& path)
      : Source(path.string()), file_(std::make_shared<const File>(path, true, path.string())) {
    if (!file_->status().regular) refuse_file("not a regular file", where(), "a regular file");
    for (ZipEntry& entry : StoredZip(*file_, where(), max_files + 1, longest_path).entries()) {
      check_path(entry.name, where());
      const std::string name = entry.name;
      sizes_[name] = entry.size;
      if (!entries_.emplace(name, std::move(entry)).second) {
        refuse_file("two entries " + in_quotes(name), where(), "each name once");
      }
    }
  }

  Slice open(const std::string& name) const override {
    const ZipEntry& entry = entries_.at(name);
    return {file_, entry.data, entry.size};
  }

  /// CRC-32 of an entry, as the zip has it.
  std::uint32_t crc(const std::string& name) const { return entries_.at(name).crc; }

 private:
  std::shared_ptr<const File> file_;
  std::map<std::string, ZipEntry> entries_;
};

/// A bundle whose files are all there and all ordinary, and whose manifest could be read.
class Bundle {
 public:
  explicit Bundle(const std::filesystem::path& path) : source_(source(path)) {
    if (source_->sizes().count(bundle_file) == 0) {
      refuse_bundle(std::string("no ") + bundle_file, shown(source_->where()), "a bundle holds edgekit/bundle.json");
    }
    const std::uint64_t size = std::min<std::uint64_t>(source_->sizes().at(bundle_file), max_json_bytes + 1);
    const Bytes data = read_slice(source_->open(bundle_file), size, source_->place(bundle_file));
    if (const auto* archive = dynamic_cast<const Archive*>(source_.get())) {
      // All other files have a digest in the manifest; the manifest itself has this.
      if (size <= max_json_bytes && crc32(data) != archive->crc(bundle_file)) {
        refuse_file("changed: its CRC-32 is not the zip's", source_->place(bundle_file), "every file as written");
      }
    }
    digest_ = Sha256::of(data.data(), data.size());
    manifest_ = Manifest::read(parse_json(text_of(data), bundle_file), bundle_file);
    compare();
    check_package(package_file, manifest_.package_json());
    check_package(component_file, manifest_.component_json());
  }

  const Manifest& manifest() const noexcept { return manifest_; }
  /// SHA-256 of `edgekit/bundle.json`, which holds the digests of all other files: it stands for all.
  const std::string& digest() const noexcept { return digest_; }
  const std::string& where() const noexcept { return source_->where(); }
  std::string place(const std::string& name) const { return source_->place(name); }
  /// The SHA-256 of every file by its name, `edgekit/bundle.json` among them.
  std::map<std::string, std::string> digests() const {
    std::map<std::string, std::string> made{{bundle_file, digest_}};
    for (const auto& [name, entry] : manifest_.files) made.emplace(name, entry.sha256);
    return made;
  }

  /// The bytes of a listed file: what is returned is what was hashed.
  Bytes read(const std::string& name) const {
    const FileEntry& entry = manifest_.files.at(name);
    Bytes data = read_slice(source_->open(name), entry.size, place(name));
    if (Sha256::of(data.data(), data.size()) != entry.sha256) refuse_changed(name);
    return data;
  }

  /// Compare every file with its digest.
  void check_digests() const {
    for (const auto& [name, entry] : manifest_.files) {
      if (sha256_of(source_->open(name), place(name)) != entry.sha256) refuse_changed(name);
    }
  }

 private:
  static std::unique_ptr<const Source> source(const std::filesystem::path& path) {
    std::error_code error;
    const auto type = std::filesystem::status(path, error).type();
    if (type == std::filesystem::file_type::directory) return std::make_unique<Folder>(path);
    const bool exists = type != std::filesystem::file_type::not_found && type != std::filesystem::file_type::none;
    if (exists && lower(path.extension().string()) == ".zip") return std::make_unique<Archive>(path);
    refuse_bundle(exists ? "neither a folder nor a .zip" : "no such folder or file", shown(path.string()),
                  "a bundle is a folder or a zip that holds edgekit/bundle.json",
                  "name the folder that `edgekit compress` or `edgekit bundle` printed");
  }

  void compare() const {
    constexpr std::uint64_t most = 16'000'000'000;
    std::uint64_t total = 0;
    for (const auto& [name, size] : source_->sizes()) {
      total += size;
      if (name != bundle_file && manifest_.files.count(name) == 0) {
        refuse_file("not in the manifest", place(name), "only listed files");
      }
    }
    for (const auto& [name, entry] : manifest_.files) {
      const auto found = source_->sizes().find(name);
      if (found == source_->sizes().end()) refuse_file("missing", place(name), "every listed file");
      if (found->second != entry.size) {
        refuse_file(std::to_string(found->second) + " bytes", place(name),
                    std::to_string(entry.size) + " bytes in the manifest");
      }
    }
    if (total > most) {
      refuse_file(std::to_string(total) + " bytes", where(), "at most " + std::to_string(most) + " bytes in all");
    }
  }

  void check_package(const std::string& name, const std::string& expected) const {
    // ONNX Runtime itself would open what these name; so they name what bundle.json does, and nothing else.
    if (!(parse_json(text_of(read(name)), name) == parse_json(expected, name))) {
      refuse_file("says something else than edgekit/bundle.json", place(name), "both agree");
    }
  }

  [[noreturn]] void refuse_changed(const std::string& name) const {
    refuse_file("changed: its SHA-256 is not the manifest's", place(name), "every file as written");
  }

  std::unique_ptr<const Source> source_;
  std::string digest_;
  Manifest manifest_;
};

/// One golden sample: inputs with the outputs that every device must reproduce, and what the inputs came from.
struct Golden {
  Tensors inputs, outputs;
  std::string raw_kind;  ///< image, samples or text; empty where the raw input is not known
  Tensor raw;
};

/// The samples in `edgekit/golden.npz`, checked against the bundle's inputs and outputs.
inline std::vector<Golden> read_golden(const Bytes& data, const Manifest& manifest) {
  const std::string where = golden_file;
  std::map<std::string, Tensor> arrays;
  const Memory memory(data);
  for (const ZipEntry& entry : StoredZip(memory, where, 65'535, 1000).entries()) {
    const std::size_t stem = entry.name.size() < 4 ? 0 : entry.name.size() - 4;
    const std::string_view body = text_of(data).substr(static_cast<std::size_t>(entry.data), static_cast<std::size_t>(entry.size));
    if (stem == 0 || entry.name.substr(stem) != ".npy" || arrays.count(entry.name.substr(0, stem)) != 0) {
      refuse_bundle("entry " + in_quotes(entry.name), where, "uncompressed .npy entries, each name once");
    }
    arrays[entry.name.substr(0, stem)] = NpyParser(body, where, Kind::bundle).parse();
  }
  const auto take = [&arrays](const std::string& name, Tensor& to) {
    const auto found = arrays.find(name);
    if (found == arrays.end()) return false;
    to = std::move(found->second);
    arrays.erase(found);
    return true;
  };
  std::vector<Golden> samples(manifest.golden_samples);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::string number = std::to_string(i);
    for (const bool input : {true, false}) {
      for (const TensorSpec& spec : input ? manifest.inputs : manifest.outputs) {
        const std::string side = input ? "input" : "output";
        Tensor& to = (input ? samples[i].inputs : samples[i].outputs)[spec.name];
        const bool there = take(number + "/" + side + "/" + spec.name, to);
        if (!there || !spec.accepts(to.dtype, to.shape)) {
          refuse_bundle("got " + (there ? to.text() : "nothing") + " for " + side + " " + in_quotes(spec.name) +
                            " of sample " + number, where, spec.text());
        }
      }
    }
    for (const char* kind : {"image", "samples", "text"}) {
      if (!take(number + "/raw/" + kind, samples[i].raw)) continue;
      samples[i].raw_kind = kind;
      const Tensor& raw = samples[i].raw;
      const std::size_t rank = raw.shape.size();
      const bool image = samples[i].raw_kind == "image", sound = samples[i].raw_kind == "samples";
      if (raw.dtype != (sound ? DType::float32 : DType::uint8) || (image ? rank != 2 && rank != 3 : rank != 1)) {
        refuse_bundle("got " + raw.text(), where + ", " + number + "/raw/" + kind, "what the name says");
      }
      break;
    }
  }
  if (!arrays.empty()) {
    refuse_bundle("unexpected array " + in_quotes(arrays.begin()->first), where,
                  "the arrays of " + std::to_string(samples.size()) + " samples");
  }
  return samples;
}

}  // namespace edgekit::detail
