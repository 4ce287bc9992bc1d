#include "worker/agent/rank_log.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {
namespace {

// Length of the UTF-8 sequence at the start of `text`; 0 when it is none.
size_t SequenceLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  if (byte(0) < 0x80) return 1;
  if (byte(0) >= 0xC2 && byte(0) <= 0xDF) return continues(1) ? 2 : 0;
  if (byte(0) >= 0xE0 && byte(0) <= 0xEF && continues(1) && continues(2)) {
    const bool is_overlong = byte(0) == 0xE0 && byte(1) < 0xA0;
    const bool is_surrogate = byte(0) == 0xED && byte(1) >= 0xA0;
    return is_overlong || is_surrogate ? 0 : 3;
  }
  if (byte(0) >= 0xF0 && byte(0) <= 0xF4 && continues(1) && continues(2) && continues(3)) {
    const bool is_overlong = byte(0) == 0xF0 && byte(1) < 0x90;
    const bool is_too_large = byte(0) == 0xF4 && byte(1) >= 0x90;
    return is_overlong || is_too_large ? 0 : 4;
  }
  return 0;
}

}  // namespace

std::string ToPrintable(absl::string_view line) {
  std::string result;
  while (!line.empty()) {
    const size_t length = SequenceLength(line);
    const bool is_control = (line[0] >= 0 && line[0] < ' ' && line[0] != '\t') || line[0] == 0x7F;
    if (length == 0 || is_control) {
      result.push_back('?');
      line.remove_prefix(1);
    } else {
      absl::StrAppend(&result, line.substr(0, length));
      line.remove_prefix(length);
    }
  }
  return result;
}

void RankLog::Append(absl::string_view data) {
  {
    const std::lock_guard lock(mutex_);
    AppendToTail(data);
  }
  // Not under the tail's lock, which the agent's loop takes: a write may wait for the disk.
  const std::lock_guard lock(file_mutex_);
  AppendToFile(data);
}

std::vector<std::string> RankLog::Tail(size_t count) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> tail;
  for (const std::string& line : lines_) tail.push_back(ToPrintable(line));
  if (!unfinished_.empty()) tail.push_back(ToPrintable(unfinished_));
  if (tail.size() > count) tail.erase(tail.begin(), tail.end() - static_cast<ptrdiff_t>(count));
  return tail;
}

void RankLog::AppendToTail(absl::string_view data) {
  while (!data.empty()) {
    const size_t end = data.find('\n');
    const absl::string_view part = data.substr(0, end);
    // The beginning of a long line says more than its end.
    const size_t room = kMaxTailLineBytes - std::min(unfinished_.size(), kMaxTailLineBytes);
    absl::StrAppend(&unfinished_, part.substr(0, room));
    if (end == absl::string_view::npos) return;
    lines_.push_back(std::exchange(unfinished_, std::string()));
    if (lines_.size() > kNumTailLines) lines_.pop_front();
    data.remove_prefix(end + 1);
  }
}

bool RankLog::OpenFile() {
  file_.Reset(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  file_bytes_ = 0;
  return file_.is_open();
}

void RankLog::AppendToFile(absl::string_view data) {
  if (has_failed_) return;
  bool is_open = file_.is_open() || OpenFile();
  if (is_open && file_bytes_ > 0 &&
      file_bytes_ + static_cast<int64_t>(data.size()) > max_file_bytes_) {
    std::rename(path_.c_str(), absl::StrCat(path_, ".1").c_str());
    is_open = OpenFile();
  }
  const absl::Status status = is_open ? WriteAll(file_.get(), data, path_)
                                      : absl::UnavailableError(absl::StrCat("cannot open ", path_));
  file_bytes_ += static_cast<int64_t>(data.size());
  if (status.ok()) return;
  // Once: the next line would most likely fail as well, and the rank may write many.
  LogError("the rest of a rank's log is lost: ", status.message());
  has_failed_ = true;
}

}  // namespace autosp::agent
