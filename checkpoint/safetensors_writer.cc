#include "checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

absl::StatusOr<SafetensorsHeader> LayOut(const std::vector<TensorSpec>& tensors,
                                         std::map<std::string, std::string> metadata) {
  SafetensorsHeader header{.entries = {}, .metadata = std::move(metadata)};
  for (const TensorSpec& tensor : tensors) {
    const std::optional<int64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.has_value()) return InvalidArgument(tensor.name, ": its size overflows");
    header.entries.push_back({.name = tensor.name,
                              .dtype_name = std::string(SafetensorsDTypeName(tensor.dtype)),
                              .dtype = tensor.dtype,
                              .shape = tensor.shape,
                              .begin = 0,
                              .end = *bytes});
  }
  std::ranges::sort(header.entries, {}, [](const SafetensorsEntry& entry) {
    return std::make_pair(-SizeOf(*entry.dtype), entry.name);
  });
  int64_t next = 0;
  for (size_t i = 0; i < header.entries.size(); ++i) {
    SafetensorsEntry& entry = header.entries[i];
    if (i > 0 && entry.name == header.entries[i - 1].name) {
      return InvalidArgument(entry.name, ": is to be written twice");
    }
    entry.begin = next;
    entry.end += next;
    next = entry.end;
  }
  return header;
}

// Beside the target, hence in the same file system; always the same name, so that what a killed
// process leaves is written over by the next.
std::string PartialPath(const std::string& path) {
  const std::filesystem::path target(path);
  return (target.parent_path() / absl::StrCat(".", target.filename().string(), ".partial"))
      .string();
}

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, const std::vector<TensorSpec>& tensors,
    std::map<std::string, std::string> metadata) {
  SafetensorsWriter writer;
  ASSIGN_OR_RETURN(writer.header_, LayOut(tensors, std::move(metadata)), "weights ", path);
  const std::string json = FormatSafetensorsHeader(writer.header_);
  const auto header_bytes = static_cast<uint64_t>(json.size());
  writer.file_bytes_ = static_cast<int64_t>(sizeof(header_bytes) + json.size()) +
                       (tensors.empty() ? 0 : writer.header_.entries.back().end);
  writer.path_ = path;
  writer.partial_path_ = PartialPath(path);
  writer.fd_.Reset(
      open(writer.partial_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!writer.fd_.is_open()) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("weights ", path, ": create ", writer.partial_path_));
  }
  RETURN_IF_ERROR(writer.Reserve());
  const absl::string_view length(reinterpret_cast<const char*>(&header_bytes),
                                 sizeof(header_bytes));
  RETURN_IF_ERROR(writer.Write(length));
  RETURN_IF_ERROR(writer.Write(json));
  return writer;
}

absl::StatusOr<std::vector<SafetensorsEntry>> SafetensorsWriter::OrderOf(
    const std::vector<TensorSpec>& tensors) {
  ASSIGN_OR_RETURN(SafetensorsHeader header, LayOut(tensors, {}));
  return std::move(header.entries);
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_.is_open()) unlink(partial_path_.c_str());
}

absl::Status SafetensorsWriter::Reserve() {
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(fd_.get(), 0, file_bytes_);
  // A file system without fallocate finds out when it writes.
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return absl::OkStatus();
  const absl::StatusOr<int64_t> free_bytes = FreeDiskBytes(FolderOf(path_));
  const absl::Status cause = absl::ErrnoToStatus(error, "");
  return absl::Status(
      error == ENOSPC ? absl::StatusCode::kResourceExhausted : cause.code(),
      absl::StrCat("weights ", path_, ": needs ", file_bytes_, " bytes, ",
                   free_bytes.ok() ? absl::StrCat(*free_bytes, " are free") : "free space unknown",
                   cause.message(), "; make room or choose another folder"));
}

absl::Status SafetensorsWriter::Append(const std::string& name, absl::Span<const std::byte> bytes) {
  if (num_appended_ == header_.entries.size() || header_.entries[num_appended_].name != name) {
    return absl::InternalError(absl::StrCat("weights ", path_, ": ", name, " is out of order"));
  }
  const SafetensorsEntry& entry = header_.entries[num_appended_];
  const int64_t have = appended_bytes_ + static_cast<int64_t>(bytes.size());
  if (have > entry.num_bytes()) {
    return absl::InternalError(absl::StrCat("weights ", path_, ": ", name, " has ", have,
                                            " bytes instead of ", entry.num_bytes()));
  }
  RETURN_IF_ERROR(Write({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  appended_bytes_ = have;
  if (have == entry.num_bytes()) {
    ++num_appended_;
    appended_bytes_ = 0;
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Write(absl::string_view bytes) {
  digest_.Update(bytes);
  return WriteAll(fd_.get(), bytes, partial_path_);
}

absl::Status SafetensorsWriter::Commit() {
  if (num_appended_ != header_.entries.size()) {
    return absl::InternalError(absl::StrCat("weights ", path_, ": ", num_appended_, " of ",
                                            header_.entries.size(), " tensors were written"));
  }
  RETURN_IF_ERROR(SyncPath(partial_path_));
  if (std::rename(partial_path_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("weights ", path_, ": rename"));
  }
  fd_.Reset();
  sha256_ = digest_.Finish();
  return SyncPath(FolderOf(path_));
}

}  // namespace autosp
