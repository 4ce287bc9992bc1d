#include "common/ids.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "common/check.h"
#include "common/errors.h"

namespace autosp {
namespace {

constexpr size_t kRandomDigits = 12;
constexpr absl::string_view kDigits = "0123456789abcdefghjkmnpqrstvwxyz";  // Crockford's base 32.
static_assert(kDigits.size() == 32);

bool IsIdChar(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; }

}  // namespace

absl::Status CheckId(absl::string_view kind, absl::string_view text) {
  if (text.empty()) return InvalidArgument(kind, " is empty");
  if (text.size() > kMaxIdLength) {
    return InvalidArgument(kind, " has ", text.size(), " characters; at most ", kMaxIdLength,
                           " are allowed");
  }
  if (!absl::ascii_isalnum(text[0]) || !std::all_of(text.begin(), text.end(), IsIdChar)) {
    return InvalidArgument(kind, " (", absl::CHexEscape(text),
                           ") may have only letters, digits, '-', '_' and '.', and starts with a "
                           "letter or a digit");
  }
  return absl::OkStatus();
}

std::string RandomId(absl::string_view prefix) {
  std::array<unsigned char, kRandomDigits> bytes;
  ssize_t count;
  do {
    count = getrandom(bytes.data(), bytes.size(), 0);
  } while (count < 0 && errno == EINTR);
  // Reads of up to 256 bytes are never cut short once the pool is ready.
  AUTOSP_CHECK(count == static_cast<ssize_t>(bytes.size()), "getrandom gave ", count);
  std::string id = absl::StrCat(prefix, "-");
  for (const unsigned char byte : bytes) id.push_back(kDigits[byte % kDigits.size()]);
  return id;
}

}  // namespace autosp
