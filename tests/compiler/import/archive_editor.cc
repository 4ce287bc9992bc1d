#include "tests/compiler/import/archive_editor.h"

#include <zlib.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "compiler/import/zip_archive.h"

namespace autosp {
namespace {

void PutNumber(uint64_t value, int size, std::string* out) {
  for (int i = 0; i < size; ++i) *out += static_cast<char>(value >> (8 * i));
}

std::string Deflate(const std::string& content) {
  z_stream stream = {};
  AUTOSP_CHECK(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = content.size();
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = out.size();
  AUTOSP_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// The fields that the local header and the directory share, from "version needed" on.
std::string CommonFields(const ArchiveEntry& entry, size_t compressed_size) {
  std::string out;
  PutNumber(20, 2, &out);
  PutNumber(entry.is_encrypted ? 1 : 0, 2, &out);
  PutNumber(entry.is_deflated ? 8 : 0, 2, &out);
  PutNumber(0, 4, &out);
  const auto* data = reinterpret_cast<const Bytef*>(entry.content.data());
  PutNumber(crc32_z(crc32_z(0, nullptr, 0), data, entry.content.size()), 4, &out);
  PutNumber(compressed_size, 4, &out);
  PutNumber(entry.claimed_size.value_or(entry.content.size()), 4, &out);
  PutNumber(entry.name.size(), 2, &out);
  PutNumber(0, 2, &out);  // no extra fields
  return out;
}

}  // namespace

ArchiveEditor ArchiveEditor::Read(const std::string& path) {
  const std::string bytes = ReadFileOrDie(path);
  const auto archive = ZipArchive::Open(Bytes(bytes));
  AUTOSP_CHECK(archive.ok(), archive.status().ToString());
  ArchiveEditor editor;
  for (const ZipEntry& entry : archive->entries()) {
    auto content = archive->Read(entry, int64_t{1} << 30);
    AUTOSP_CHECK(content.ok(), content.status().ToString());
    editor.entries_.push_back({entry.name, *std::move(content), false, std::nullopt, false});
  }
  return editor;
}

ArchiveEntry& ArchiveEditor::Find(const std::string& suffix) {
  const auto entry = std::ranges::find_if(
      entries_, [&](const ArchiveEntry& e) { return e.name.ends_with(suffix); });
  AUTOSP_CHECK(entry != entries_.end(), "no entry ", suffix);
  return *entry;
}

void ArchiveEditor::Remove(const std::string& suffix) {
  const std::string name = Find(suffix).name;
  std::erase_if(entries_, [&](const ArchiveEntry& e) { return e.name == name; });
}

void ArchiveEditor::Replace(const std::string& suffix, const std::string& from,
                            const std::string& to) {
  std::string& content = Find(suffix).content;
  const size_t at = content.find(from);
  AUTOSP_CHECK(at != std::string::npos, suffix, " does not contain ", from);
  content.replace(at, from.size(), to);
}

std::string ArchiveEditor::Write() const {
  std::string out;
  std::string directory;
  for (const ArchiveEntry& entry : entries_) {
    const std::string data = entry.is_deflated ? Deflate(entry.content) : entry.content;
    const std::string common = CommonFields(entry, data.size());
    const size_t local_offset = out.size();
    absl::StrAppend(&out, "PK\x03\x04", common, entry.name, data);
    absl::StrAppend(&directory, "PK\x01\x02");
    PutNumber(20, 2, &directory);
    directory += common;
    directory.append(2 + 2 + 2 + 4, '\0');  // no comment, first disk, no attributes
    PutNumber(local_offset, 4, &directory);
    directory += entry.name;
  }
  const size_t directory_offset = out.size();
  absl::StrAppend(&out, directory, "PK\x05\x06");
  PutNumber(0, 4, &out);
  PutNumber(entries_.size(), 2, &out);
  PutNumber(entries_.size(), 2, &out);
  PutNumber(directory.size(), 4, &out);
  PutNumber(directory_offset, 4, &out);
  PutNumber(0, 2, &out);
  return out;
}

std::string CaseArchive(const std::string& name) {
  return absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/compiler/import/archives/", name, ".pt2");
}

std::string ZooArchive(const std::string& name) {
  return absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/zoo/", name, "/model.pt2");
}

std::string ReadFileOrDie(const std::string& path) {
  auto content = ReadFile(path, int64_t{1} << 30);
  AUTOSP_CHECK(content.ok(), content.status().ToString());
  return *std::move(content);
}

}  // namespace autosp
