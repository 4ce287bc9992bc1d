#include "compiler/import/zip_directory.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/import_limits.h"

namespace autosp {
namespace {

// Field numbers and signatures are those of the zip specification (APPNOTE.TXT 4.3).
constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kEnd64LocatorSignature = 0x07064b50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kEnd64Bytes = 56;
constexpr uint64_t kEnd64LocatorBytes = 20;
constexpr uint64_t kMaxCommentBytes = 0xffff;
constexpr uint16_t kZip64ExtraId = 1;
constexpr uint32_t kInZip64Extra = 0xffffffff;

absl::Status Damaged(const char* what) {
  return DataLoss("the zip directory is damaged: ", what, "; copy or save the file again");
}

class DirectoryReader {
 public:
  explicit DirectoryReader(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  absl::StatusOr<std::vector<ZipEntry>> Read() {
    RETURN_IF_ERROR(FindDirectory());
    if (num_entries_ > static_cast<uint64_t>(kMaxArchiveEntries)) {
      return ResourceExhausted("the archive has ", num_entries_, " entries, at most ",
                               kMaxArchiveEntries, " are read");
    }
    std::vector<ZipEntry> entries;
    uint64_t position = directory_offset_;
    for (uint64_t i = 0; i < num_entries_; ++i) {
      ASSIGN_OR_RETURN(ZipEntry entry, ReadEntry(&position));
      entries.push_back(std::move(entry));
    }
    return entries;
  }

 private:
  bool Has(uint64_t offset, uint64_t length) const {
    return offset <= bytes_.size() && length <= bytes_.size() - offset;
  }

  // Requires: Has(offset, size).
  uint64_t Number(uint64_t offset, int size) const {
    uint64_t value = 0;
    for (int i = size; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes_[offset + i]);
    return value;
  }
  uint16_t U16(uint64_t offset) const { return static_cast<uint16_t>(Number(offset, 2)); }
  uint32_t U32(uint64_t offset) const { return static_cast<uint32_t>(Number(offset, 4)); }
  uint64_t U64(uint64_t offset) const { return Number(offset, 8); }

  absl::Status FindDirectory() {
    if (bytes_.size() < kEndBytes) return Damaged("the file is too short");
    const uint64_t last = bytes_.size() - kEndBytes;
    const uint64_t first = last - std::min(last, kMaxCommentBytes);
    for (uint64_t end = last + 1; end-- > first;) {
      if (U32(end) != kEndSignature || end + kEndBytes + U16(end + 20) != bytes_.size()) continue;
      num_entries_ = U16(end + 10);
      directory_offset_ = U32(end + 16);
      return end >= kEnd64LocatorBytes ? FindDirectory64(end - kEnd64LocatorBytes)
                                       : absl::OkStatus();
    }
    return Damaged("the end record is missing, so the file is truncated or no zip");
  }

  absl::Status FindDirectory64(uint64_t locator) {
    if (U32(locator) != kEnd64LocatorSignature) return absl::OkStatus();
    const uint64_t end64 = U64(locator + 8);
    if (!Has(end64, kEnd64Bytes) || U32(end64) != kEnd64Signature) {
      return Damaged("the 64 bit end record is missing");
    }
    num_entries_ = U64(end64 + 32);
    directory_offset_ = U64(end64 + 48);
    return absl::OkStatus();
  }

  absl::StatusOr<ZipEntry> ReadEntry(uint64_t* position) const {
    const uint64_t at = *position;
    if (!Has(at, kCentralBytes) || U32(at) != kCentralSignature) {
      return Damaged("an entry of the directory is missing");
    }
    const uint64_t name_length = U16(at + 28);
    const uint64_t extra_length = U16(at + 30);
    const uint64_t comment_length = U16(at + 32);
    if (!Has(at + kCentralBytes, name_length + extra_length + comment_length)) {
      return Damaged("an entry of the directory is cut short");
    }
    if (U16(at + 8) & 1) return InvalidArgument("the archive is encrypted; save it unencrypted");
    ZipEntry entry;
    entry.name.assign(reinterpret_cast<const char*>(bytes_.data()) + at + kCentralBytes,
                      name_length);
    entry.is_stored = U16(at + 10) == 0;
    entry.crc32 = U32(at + 16);
    uint64_t compressed = U32(at + 20);
    uint64_t size = U32(at + 24);
    uint64_t local = U32(at + 42);
    RETURN_IF_ERROR(ReadZip64Extra(at + kCentralBytes + name_length, extra_length,
                                   {&size, &compressed, &local}));
    *position = at + kCentralBytes + name_length + extra_length + comment_length;
    RETURN_IF_ERROR(Locate(local, size, compressed, &entry));
    return entry;
  }

  // Replaces the fields that do not fit 32 bits by those of the extra block, which holds only them.
  absl::Status ReadZip64Extra(uint64_t at, uint64_t length,
                              const std::vector<uint64_t*>& fields) const {
    const uint64_t end = at + length;
    while (at + 4 <= end) {
      const uint16_t id = U16(at);
      const uint64_t block_end = at + 4 + U16(at + 2);
      if (block_end > end) return absl::OkStatus();  // padding that is no block
      at += 4;
      for (uint64_t* field : fields) {
        if (id != kZip64ExtraId || *field != kInZip64Extra || at + 8 > block_end) continue;
        *field = U64(at);
        at += 8;
      }
      at = block_end;
    }
    return absl::OkStatus();
  }

  absl::Status Locate(uint64_t local, uint64_t size, uint64_t compressed, ZipEntry* entry) const {
    if (!Has(local, kLocalBytes) || U32(local) != kLocalSignature) {
      return Damaged("the header of an entry is missing");
    }
    const uint64_t data = local + kLocalBytes + U16(local + 26) + U16(local + 28);
    if (!Has(data, compressed)) return Damaged("the bytes of an entry lie outside the file");
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Damaged("an entry is too large");
    }
    if (entry->is_stored && size != compressed) return Damaged("a stored entry has two sizes");
    entry->data_offset = static_cast<int64_t>(data);
    entry->size_bytes = static_cast<int64_t>(size);
    entry->compressed_bytes = static_cast<int64_t>(compressed);
    return absl::OkStatus();
  }

  absl::Span<const std::byte> bytes_;
  uint64_t num_entries_ = 0;
  uint64_t directory_offset_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<ZipEntry>> ReadZipDirectory(absl::Span<const std::byte> bytes) {
  return DirectoryReader(bytes).Read();
}

}  // namespace autosp
