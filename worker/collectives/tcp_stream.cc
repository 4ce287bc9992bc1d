#include "worker/collectives/tcp_stream.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/errors.h"

namespace autosp {
namespace {

// Of silence to data in flight. A slow link answers all the time.
constexpr absl::Duration kMaxUnanswered = absl::Seconds(10);

bool IsLater(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

msghdr Message(absl::Span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  return message;
}

}  // namespace

absl::StatusOr<int64_t> TcpStream::Send(absl::Span<const iovec> parts) {
  const msghdr message = Message(parts);
  const ssize_t count = sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count >= 0) return count;
  if (IsLater(errno)) return 0;
  return ErrnoError(errno, "cannot send");
}

absl::StatusOr<int64_t> TcpStream::Receive(absl::Span<const iovec> parts) {
  msghdr message = Message(parts);
  const ssize_t count = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  if (count > 0) return count;
  if (count == 0) return Unavailable("its end is closed");
  if (IsLater(errno)) return 0;
  return ErrnoError(errno, "cannot receive");
}

// The kernel itself would try for a quarter of an hour. TCP_USER_TIMEOUT is no help: it also ends
// connections whose peer answers every probe but does not read, because it computes.
std::string TcpStream::FindStall() {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return "";
  const absl::Duration now = Clock::Real().Steady();
  const bool is_unanswered =
      info.tcpi_unacked > 0 && info.tcpi_backoff > 0 && info.tcpi_bytes_acked == bytes_answered_;
  if (!is_unanswered) unanswered_since_ = now;
  bytes_answered_ = info.tcpi_bytes_acked;
  if (now - unanswered_since_ <= kMaxUnanswered) return "";
  return absl::StrCat("data in flight has not been answered for ",
                      absl::FormatDuration(kMaxUnanswered));
}

}  // namespace autosp
