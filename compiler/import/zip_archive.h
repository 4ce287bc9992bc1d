// Reads a zip archive that lies in memory (a mapped file or a test's bytes).
//
// libzip inflates and checks sums. What it does not tell is where the bytes of a stored entry lie;
// weights are read there by mapping the file, so the central directory is walked here as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct zip;

namespace autosp {

struct ZipEntry {
  std::string name;
  bool is_stored = false;  // not compressed
  int64_t size_bytes = 0;
  int64_t compressed_bytes = 0;
  int64_t data_offset = 0;  // of the (compressed) bytes, from the start of the archive
  uint32_t crc32 = 0;
};

class ZipArchive {
 public:
  // `bytes` must outlive the archive. Entries that overlap, lie outside the file, or would inflate
  // beyond the limits are refused here, before anything is inflated.
  static absl::StatusOr<ZipArchive> Open(absl::Span<const std::byte> bytes);

  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* Find(std::string_view name) const;

  // The whole content, inflated, its sum checked.
  absl::StatusOr<std::string> Read(const ZipEntry& entry, int64_t max_bytes) const;
  // Checks the sum of a stored entry without copying it.
  absl::Status VerifyChecksum(const ZipEntry& entry) const;

 private:
  struct Closer {
    void operator()(zip* archive) const;
  };

  absl::Status OpenWithLibzip();

  absl::Span<const std::byte> bytes_;
  std::unique_ptr<zip, Closer> archive_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string, size_t> index_by_name_;
};

}  // namespace autosp
