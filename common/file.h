// Files: whole reads with a limit, atomic writes, folders. Every error names the path and what the
// system said.

#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// Owns a file descriptor. Thread-compatible.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Reset(); }

  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

  // Gives the descriptor away; the caller closes it.
  int Release() { return std::exchange(fd_, -1); }

  // Closes what it holds, then holds `fd`.
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Opens for reading, not inherited by child processes. Does not wait for the writer of a named
// pipe.
absl::StatusOr<UniqueFd> OpenForReading(const std::string& path);

// INVALID_ARGUMENT for what is a folder, a device or a pipe; `fd` is `path`, open.
absl::Status CheckRegularFile(int fd, const std::string& path);

// Reads a whole regular file. More than `max_bytes` is an error, found before anything is read
// where the size is known, so that a wrong path cannot fill the memory.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

// Writes all of `data` to an open descriptor, however many calls that takes.
absl::Status WriteAll(int fd, absl::string_view data, absl::string_view path);

// Replaces `path` with `data`, whole or not at all, also across a power cut: a temporary file
// beside it, fsync, rename, fsync of the folder. On an error the old file is as it was.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view data);

// Whether files can be written into `folder`, which is tried: permissions do not tell, since the
// disk may be full or read-only. Leaves nothing behind, not even when the process is killed.
absl::Status CheckWritable(const std::string& folder);

// Makes `path` durable after its parts were written: fsync of a file or a folder.
absl::Status SyncPath(const std::string& path);

// Creates `path` and what is missing above it. An existing folder is fine; an existing file is not.
absl::Status MakeDirectories(const std::string& path);

bool FileExists(const std::string& path);
absl::StatusOr<int64_t> FileSize(const std::string& path);

// The names in a folder, sorted.
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path);

// Removes a file; a missing one is fine.
absl::Status RemoveFile(const std::string& path);

// Removes a file, or a folder with all that is in it; a missing one is fine.
absl::Status RemoveTree(const std::string& path);

// Gives `from` the name `to`, and takes it from a file or an empty folder that has it.
absl::Status RenamePath(const std::string& from, const std::string& to);

// Gives `from` the name `to`, and what had that name, if anything, the name `aside`; at once where
// the file system can exchange names. Requires: nothing is at `aside`.
absl::Status RenameOver(const std::string& from, const std::string& to, const std::string& aside);

// Bytes that an ordinary user may still write to the file system of `path`.
absl::StatusOr<int64_t> FreeDiskBytes(const std::string& path);

// "a/b" and "c" give "a/b/c"; an absolute second part wins, as in a shell.
std::string JoinPath(absl::string_view folder, absl::string_view name);

}  // namespace autosp
