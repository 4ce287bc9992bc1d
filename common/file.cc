#include "common/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr size_t kReadChunkBytes = size_t{1} << 20;
constexpr size_t kProbeBytes = 4096;

absl::Status PathError(absl::string_view verb, absl::string_view path) {
  return ErrnoError(errno, absl::StrCat("cannot ", verb, " ", path));
}

std::string FolderOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::StatusOr<struct stat> StatRegularFile(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return PathError("read", path);
  if (!S_ISREG(info.st_mode)) return InvalidArgument("cannot read ", path, ": not a regular file");
  return info;
}

absl::Status CheckReadable(int fd, const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const struct stat info, StatRegularFile(fd, path));
  if (info.st_size > max_bytes) {
    return ResourceExhausted("cannot read ", path, ": it has ", info.st_size,
                             " bytes; the limit is ", max_bytes);
  }
  return absl::OkStatus();
}

// Removes the temporary file unless the rename has taken it.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

// It has no name that a crash could leave. Where the file system knows no such files, the name is
// taken away at once.
absl::StatusOr<UniqueFd> OpenUnnamed(const std::string& folder) {
  UniqueFd fd(open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  if (fd.is_open()) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR) return PathError("write into", folder);
  std::string name = JoinPath(folder, ".probe.XXXXXX");
  fd.Reset(mkostemp(name.data(), O_CLOEXEC));
  if (!fd.is_open()) return PathError("write into", folder);
  unlink(name.c_str());
  return fd;
}

}  // namespace

void UniqueFd::Reset(int fd) {
  // close() is not retried on EINTR: Linux has freed the number by then.
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

absl::StatusOr<UniqueFd> OpenForReading(const std::string& path) {
  // Without O_NONBLOCK the open of a named pipe waits until somebody writes to it, perhaps for
  // ever.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.is_open()) return PathError("open", path);
  return fd;
}

absl::Status CheckRegularFile(int fd, const std::string& path) {
  return StatRegularFile(fd, path).status();
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(path));
  RETURN_IF_ERROR(CheckReadable(fd.get(), path, max_bytes));
  std::string data;
  size_t size = 0;
  while (true) {
    // Files under /proc say that they have no bytes, so the end is where read() gives none.
    data.resize(size + kReadChunkBytes);
    const ssize_t count = read(fd.get(), data.data() + size, kReadChunkBytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return PathError("read", path);
    size += static_cast<size_t>(count);
    if (static_cast<int64_t>(size) > max_bytes) {
      return ResourceExhausted("cannot read ", path, ": it grew past the limit of ", max_bytes,
                               " bytes");
    }
    if (count == 0) break;
  }
  data.resize(size);
  return data;
}

absl::Status WriteAll(int fd, absl::string_view data, absl::string_view path) {
  while (!data.empty()) {
    const ssize_t count = write(fd, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return PathError("write", path);
    data.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view data) {
  std::string name = absl::StrCat(path, ".tmp.XXXXXX");
  UniqueFd fd(mkostemp(name.data(), O_CLOEXEC));
  if (!fd.is_open()) return PathError("write", path);
  TemporaryFile temporary(name);
  // mkostemp gives 0600; other users of a shared folder read these files too.
  if (fchmod(fd.get(), 0644) != 0) return PathError("write", path);
  RETURN_IF_ERROR(WriteAll(fd.get(), data, path));
  if (fsync(fd.get()) != 0) return PathError("write", path);
  // Some file systems report a full disk only here.
  if (close(fd.Release()) != 0) return PathError("write", path);
  if (rename(name.c_str(), path.c_str()) != 0) return PathError("write", path);
  temporary.Keep();
  return SyncPath(FolderOf(path));
}

absl::Status CheckWritable(const std::string& folder) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenUnnamed(folder));
  RETURN_IF_ERROR(WriteAll(fd.get(), std::string(kProbeBytes, 'x'), folder));
  // As in WriteFileAtomically, a full disk may show late.
  if (fsync(fd.get()) != 0) return PathError("write into", folder);
  if (close(fd.Release()) != 0) return PathError("write into", folder);
  return absl::OkStatus();
}

absl::Status SyncPath(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(path));
  if (fsync(fd.get()) != 0) return PathError("sync", path);
  return absl::OkStatus();
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), absl::StrCat("cannot create folder ", path));
  return absl::OkStatus();
}

bool FileExists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return PathError("read the size of", path);
  if (!S_ISREG(info.st_mode)) return InvalidArgument(path, " is not a regular file");
  return static_cast<int64_t>(info.st_size);
}

absl::Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return PathError("remove", path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return ErrnoError(error.value(), absl::StrCat("cannot list ", path));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoError(error.value(), absl::StrCat("cannot remove ", path));
  return absl::OkStatus();
}

absl::Status RenamePath(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("cannot rename ", from, " to ", to));
}

absl::Status RenameOver(const std::string& from, const std::string& to, const std::string& aside) {
  if (!FileExists(to)) return RenamePath(from, to);
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    return RenamePath(from, aside);
  }
  RETURN_IF_ERROR(RenamePath(to, aside));
  return RenamePath(from, to);
}

absl::StatusOr<int64_t> FreeDiskBytes(const std::string& path) {
  struct statvfs info;
  if (statvfs(path.c_str(), &info) != 0) return PathError("read the free space of", path);
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

std::string JoinPath(absl::string_view folder, absl::string_view name) {
  return (std::filesystem::path(std::string(folder)) / std::string(name)).string();
}

}  // namespace autosp
