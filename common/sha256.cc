#include "common/sha256.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr size_t kHexDigits = 64;
constexpr size_t kFileChunkBytes = size_t{1} << 20;

}  // namespace

struct Sha256::Context {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> evp{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  AUTOSP_CHECK(EVP_DigestInit_ex(context_->evp.get(), EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(absl::string_view data) {
  AUTOSP_CHECK(EVP_DigestUpdate(context_->evp.get(), data.data(), data.size()) == 1);
}

std::string Sha256::Finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  AUTOSP_CHECK(EVP_DigestFinal_ex(context_->evp.get(), digest, &size) == 1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}

std::string Sha256Hex(absl::string_view data) {
  Sha256 sha256;
  sha256.Update(data);
  return sha256.Finish();
}

absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path) {
  return Sha256HexOfFile(path, [](int64_t /*num_bytes*/) { return absl::OkStatus(); });
}

absl::StatusOr<std::string> Sha256HexOfFile(
    const std::string& path, absl::FunctionRef<absl::Status(int64_t num_bytes)> on_piece) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(path));
  // A named pipe without a writer would look like an empty file.
  RETURN_IF_ERROR(CheckRegularFile(fd.get(), path));
  Sha256 sha256;
  std::vector<char> chunk(kFileChunkBytes);
  while (true) {
    const ssize_t count = read(fd.get(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoError(errno, absl::StrCat("cannot read ", path));
    if (count == 0) return sha256.Finish();
    sha256.Update(absl::string_view(chunk.data(), static_cast<size_t>(count)));
    RETURN_IF_ERROR(on_piece(count));
  }
}

bool IsSha256Hex(absl::string_view text) {
  return text.size() == kHexDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace autosp
