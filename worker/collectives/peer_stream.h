// Bytes in order between two ranks, both ways, without waiting.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace autosp {

class PeerStream {
 public:
  virtual ~PeerStream() = default;

  // Each moves what can be moved now, in the order of the parts; 0: nothing. An error: nothing more
  // will ever be moved in this direction.
  virtual absl::StatusOr<int64_t> Send(absl::Span<const iovec> parts) = 0;
  virtual absl::StatusOr<int64_t> Receive(absl::Span<const iovec> parts) = 0;

  // To be waited on with epoll, edge-triggered; -1: news comes as a notice of the control
  // connection.
  virtual int fd() const = 0;

  // Around a sleep: the other side is to tell when it has moved something. What it moved before
  // that is found by a last Send and Receive after BeginSleep.
  virtual void BeginSleep() {}
  virtual void EndSleep() {}

  // Why the way to the peer must be taken as broken although no error has come; empty: it need not.
  virtual std::string FindStall() { return ""; }
};

}  // namespace autosp
