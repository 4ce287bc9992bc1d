#include "worker/collectives/peer_control.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

constexpr size_t kMaxReasonBytes = 400;

enum class Notice : char { kLeave = 'L', kAbort = 'A', kNews = 'N' };

// On the wire: the kind, the size of the text, the text.
constexpr size_t kNoticeHeaderBytes = 1 + sizeof(uint16_t);

// Signal-safe: no allocation, no lock.
void Send(int fd, Notice notice, absl::string_view text) {
  char bytes[kNoticeHeaderBytes + kMaxReasonBytes];
  const auto length = static_cast<uint16_t>(std::min(text.size(), kMaxReasonBytes));
  bytes[0] = static_cast<char>(notice);
  std::memcpy(bytes + 1, &length, sizeof(length));
  std::memcpy(bytes + kNoticeHeaderBytes, text.data(), length);
  // A notice that does not fit is lost, whole or in part: then the buffer is full of notices, and
  // the peer is not there to read any.
  [[maybe_unused]] const ssize_t ignored =
      send(fd, bytes, kNoticeHeaderBytes + length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

std::string DescribeLoss(int error) {
  if (error == 0 || error == ECONNRESET || error == EPIPE) {
    return "has died: it closed its connection without a word";
  }
  return absl::StrCat("cannot be reached any more: ", std::strerror(error));
}

}  // namespace

PeerControl::PeerControl(UniqueFd fd) : fd_(std::move(fd)) {}

void PeerControl::Read() {
  char buffer[4096];
  while (loss_.empty()) {
    const ssize_t count = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count > 0) {
      received_.append(buffer, static_cast<size_t>(count));
      TakeNotices();
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    // Who leaves closes the connection behind it.
    if (has_left_) return;
    loss_ = DescribeLoss(count == 0 ? 0 : errno);
  }
}

void PeerControl::TakeNotices() {
  absl::string_view rest = received_;
  while (rest.size() >= kNoticeHeaderBytes) {
    uint16_t length;
    std::memcpy(&length, rest.data() + 1, sizeof(length));
    const auto notice = static_cast<Notice>(rest[0]);
    const bool is_known =
        notice == Notice::kLeave || notice == Notice::kAbort || notice == Notice::kNews;
    if (!is_known || length > kMaxReasonBytes) {
      loss_ = "sends what no rank sends";
      return;
    }
    if (rest.size() < kNoticeHeaderBytes + length) break;
    if (notice == Notice::kLeave) has_left_ = true;
    if (notice == Notice::kAbort && !has_aborted_) {
      has_aborted_ = true;
      abort_reason_ = std::string(rest.substr(kNoticeHeaderBytes, length));
    }
    rest.remove_prefix(kNoticeHeaderBytes + length);
  }
  received_ = std::string(rest);
}

void PeerControl::SendLeave() { Send(fd_.get(), Notice::kLeave, ""); }

void PeerControl::SendNews() { Send(fd_.get(), Notice::kNews, ""); }

void PeerControl::SendAbort(absl::string_view reason) { Send(fd_.get(), Notice::kAbort, reason); }

}  // namespace autosp
