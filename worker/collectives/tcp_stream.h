// A PeerStream over a TCP connection.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/file.h"
#include "worker/collectives/peer_stream.h"

namespace autosp {

class TcpStream final : public PeerStream {
 public:
  // Requires: `fd` does not block.
  explicit TcpStream(UniqueFd fd) : fd_(std::move(fd)) {}

  absl::StatusOr<int64_t> Send(absl::Span<const iovec> parts) override;
  absl::StatusOr<int64_t> Receive(absl::Span<const iovec> parts) override;
  int fd() const override { return fd_.get(); }
  std::string FindStall() override;

 private:
  UniqueFd fd_;
  // As FindStall saw it last.
  uint64_t bytes_answered_ = 0;
  absl::Duration unanswered_since_ = absl::InfiniteDuration();
};

}  // namespace autosp
