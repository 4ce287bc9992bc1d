// Secrets that programs share, and proofs that one knows them.

#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace autosp {

// 256 random bits as 64 lower case hex digits, which nobody guesses. Thread-safe.
std::string RandomSecret();

// HMAC-SHA-256, 64 lower case hex digits: shows that its maker knows `key`, without saying it.
std::string HmacSha256Hex(absl::string_view key, absl::string_view message);

}  // namespace autosp
