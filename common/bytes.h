// Amounts of bytes as people write them: "16GiB", "1.5 MB", "4096".

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// Units are B, kB MB GB TB PB (powers of 1000) and KiB MiB GiB TiB PiB (powers of 1024); a bare
// number is bytes. A fraction is rounded to the nearest byte. "16G" is refused: it is read both
// ways.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// For people, three digits: "1.50 GiB", "12.3 MiB", "512 B".
std::string FormatBytes(int64_t bytes);

// For files: the largest unit that loses nothing, so ParseBytes gives the same number back:
// "16GiB", "1536MiB", "5GB", "1001B".
std::string FormatBytesExactly(int64_t bytes);

}  // namespace autosp
