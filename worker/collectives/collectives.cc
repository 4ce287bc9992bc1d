#include "worker/collectives/collectives.h"

#include <chrono>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr char kPeerLostUrl[] = "autosp/peer_lost";

// Adds the time until its end to `seconds`.
class ScopedSeconds {
 public:
  explicit ScopedSeconds(double* seconds) : seconds_(seconds), start_(Clock::now()) {}
  ~ScopedSeconds() { *seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double* seconds_;
  Clock::time_point start_;
};

bool IsReduction(CollectiveKind kind) {
  return kind == CollectiveKind::kReduceScatter || kind == CollectiveKind::kAllReduce;
}

// The root of a broadcast receives nothing, nor does a rank that sends to itself.
bool ReceivesFromPeers(const CollectiveCall& call, int rank, int group_size) {
  if (call.kind == CollectiveKind::kBroadcast) return call.root != rank;
  if (call.kind == CollectiveKind::kSendRecv) return call.shift % group_size != 0;
  return true;
}

// Expected size of `recv` for the size of `send`, or -1 where no size can be right.
int64_t ExpectedRecvBytes(const CollectiveCall& call, int64_t group_size) {
  const auto send_bytes = static_cast<int64_t>(call.send.size());
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
      return send_bytes % group_size == 0 ? send_bytes : -1;
    case CollectiveKind::kReduceScatter:
      return send_bytes % group_size == 0 ? send_bytes / group_size : -1;
    case CollectiveKind::kAllGather:
      return send_bytes * group_size;
    case CollectiveKind::kAllReduce:
    case CollectiveKind::kSendRecv:
      return send_bytes;
    case CollectiveKind::kBroadcast:
      return send_bytes == 0 ? static_cast<int64_t>(call.recv.size()) : -1;
    case CollectiveKind::kBarrier:
      return send_bytes == 0 ? 0 : -1;
  }
  return -1;
}

}  // namespace

std::string KindName(CollectiveKind kind) { return std::string(CollectiveKindName(kind)); }

std::string DescribeCall(const CollectiveCall& call) {
  return absl::StrCat(KindName(call.kind), " of ", CallBytes(call), " bytes");
}

int64_t CallBytes(const CollectiveCall& call) {
  return static_cast<int64_t>(call.kind == CollectiveKind::kBroadcast ? call.recv.size()
                                                                      : call.send.size());
}

bool IsPeerLost(const absl::Status& status) { return status.GetPayload(kPeerLostUrl).has_value(); }

absl::Status MarkPeerLost(absl::Status status) {
  status.SetPayload(kPeerLostUrl, absl::Cord());
  return status;
}

CollectiveCounters& CollectiveCounters::operator+=(const CollectiveCounters& other) {
  for (size_t i = 0; i < by_kind.size(); ++i) {
    by_kind[i].calls += other.by_kind[i].calls;
    by_kind[i].bytes_received += other.by_kind[i].bytes_received;
    by_kind[i].payload_bytes += other.by_kind[i].payload_bytes;
    by_kind[i].seconds += other.by_kind[i].seconds;
  }
  return *this;
}

Collectives::Collectives(ProcessGroup group, int rank) : group_(std::move(group)), rank_(rank) {}

absl::Status Collectives::Check(const CollectiveCall& call) const {
  const int64_t expected = ExpectedRecvBytes(call, size());
  if (expected != static_cast<int64_t>(call.recv.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        KindName(call.kind), ": send of ", call.send.size(), " bytes does not fit recv of ",
        call.recv.size(), " bytes in a group of ", size()));
  }
  if (IsReduction(call.kind) && call.recv.size() % SizeOf(call.dtype) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        KindName(call.kind), ": ", call.recv.size(), " bytes are not a whole number of ",
        std::string(DTypeName(call.dtype)), " elements"));
  }
  if (call.kind == CollectiveKind::kBroadcast && (call.root < 0 || call.root >= size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("broadcast: root ", call.root, " is not in a group of ", size(), " ranks"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CollectiveHandle> Collectives::Start(const CollectiveCall& call) {
  RETURN_IF_ERROR(Check(call));
  CollectiveCounter& counter = counters_.of(call.kind);
  ScopedSeconds timer(&counter.seconds);
  RETURN_IF_ERROR(StartImpl(call));
  ++counter.calls;
  if (ReceivesFromPeers(call, rank_, size())) {
    counter.bytes_received += BytesReceived(call.kind, CallBytes(call), size());
  }
  recent_kinds_[num_started_ % recent_kinds_.size()] = call.kind;
  return CollectiveHandle{num_started_++};
}

absl::Status Collectives::Wait(CollectiveHandle handle) {
  if (handle.index < 0 || handle.index >= num_started_) {
    return absl::InvalidArgumentError(absl::StrCat("wait: no call has the handle ", handle.index));
  }
  const CollectiveKind kind = recent_kinds_[handle.index % recent_kinds_.size()];
  ScopedSeconds timer(&counters_.of(kind).seconds);
  return WaitImpl(handle.index);
}

absl::Status Collectives::Run(const CollectiveCall& call) {
  ASSIGN_OR_RETURN(const CollectiveHandle handle, Start(call));
  return Wait(handle);
}

absl::Status Collectives::AllToAll(absl::Span<const std::byte> send, absl::Span<std::byte> recv) {
  return Run({.kind = CollectiveKind::kAllToAll, .send = send, .recv = recv});
}

absl::Status Collectives::AllGather(absl::Span<const std::byte> send, absl::Span<std::byte> recv) {
  return Run({.kind = CollectiveKind::kAllGather, .send = send, .recv = recv});
}

absl::Status Collectives::ReduceScatter(absl::Span<const std::byte> send,
                                        absl::Span<std::byte> recv, DType dtype, ReduceOp op) {
  return Run({.kind = CollectiveKind::kReduceScatter,
              .send = send,
              .recv = recv,
              .dtype = dtype,
              .reduce = op});
}

absl::Status Collectives::AllReduce(absl::Span<const std::byte> send, absl::Span<std::byte> recv,
                                    DType dtype, ReduceOp op) {
  return Run({.kind = CollectiveKind::kAllReduce,
              .send = send,
              .recv = recv,
              .dtype = dtype,
              .reduce = op});
}

absl::Status Collectives::SendRecv(absl::Span<const std::byte> send, absl::Span<std::byte> recv,
                                   int shift) {
  return Run({.kind = CollectiveKind::kSendRecv, .send = send, .recv = recv, .shift = shift});
}

absl::Status Collectives::Broadcast(absl::Span<std::byte> buffer, int root) {
  return Run({.kind = CollectiveKind::kBroadcast, .recv = buffer, .root = root});
}

absl::Status Collectives::Barrier() { return Run({.kind = CollectiveKind::kBarrier}); }

}  // namespace autosp
