#include "worker/agent/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {
namespace {

constexpr absl::Duration kFollowInterval = absl::Milliseconds(100);

using Sink = std::function<bool(absl::string_view)>;

UniqueFd TryOpen(const std::string& path) {
  return UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

// Number of bytes read at `offset`; 0 at the end.
size_t ReadAt(int fd, int64_t offset, std::vector<char>& buffer) {
  ssize_t count;
  do {
    count = pread(fd, buffer.data(), buffer.size(), offset);
  } while (count < 0 && errno == EINTR);
  return count > 0 ? static_cast<size_t>(count) : 0;
}

// The offset behind the `lines`-th newline from the end, and how many lines are missing because the
// file has fewer. A newline at the very end closes the last line and counts for none.
std::pair<int64_t, int64_t> FindTail(int fd, int64_t lines) {
  struct stat info;
  if (fstat(fd, &info) != 0) return {0, lines};
  std::vector<char> buffer(kLogChunkBytes);
  int64_t end = info.st_size;
  while (end > 0) {
    const int64_t begin = std::max<int64_t>(0, end - static_cast<int64_t>(kLogChunkBytes));
    buffer.resize(static_cast<size_t>(end - begin));
    const auto size = static_cast<int64_t>(ReadAt(fd, begin, buffer));
    for (int64_t i = size - 1; i >= 0; --i) {
      if (buffer[static_cast<size_t>(i)] != '\n' || begin + i + 1 == info.st_size) continue;
      if (--lines == 0) return {begin + i + 1, 0};
    }
    end = begin;
  }
  return {0, info.st_size > 0 ? lines - 1 : lines};
}

bool IsSameFile(int fd, const std::string& path) {
  struct stat open_info, path_info;
  return fstat(fd, &open_info) == 0 && stat(path.c_str(), &path_info) == 0 &&
         open_info.st_ino == path_info.st_ino && open_info.st_dev == path_info.st_dev;
}

// False when the sink has had enough.
bool CopyToEnd(int fd, int64_t& offset, const Sink& sink) {
  std::vector<char> buffer(kLogChunkBytes);
  while (const size_t count = ReadAt(fd, offset, buffer)) {
    if (!sink({buffer.data(), count})) return false;
    offset += static_cast<int64_t>(count);
  }
  return true;
}

}  // namespace

absl::Status ReadRankLog(const std::string& path, const LogReadOptions& options, const Sink& sink) {
  UniqueFd current = TryOpen(path);
  UniqueFd previous = TryOpen(absl::StrCat(path, ".1"));
  if (!current.is_open() && !previous.is_open()) {
    return NotFound("there is no log at ", path, " on this node");
  }
  int64_t offset = 0;
  int64_t previous_offset = 0;
  if (options.tail_lines > 0) {
    int64_t missing = options.tail_lines;
    if (current.is_open()) std::tie(offset, missing) = FindTail(current.get(), missing);
    if (missing == 0) {
      previous.Reset();
    } else if (previous.is_open()) {
      previous_offset = FindTail(previous.get(), missing).first;
    }
  }
  if (previous.is_open() && !CopyToEnd(previous.get(), previous_offset, sink)) {
    return absl::OkStatus();
  }
  while (true) {
    // Asked before the last read: what was written before the end is then in the file.
    const bool is_growing = options.is_growing && options.is_growing();
    if (current.is_open() && !CopyToEnd(current.get(), offset, sink)) return absl::OkStatus();
    if (current.is_open() && !IsSameFile(current.get(), path)) {
      // Rotated. The old file is read to its end now that the new one exists.
      if (!CopyToEnd(current.get(), offset, sink)) return absl::OkStatus();
      current.Reset();
    }
    if (!current.is_open()) {
      current = TryOpen(path);
      offset = 0;
      if (current.is_open()) continue;
    }
    if (!is_growing || (options.is_cancelled && options.is_cancelled())) return absl::OkStatus();
    Clock::Real().Sleep(kFollowInterval);
  }
}

}  // namespace autosp::agent
