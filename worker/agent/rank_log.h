// The log of one rank: what its process writes to stdout and stderr.

#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/file.h"

namespace autosp::agent {

// Keeps the last lines in memory, for the report of how a rank ended, and everything in a file. A
// file that is full becomes "<path>.1", replacing an older one, so a rank that never stops talking
// fills no disk. A disk that takes no more loses lines, never the rank, and one that stalls holds
// up whoever appends, never whoever reads the tail. Thread-safe.
class RankLog {
 public:
  RankLog(std::string path, int64_t max_file_bytes)
      : path_(std::move(path)), max_file_bytes_(max_file_bytes) {}

  void Append(absl::string_view data);

  // The last `count` lines, oldest first, an unfinished one included; each valid UTF-8 and at most
  // kMaxTailLineBytes long.
  std::vector<std::string> Tail(size_t count) const;

  const std::string& path() const { return path_; }

 private:
  void AppendToTail(absl::string_view data);  // Requires: mutex_ is held.
  // Require: file_mutex_ is held.
  void AppendToFile(absl::string_view data);
  bool OpenFile();

  const std::string path_;
  const int64_t max_file_bytes_;

  std::mutex file_mutex_;  // Guards the file.
  UniqueFd file_;
  int64_t file_bytes_ = 0;
  bool has_failed_ = false;

  mutable std::mutex mutex_;  // Guards the tail.
  std::deque<std::string> lines_;
  std::string unfinished_;
};

// Replaces what is not UTF-8 or not printable by '?'; protobuf strings hold nothing else.
std::string ToPrintable(absl::string_view line);

}  // namespace autosp::agent
