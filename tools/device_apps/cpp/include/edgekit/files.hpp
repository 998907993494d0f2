// Bytes of files: opened so that no link is followed, read at offsets, and the plain zip without any of a zip's freedoms.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "error.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace edgekit::detail {

using Bytes = std::vector<std::uint8_t>;

constexpr const char* get_it_again = "get the bundle again from where it was made; do not run this one";

[[noreturn]] inline void refuse_file(std::string problem, const std::string& where, std::string rule) {
  refuse_bundle(std::move(problem), shown(where), std::move(rule), get_it_again);
}

inline std::string_view text_of(const Bytes& bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Something with a size whose bytes can be read at any offset.
class Readable {
 public:
  Readable() = default;
  Readable(const Readable&) = delete;
  Readable& operator=(const Readable&) = delete;
  virtual ~Readable() = default;
  virtual std::uint64_t size() const noexcept = 0;
  /// Read `count` bytes from `offset` on; false where there are not so many, or they cannot be read.
  virtual bool read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const noexcept = 0;
};

/// Bytes in memory that live longer than this.
class Memory final : public Readable {
 public:
  explicit Memory(const Bytes& bytes) noexcept : bytes_(bytes) {}
  std::uint64_t size() const noexcept override { return bytes_.size(); }
  bool read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const noexcept override {
    if (offset > bytes_.size() || count > bytes_.size() - offset) return false;
    if (count != 0) std::memcpy(to, bytes_.data() + offset, count);
    return true;
  }

 private:
  const Bytes& bytes_;
};

/// What a path is, itself and not what a link there leads to.
struct FileStatus {
  bool folder = false, link = false, regular = false;
  std::uint64_t links = 0, size = 0;
};

/// Refuse what is no ordinary file with one name.
inline void check_ordinary(const FileStatus& status, const std::string& where) {
  if (status.link) refuse_file("a symbolic link", where, "regular files only: a link can lead out of the bundle");
  if (!status.regular) refuse_file("not a regular file", where, "regular files only");
  if (status.links > 1) {
    refuse_bundle("a file with " + std::to_string(status.links) + " hard links", shown(where),
                  "one link: the file could be another one outside of the bundle",
                  "copy the bundle without hard links (cp -r), and check where it came from");
  }
}

#ifdef _WIN32

/// An open regular file. Reparse points (links, junctions) are opened themselves, never followed.
class File final : public Readable {
 public:
  File(const std::filesystem::path& path, bool follow, const std::string& where) {
    handle_ = CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                          FILE_ATTRIBUTE_NORMAL | (follow ? 0 : FILE_FLAG_OPEN_REPARSE_POINT), nullptr);
    BY_HANDLE_FILE_INFORMATION about;
    if (handle_ == INVALID_HANDLE_VALUE || !GetFileInformationByHandle(handle_, &about)) {
      refuse_file("cannot read: Windows error " + std::to_string(GetLastError()), where, "readable regular files");
    }
    status_.link = (about.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0;
    status_.regular = !status_.link && (about.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 &&
                      GetFileType(handle_) == FILE_TYPE_DISK;
    status_.links = about.nNumberOfLinks;
    status_.size = std::uint64_t{about.nFileSizeHigh} << 32 | about.nFileSizeLow;
  }
  ~File() override {
    if (handle_ != INVALID_HANDLE_VALUE) CloseHandle(handle_);
  }
  const FileStatus& status() const noexcept { return status_; }
  std::uint64_t size() const noexcept override { return status_.size; }
  bool read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const noexcept override {
    while (count != 0) {
      OVERLAPPED place{};
      place.Offset = static_cast<DWORD>(offset);
      place.OffsetHigh = static_cast<DWORD>(offset >> 32);
      DWORD got = 0;
      const auto wanted = static_cast<DWORD>(std::min<std::size_t>(count, 1u << 30));
      if (!ReadFile(handle_, to, wanted, &got, &place) || got == 0) return false;
      offset += got, to += got, count -= got;
    }
    return true;
  }

 private:
  HANDLE handle_ = INVALID_HANDLE_VALUE;
  FileStatus status_;
};

inline FileStatus status_of(const std::filesystem::path& path, const std::string& where) {
  std::error_code error;
  const auto type = std::filesystem::symlink_status(path, error).type();
  if (type == std::filesystem::file_type::directory) {
    FileStatus status;
    status.folder = true;
    return status;
  }
  return File(path, false, where).status();
}

#else

inline FileStatus status_of(const struct stat& about) noexcept {
  FileStatus status;
  status.folder = S_ISDIR(about.st_mode);
  status.link = S_ISLNK(about.st_mode);
  status.regular = S_ISREG(about.st_mode);
  status.links = static_cast<std::uint64_t>(about.st_nlink);
  status.size = about.st_size < 0 ? 0 : static_cast<std::uint64_t>(about.st_size);
  return status;
}

/// An open file; with `follow`, a link at its end is followed. O_NONBLOCK: a pipe would keep its reader waiting.
class File final : public Readable {
 public:
  File(const std::filesystem::path& path, bool follow, const std::string& where)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW))) {
    struct stat about {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &about) != 0) {
      const std::string reason = std::generic_category().message(errno);
      close();
      refuse_file("cannot read: " + reason, where, "readable regular files");
    }
    status_ = status_of(about);
  }
  ~File() override { close(); }
  const FileStatus& status() const noexcept { return status_; }
  std::uint64_t size() const noexcept override { return status_.size; }
  bool read(std::uint64_t offset, std::uint8_t* to, std::size_t count) const noexcept override {
    while (count != 0) {
      const ssize_t got = ::pread(descriptor_, to, count, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      offset += static_cast<std::uint64_t>(got), to += got, count -= static_cast<std::size_t>(got);
    }
    return true;
  }

 private:
  void close() noexcept {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int descriptor_;
  FileStatus status_;
};

inline FileStatus status_of(const std::filesystem::path& path, const std::string& where) {
  struct stat about {};
  if (::lstat(path.c_str(), &about) != 0) {
    refuse_file("cannot read: " + std::generic_category().message(errno), where, "readable files");
  }
  return status_of(about);
}

#endif

/// A stretch of something readable: a file of a bundle.
struct Slice {
  std::shared_ptr<const Readable> in;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// The first `count` bytes of a file of a bundle.
inline Bytes read_slice(const Slice& slice, std::uint64_t count, const std::string& where) {
  if (slice.size < count) {
    refuse_file("ends after " + std::to_string(slice.size) + " bytes", where, std::to_string(count) + " bytes");
  }
  Bytes data(static_cast<std::size_t>(count));
  if (!slice.in->read(slice.offset, data.data(), data.size())) {
    refuse_file("ends too early, or cannot be read", where, std::to_string(count) + " bytes");
  }
  return data;
}

/// SHA-256 of a file of a bundle, in pieces, so that a large one needs no memory.
inline std::string sha256_of(const Slice& slice, const std::string& where) {
  Sha256 hash;
  Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(slice.size, 1u << 20)));
  for (std::uint64_t done = 0; done < slice.size;) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), slice.size - done));
    if (!slice.in->read(slice.offset + done, buffer.data(), count)) {
      refuse_file("ends too early, or cannot be read", where, std::to_string(slice.size) + " bytes");
    }
    hash.update(buffer.data(), count);
    done += count;
  }
  return hash.hex();
}

/// CRC-32 as zip has it (ISO 3309).
inline std::uint32_t crc32(const Bytes& data) noexcept {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value & 1u) != 0 ? 0xEDB88320u ^ (value >> 1) : value >> 1;
      made[i] = value;
    }
    return made;
  }();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const std::uint8_t byte : data) crc = table[(crc ^ byte) & 0xFFu] ^ (crc >> 8);
  return ~crc;
}

/// One stored file of a zip.
struct ZipEntry {
  std::string name;
  std::uint64_t start = 0;  ///< of its local header
  std::uint64_t data = 0;   ///< of its bytes
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
  Bytes local_header;  ///< what must stand before its bytes
};

/// The entries of a zip whose every byte is accounted for: entry after entry (local header, name, data), the central
/// directory, its end (APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16). Entries are stored as they are, so nothing
/// can grow on reading; both headers of an entry agree, so no two readers see different files; there are no extra
/// fields, comments, data descriptors, encryption or zip64, so there is nothing else to agree on.
class StoredZip {
 public:
  StoredZip(const Readable& file, std::string where, std::size_t most_entries, std::size_t longest_name)
      : file_(file), where_(std::move(where)), most_(most_entries), longest_name_(longest_name) {}

  std::vector<ZipEntry> entries() {
    constexpr std::uint64_t largest = 0x7FFFFFFF;
    if (file_.size() > largest) fault(std::to_string(file_.size()) + " bytes", "at most 2147483647 bytes");
    find_directory();
    const Bytes directory = bytes(begin_, static_cast<std::size_t>(length_));
    std::vector<ZipEntry> found;
    std::size_t at = 0;
    for (std::size_t i = 0; i < count_; ++i) found.push_back(central(directory, at));
    if (at != directory.size()) {
      fault(std::to_string(directory.size() - at) + " bytes after the last entry of the directory", "entries alone");
    }
    check_layout(found);
    return found;
  }

 private:
  static constexpr std::size_t local_size = 30, central_size = 46, end_size = 22;

  [[noreturn]] void fault(std::string problem, std::string rule) const { refuse_file(std::move(problem), where_, std::move(rule)); }
  [[noreturn]] void fault(std::string problem, std::string rule, const std::string& name) const {
    refuse_file(std::move(problem), where_ + ", entry " + in_quotes(name), std::move(rule));
  }

  static std::uint32_t u16(const Bytes& data, std::size_t at) noexcept {
    return data[at] | std::uint32_t{data[at + 1]} << 8;
  }
  static std::uint32_t u32(const Bytes& data, std::size_t at) noexcept {
    return u16(data, at) | u16(data, at + 2) << 16;
  }

  Bytes bytes(std::uint64_t offset, std::size_t count) const {
    Bytes data(count);
    if (!file_.read(offset, data.data(), count)) fault("the file ends too early", "a whole zip");
    return data;
  }

  void find_directory() {
    const std::uint64_t total = file_.size();
    const Bytes end = total < end_size ? Bytes() : bytes(total - end_size, end_size);
    if (end.empty() || u32(end, 0) != 0x06054b50) {
      fault("no end of a zip at the end of the file", "a whole zip without a comment, and nothing after it");
    }
    count_ = u16(end, 10);
    length_ = u32(end, 12);
    begin_ = u32(end, 16);
    if (u16(end, 4) != 0 || u16(end, 6) != 0 || u16(end, 8) != count_ || u16(end, 20) != 0) {
      fault("several disks or a comment", "one file without a comment");
    }
    if (count_ < 1 || count_ > most_) {
      fault(std::to_string(count_) + " entries", "1 to " + std::to_string(most_) + ", without zip64");
    }
    if (begin_ + length_ + end_size != total || length_ > count_ * (central_size + longest_name_)) {
      fault("a directory of " + std::to_string(length_) + " bytes at " + std::to_string(begin_),
            "it ends where the file's end begins");
    }
  }

  ZipEntry central(const Bytes& directory, std::size_t& at) const {
    if (directory.size() - at < central_size || u32(directory, at) != 0x02014b50) {
      fault("no entry where the directory should have one", "a whole central directory");
    }
    const std::size_t head = at;
    const std::uint32_t version = u16(directory, head + 6), flags = u16(directory, head + 8);
    const std::uint32_t method = u16(directory, head + 10), packed = u32(directory, head + 20);
    const std::uint32_t named = u16(directory, head + 28), extra = u16(directory, head + 30);
    const std::uint32_t comment = u16(directory, head + 32), disk = u16(directory, head + 34);
    const std::uint32_t attributes = u32(directory, head + 38);
    ZipEntry entry;
    entry.crc = u32(directory, head + 16);
    entry.size = u32(directory, head + 24);
    entry.start = u32(directory, head + 42);
    at += central_size;
    if (directory.size() - at < named) fault("a name that ends after the directory", "a whole central directory");
    entry.name.assign(reinterpret_cast<const char*>(directory.data()) + at, named);
    at += named;
    constexpr std::uint32_t utf8 = 1u << 11;  // its name is UTF-8, as ASCII is
    if ((flags & ~utf8) != 0) fault("flags " + std::to_string(flags), "no encryption and no data descriptor", entry.name);
    if (method != 0 || packed != entry.size) {
      fault("compression method " + std::to_string(method) + ", " + std::to_string(packed) + " bytes for " +
                std::to_string(entry.size),
            "entries stored as they are", entry.name);
    }
    if (version > 20 || disk != 0) {
      fault("needs version " + std::to_string(version) + ", disk " + std::to_string(disk),
            "at most version 2.0, without zip64, on one disk", entry.name);
    }
    if (extra != 0 || comment != 0 || named == 0) {
      fault(std::to_string(extra) + " bytes of extra fields, " + std::to_string(comment) + " of a comment",
            "a name, and neither of these", entry.name);
    }
    const std::uint32_t type = (attributes >> 16) & 0xF000u;
    if ((type != 0 && type != 0x8000u) || (attributes & 0x10u) != 0) {
      fault("attributes " + std::to_string(attributes), "regular files only: a link can lead out of the bundle",
            entry.name);
    }
    entry.data = entry.start + local_size + named;
    // The local header repeats version to sizes and the name, and has no more extra fields than the directory.
    entry.local_header = {0x50, 0x4b, 0x03, 0x04};
    const auto copied = [&](std::size_t from, std::size_t size) {
      const auto first = directory.begin() + static_cast<std::ptrdiff_t>(head + from);
      entry.local_header.insert(entry.local_header.end(), first, first + static_cast<std::ptrdiff_t>(size));
    };
    copied(6, 24);
    entry.local_header.insert(entry.local_header.end(), {0, 0});
    copied(central_size, named);
    return entry;
  }

  void check_layout(const std::vector<ZipEntry>& entries) const {
    std::vector<const ZipEntry*> ordered;
    for (const ZipEntry& entry : entries) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->start < b->start; });
    std::uint64_t at = 0;
    for (const ZipEntry* entry : ordered) {
      if (entry->start != at) {
        fault("begins at " + std::to_string(entry->start),
              "entries without gap or overlap: at " + std::to_string(at), entry->name);
      }
      at = entry->data + entry->size;
      if (at > begin_) {
        fault(std::to_string(entry->size) + " bytes end beyond the entries", "whole entries before the directory",
              entry->name);
      }
      if (bytes(entry->start, entry->local_header.size()) != entry->local_header) {
        fault("the local header says something else than the directory", "both agree", entry->name);
      }
    }
    if (at != begin_) {
      fault(std::to_string(begin_ - at) + " bytes between the entries and the directory", "entries without gap");
    }
  }

  const Readable& file_;
  std::string where_;
  std::size_t most_, longest_name_;
  std::uint64_t count_ = 0, length_ = 0, begin_ = 0;
};

}  // namespace edgekit::detail
