#include "client/partial_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "checkpoint/model_files.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

namespace fs = std::filesystem;

// Without a slash at its end, which would hide the name.
fs::path Normal(const std::string& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

absl::Status CheckOverwritable(const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(path));
  for (const std::string& name : names) {
    std::error_code ignored;
    if (fs::is_directory(JoinPath(path, name), ignored)) {
      return FailedPrecondition(path, " has the folder ", name,
                                ", which --overwrite would remove; name another folder");
    }
  }
  if (FileExists(JoinPath(path, kModelFileName)) || FileExists(JoinPath(path, kModelIndexName))) {
    return absl::OkStatus();
  }
  return FailedPrecondition(path, " has no ", kModelFileName,
                            ", so that --overwrite does not replace it; name another folder");
}

// Whether `fd` is what has the name `path` now.
bool IsAt(int fd, const std::string& path) {
  struct stat opened;
  struct stat named;
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

absl::Status RemoveContent(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(folder));
  for (const std::string& name : names) RETURN_IF_ERROR(RemoveTree(JoinPath(folder, name)));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckReplaceable(const std::string& path, bool overwrite) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return absl::OkStatus();
  if (error) return ErrnoError(error.value(), absl::StrCat("cannot look at ", path));
  if (status.type() != fs::file_type::directory) {
    return AlreadyExists(path, " is no folder; name one that does not exist yet");
  }
  const bool is_empty = fs::is_empty(path, error);
  if (error) return ErrnoError(error.value(), absl::StrCat("cannot list ", path));
  if (is_empty) return absl::OkStatus();
  if (overwrite) return CheckOverwritable(path);
  return AlreadyExists(path,
                       " exists and is not empty; name another folder, or replace it and all that "
                       "is in it with --overwrite");
}

absl::StatusOr<PartialFolder> PartialFolder::Create(const std::string& path) {
  PartialFolder folder;
  const fs::path target = Normal(path);
  folder.target_ = target.string();
  const std::string partial =
      (target.parent_path() / absl::StrCat(".", target.filename().string(), ".partial")).string();
  RETURN_IF_ERROR(MakeDirectories(partial));
  ASSIGN_OR_RETURN(folder.lock_, OpenForReading(partial));
  if (flock(folder.lock_.get(), LOCK_EX | LOCK_NB) != 0 || !IsAt(folder.lock_.get(), partial)) {
    return AlreadyExists("another process is writing ", path, " in ", partial,
                         "; wait for it, or name another folder");
  }
  RETURN_IF_ERROR(RemoveContent(partial));
  folder.partial_ = partial;
  return folder;
}

PartialFolder::~PartialFolder() {
  if (lock_.is_open() && !partial_.empty()) RemoveTree(partial_).IgnoreError();
}

absl::Status PartialFolder::Commit(bool overwrite) {
  RETURN_IF_ERROR(CheckReplaceable(target_, overwrite));
  RETURN_IF_ERROR(SyncPath(partial_));
  std::error_code error;
  const bool replaces = fs::exists(target_, error) && !fs::is_empty(target_, error);
  const std::string aside = absl::StrCat(partial_, ".replaced");
  RETURN_IF_ERROR(RemoveTree(aside));
  RETURN_IF_ERROR(replaces ? RenameOver(partial_, target_, aside) : RenamePath(partial_, target_));
  lock_.Reset();
  RETURN_IF_ERROR(SyncPath(fs::path(target_).parent_path().string()));
  return replaces ? RemoveTree(aside) : absl::OkStatus();
}

}  // namespace autosp
