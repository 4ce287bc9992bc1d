#include "compiler/import/zip_archive.h"

#include <zip.h>
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/import_limits.h"
#include "compiler/import/zip_directory.h"

namespace autosp {
namespace {

// Bombs are deflated far beyond what text reaches, or let many entries share the same bytes.
absl::Status CheckInflation(const std::vector<ZipEntry>& entries) {
  std::vector<const ZipEntry*> by_offset;
  for (const ZipEntry& entry : entries) {
    if (entry.name.size() > kMaxNameBytes) {
      return ResourceExhausted("an entry has a name of ", entry.name.size(), " bytes, at most ",
                               kMaxNameBytes, " are read");
    }
    if (!entry.is_stored &&
        entry.size_bytes / kMaxInflationRatio > std::max<int64_t>(entry.compressed_bytes, 1)) {
      return ResourceExhausted("entry ", entry.name, " inflates ", entry.compressed_bytes,
                               " bytes to ", entry.size_bytes, ", at most a factor of ",
                               kMaxInflationRatio, " is read; save the archive uncompressed");
    }
    by_offset.push_back(&entry);
  }
  std::ranges::sort(by_offset, {}, &ZipEntry::data_offset);
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const ZipEntry& before = *by_offset[i - 1];
    if (before.data_offset + before.compressed_bytes > by_offset[i]->data_offset) {
      return DataLoss("entries ", before.name, " and ", by_offset[i]->name,
                      " overlap, so the archive is damaged or forged");
    }
  }
  return absl::OkStatus();
}

std::string LibzipMessage(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string message = zip_error_strerror(&error);
  zip_error_fini(&error);
  return message;
}

}  // namespace

void ZipArchive::Closer::operator()(zip* archive) const { zip_discard(archive); }

absl::StatusOr<ZipArchive> ZipArchive::Open(absl::Span<const std::byte> bytes) {
  ZipArchive archive;
  archive.bytes_ = bytes;
  ASSIGN_OR_RETURN(archive.entries_, ReadZipDirectory(bytes));
  RETURN_IF_ERROR(CheckInflation(archive.entries_));
  for (size_t i = 0; i < archive.entries_.size(); ++i) {
    if (!archive.index_by_name_.emplace(archive.entries_[i].name, i).second) {
      return DataLoss("the archive has two entries named ", archive.entries_[i].name);
    }
  }
  RETURN_IF_ERROR(archive.OpenWithLibzip());
  return archive;
}

absl::Status ZipArchive::OpenWithLibzip() {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes_.data(), bytes_.size(), 0, &error);
  zip* archive = source == nullptr ? nullptr : zip_open_from_source(source, ZIP_RDONLY, &error);
  const std::string message = archive == nullptr ? zip_error_strerror(&error) : "";
  zip_error_fini(&error);
  if (archive == nullptr) {
    // On success the archive owns the source.
    if (source != nullptr) zip_source_free(source);
    return DataLoss("not a readable zip archive: ", message);
  }
  archive_.reset(archive);
  // Both readers must see the same directory, or a name could mean two things.
  const bool is_same = zip_get_num_entries(archive, 0) == static_cast<int64_t>(entries_.size());
  for (size_t i = 0; is_same && i < entries_.size(); ++i) {
    const char* name = zip_get_name(archive, i, ZIP_FL_ENC_RAW);
    if (name == nullptr || name != entries_[i].name)
      return DataLoss("the zip directory is damaged");
  }
  return is_same ? absl::OkStatus() : DataLoss("the zip directory is damaged");
}

const ZipEntry* ZipArchive::Find(std::string_view name) const {
  const auto found = index_by_name_.find(std::string(name));
  return found == index_by_name_.end() ? nullptr : &entries_[found->second];
}

absl::StatusOr<std::string> ZipArchive::Read(const ZipEntry& entry, int64_t max_bytes) const {
  if (entry.size_bytes > max_bytes) {
    return ResourceExhausted(entry.name, " has ", entry.size_bytes, " bytes, at most ", max_bytes,
                             " are read");
  }
  zip_file_t* file = zip_fopen_index(archive_.get(), index_by_name_.at(entry.name), 0);
  if (file == nullptr) {
    return DataLoss("cannot read ", entry.name, ": ",
                    zip_error_strerror(zip_get_error(archive_.get())));
  }
  std::string content(entry.size_bytes, '\0');
  const int64_t num_read = zip_fread(file, content.data(), content.size());
  // The sum is checked when the end is reached, which takes a read past it.
  char past_end = 0;
  const int64_t num_past_end = zip_fread(file, &past_end, 1);
  const int code = zip_fclose(file);
  if (num_read != entry.size_bytes || num_past_end != 0 || code != 0) {
    return DataLoss(entry.name, " is damaged: ",
                    code != 0 ? LibzipMessage(code) : "its checksum or size is wrong",
                    "; copy or save the file again");
  }
  return content;
}

absl::Status ZipArchive::VerifyChecksum(const ZipEntry& entry) const {
  const auto data = bytes_.subspan(entry.data_offset, entry.compressed_bytes);
  const uLong sum =
      crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(data.data()), data.size());
  if (sum == entry.crc32) return absl::OkStatus();
  return DataLoss(entry.name, " is damaged: its checksum is wrong; copy or save the file again");
}

}  // namespace autosp
