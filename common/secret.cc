#include "common/secret.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <cerrno>

#include "absl/strings/escaping.h"
#include "common/check.h"

namespace autosp {
namespace {

constexpr size_t kSecretBytes = 32;

}  // namespace

std::string RandomSecret() {
  std::string bytes(kSecretBytes, '\0');
  ssize_t count;
  do {
    count = getrandom(bytes.data(), bytes.size(), 0);
  } while (count < 0 && errno == EINTR);
  // Reads of up to 256 bytes are never cut short once the pool is ready.
  AUTOSP_CHECK(count == static_cast<ssize_t>(bytes.size()), "getrandom gave ", count);
  return absl::BytesToHexString(bytes);
}

std::string HmacSha256Hex(absl::string_view key, absl::string_view message) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
  AUTOSP_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes, message.size(),
                    digest, &size) != nullptr);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}

}  // namespace autosp
