// The central directory of a zip archive: names, sizes and where the bytes lie.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/import/zip_archive.h"

namespace autosp {

// Entries in the order of the directory. Every entry's bytes lie inside the archive.
absl::StatusOr<std::vector<ZipEntry>> ReadZipDirectory(absl::Span<const std::byte> bytes);

}  // namespace autosp
