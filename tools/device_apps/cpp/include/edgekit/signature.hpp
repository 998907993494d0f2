// Whether a bundle is signed with a key that one trusts (edgekit/device/signature.py): a Sigstore bundle in JSON around a
// DSSE envelope, whose payload lists the SHA-256 of every file (OpenSSF's model-signing).
//
// Elliptic curves are OpenSSL's business. Its library is opened at run time, as ONNX Runtime's is: who checks no signature
// needs none.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "error.hpp"
#include "files.hpp"
#include "json.hpp"
#include "library.hpp"
#include "manifest.hpp"
#include "text.hpp"

namespace edgekit::detail {

constexpr const char* envelope_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
constexpr const char* payload_type = "application/vnd.in-toto+json";
constexpr const char* statement_type = "https://in-toto.io/Statement/v1";
constexpr const char* predicate_type = "https://model_signing/signature/v1.0";

/// Where a bundle's signature lies: `NAME.edgekit.sig` for `NAME.edgekit` and `NAME.edgekit.zip`.
inline std::filesystem::path signature_beside(std::filesystem::path bundle) {
  if (!bundle.has_filename()) bundle = bundle.parent_path();  // "NAME.edgekit/"
  if (lower(bundle.extension().string()) == ".zip") bundle.replace_extension();
  return bundle += ".sig";
}

/// The functions of OpenSSL 3 that checking a signature takes.
class Crypto {
 public:
  explicit Crypto(const std::string& given) {
#ifdef _WIN32
    const std::vector<std::string> known{"libcrypto-3-x64.dll", "libcrypto-3-arm64.dll"};
#elif defined(__APPLE__)
    const std::vector<std::string> known{"libcrypto.3.dylib"};
#else
    const std::vector<std::string> known{"libcrypto.so.3"};
#endif
    const std::vector<std::string> names = given.empty() ? known : std::vector<std::string>{given};
    std::vector<std::string> reasons;
    for (const std::string& name : names) {
      const Library library(name);
      if (library.opened() && find(library)) return;
      reasons.push_back(library.opened() ? "not OpenSSL 3" : library.reason());
    }
    refuse(Kind::provider, "signatures cannot be checked: " + joined(reasons, "; "), joined(names),
           "libcrypto of OpenSSL 3", "install it (apt-get install libssl3), or name it in Options::crypto_library");
  }

  /// Whether `proof` is a signature of `data` by the key in `pem`.
  bool verified(const std::string& pem, std::string_view data, const Bytes& proof) const {
    const Held<Bio> text(bio_new(pem.data(), static_cast<int>(pem.size())), {bio_free});
    const Held<Key> key(text ? read_key(text.get(), nullptr, no_password, nullptr) : nullptr, {key_free});
    const void* digest = key ? digest_for(*key) : nullptr;
    if (digest == nullptr) {
      refuse(Kind::data, "cannot read the public key", "Options::public_key",
             "the PEM text of a public key on P-256, P-384 or P-521", "openssl ec -in private.pem -pubout -out public.pem");
    }
    const Held<Context> context(context_new(), {context_free});
    if (!context || begin(context.get(), nullptr, digest, nullptr, key.get()) != 1) {
      refuse(Kind::provider, "OpenSSL does not check signatures by this key", "libcrypto", "elliptic curves in OpenSSL 3");
    }
    return verify(context.get(), proof.data(), proof.size(), reinterpret_cast<const unsigned char*>(data.data()), data.size()) == 1;
  }

 private:
  // OpenSSL's objects, which are only ever pointed to.
  struct Bio;
  struct Key;
  struct Context;
  template <class Object>
  struct Free {
    void (*free)(Object*);
    void operator()(Object* object) const noexcept { free(object); }
  };
  template <class Object>
  using Held = std::unique_ptr<Object, Free<Object>>;

  /// Nobody is asked for a password: a public key has none.
  static int no_password(char*, int, int, void*) noexcept { return -1; }

  bool find(const Library& library) noexcept {
    const auto get = [&library](auto& pointer, const char* name) noexcept {
      pointer = library.find<std::decay_t<decltype(pointer)>>(name);
      return pointer != nullptr;
    };
    return get(bio_new, "BIO_new_mem_buf") && get(bio_free, "BIO_free_all") && get(read_key, "PEM_read_bio_PUBKEY") &&
           get(key_free, "EVP_PKEY_free") && get(group_name, "EVP_PKEY_get_group_name") && get(sha256, "EVP_sha256") &&
           get(sha384, "EVP_sha384") && get(sha512, "EVP_sha512") && get(context_new, "EVP_MD_CTX_new") &&
           get(context_free, "EVP_MD_CTX_free") && get(begin, "EVP_DigestVerifyInit") && get(verify, "EVP_DigestVerify");
  }

  /// The hash that goes with the key's curve; null for other curves and other kinds of keys.
  const void* digest_for(const Key& key) const noexcept {
    std::array<char, 32> group{};
    std::size_t length = 0;
    if (group_name(&key, group.data(), group.size(), &length) != 1) return nullptr;
    const std::string_view name(group.data());
    return name == "prime256v1" ? sha256() : name == "secp384r1" ? sha384() : name == "secp521r1" ? sha512() : nullptr;
  }

  Bio* (*bio_new)(const void*, int) = nullptr;
  void (*bio_free)(Bio*) = nullptr;
  Key* (*read_key)(Bio*, Key**, int (*)(char*, int, int, void*), void*) = nullptr;
  void (*key_free)(Key*) = nullptr;
  int (*group_name)(const Key*, char*, std::size_t, std::size_t*) = nullptr;
  const void* (*sha256)() = nullptr;
  const void* (*sha384)() = nullptr;
  const void* (*sha512)() = nullptr;
  Context* (*context_new)() = nullptr;
  void (*context_free)(Context*) = nullptr;
  int (*begin)(Context*, void**, const void*, void*, Key*) = nullptr;
  int (*verify)(Context*, const unsigned char*, std::size_t, const unsigned char*, std::size_t) = nullptr;
};

/// What base64 stands for; an error where it is not quite base64 (blanks, missing padding).
inline Bytes base64(std::string_view text, const std::string& where) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) refuse_file("not base64", where, "base64");
  const std::size_t padding = text.empty() || text.back() != '=' ? 0 : text[text.size() - 2] == '=' ? 2 : 1;
  Bytes made;
  made.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t value = i < text.size() - padding ? letters.find(text[i]) : 0;
    if (value == std::string_view::npos) refuse_file("not base64", where, "base64");
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) made.push_back(static_cast<std::uint8_t>(bits >> shift & 255));
    bits = 0;
  }
  made.resize(made.size() - padding);
  return made;
}

/// The text at `path` below `from`; null where there is none.
inline const std::string* text_at(const Json* from, std::initializer_list<const char*> path) noexcept {
  for (const char* key : path) from = from == nullptr ? nullptr : from->find(key);
  return from == nullptr ? nullptr : from->text();
}

/// The payload of the envelope, whose signature is by the key (DSSE 1.0: what is signed is the payload and its type).
inline Bytes signed_payload(const Json& file, const std::string& pem, const std::string& library, const std::string& where) {
  const std::string* media = text_at(&file, {"mediaType"});
  if (media == nullptr || *media != envelope_type) refuse_file("another kind of file", where, envelope_type);
  const Json* envelope = file.find("dsseEnvelope");
  const Json* signatures = envelope == nullptr ? nullptr : envelope->find("signatures");
  const bool single = signatures != nullptr && signatures->list() != nullptr && signatures->list()->size() == 1;
  const std::string *payload = text_at(envelope, {"payload"}), *type = text_at(envelope, {"payloadType"}),
                    *proof = single ? text_at(&signatures->list()->front(), {"sig"}) : nullptr;
  if (payload == nullptr || type == nullptr || proof == nullptr) {
    refuse_file("no envelope with one signature", where, "what `edgekit bundle --sign` or model-signing wrote");
  }
  if (*type != payload_type) refuse_file("a payload of " + in_quotes(*type), where, payload_type);
  Bytes body = base64(*payload, where);
  const std::string said = "DSSEv1 " + std::to_string(type->size()) + " " + *type + " " + std::to_string(body.size()) + " " +
                           std::string(text_of(body));
  if (!Crypto(library).verified(pem, said, base64(*proof, where))) {
    refuse_file("the signature is not by this key, or the signature's file was changed", where,
                "a signature by the key that is asked for");
  }
  return body;
}

/// The digests that were signed, by file.
inline std::map<std::string, std::string> signed_digests(const Json& statement, const std::string& where) {
  const auto says = [&statement](std::initializer_list<const char*> path, const char* wanted) {
    const std::string* found = text_at(&statement, path);
    return found != nullptr && *found == wanted;
  };
  const Json* predicate = statement.find("predicate");
  const Json* rows = predicate == nullptr ? nullptr : predicate->find("resources");
  if (!says({"_type"}, statement_type) || !says({"predicateType"}, predicate_type) ||
      !says({"predicate", "serialization", "method"}, "files") ||
      !says({"predicate", "serialization", "hash_type"}, "sha256") || rows == nullptr || rows->list() == nullptr) {
    refuse_file("a statement of another kind", where, std::string(predicate_type) + ", SHA-256 of whole files");
  }
  std::map<std::string, std::string> digests;
  for (const Json& row : *rows->list()) {
    const std::string *name = text_at(&row, {"name"}), *how = text_at(&row, {"algorithm"}), *digest = text_at(&row, {"digest"});
    const bool whole = name != nullptr && how != nullptr && *how == "sha256" && digest != nullptr;
    if (!whole || !digests.emplace(*name, *digest).second) {
      refuse_file("the entry " + row.shown(), where, "a name that stands there once, sha256 and its digest");
    }
  }
  return digests;
}

/// Refuse a bundle whose files are not those that the owner of a key signed. Digests are compared with the signed ones here;
/// that files have these digests is checked as they are read.
inline void check_signature(const std::map<std::string, std::string>& actual, const std::string& pem,
                            const std::filesystem::path& path, const std::string& library) {
  const std::string where = path.string();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    refuse_bundle("no signature", shown(where), "a signed bundle, where a key is given",
                  "get the .sig from where the bundle was made; `edgekit bundle --sign KEY` writes it");
  }
  const auto file = std::make_shared<const File>(path, true, where);
  if (!file->status().regular) refuse_file("not a regular file", where, "a regular file");
  const std::uint64_t size = std::min<std::uint64_t>(file->size(), max_json_bytes + 1);
  const Bytes data = read_slice({file, 0, size}, size, where);
  const Bytes payload = signed_payload(parse_json(text_of(data), where), pem, library, where);
  const auto listed = signed_digests(parse_json(text_of(payload), "payload of " + where), where);
  std::set<std::string> names;
  for (const auto& [name, digest] : listed) names.insert(name);
  for (const auto& [name, digest] : actual) names.insert(name);
  for (const std::string& name : names) {
    const auto one = listed.find(name), other = actual.find(name);
    if (one != listed.end() && other != actual.end() && one->second == other->second) continue;
    const char* problem = other == actual.end() ? " is signed and missing"
                          : one == listed.end() ? " is not signed"
                                                : " changed after it was signed";
    refuse_file(name + problem, where, "the files that were signed, and no others");
  }
}

}  // namespace edgekit::detail
