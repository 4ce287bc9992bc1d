#include "worker/nccl/nccl_calls.h"

#include <optional>
#include <string>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/collectives/chunk_schedule.h"

namespace autosp {
namespace {

bool IsReduction(CollectiveKind kind) {
  return kind == CollectiveKind::kAllReduce || kind == CollectiveKind::kReduceScatter;
}

std::optional<NcclType> TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
      return NcclType::kUint8;
    case DType::kI8:
      return NcclType::kInt8;
    case DType::kI16:
      return std::nullopt;
    case DType::kI32:
      return NcclType::kInt32;
    case DType::kI64:
      return NcclType::kInt64;
    case DType::kF16:
      return NcclType::kFloat16;
    case DType::kBF16:
      return NcclType::kBfloat16;
    case DType::kF32:
      return NcclType::kFloat32;
    case DType::kF64:
      return NcclType::kFloat64;
  }
  return std::nullopt;
}

// The sum of bools is "or", which is the maximum of 0 and 1.
NcclReduction ReductionOf(const CollectiveCall& call) {
  const bool is_max = call.reduce == ReduceOp::kMax || call.dtype == DType::kBool;
  return is_max ? NcclReduction::kMax : NcclReduction::kSum;
}

// Issues the pieces of one call.
class Issuer {
 public:
  Issuer(const NcclDevice& device, NcclComm comm, int rank, int size)
      : device_(device), nccl_(device.nccl()), comm_(comm), rank_(rank), size_(size) {}

  absl::Status Reduce(const CollectiveCall& call) {
    const NcclType type = *TypeOf(call.dtype);
    const int64_t count = static_cast<int64_t>(call.recv.size()) / SizeOf(call.dtype);
    if (call.kind == CollectiveKind::kAllReduce) {
      return Check(nccl_.AllReduce(call.send.data(), call.recv.data(), count, type,
                                   ReductionOf(call), comm_, stream()),
                   "ncclAllReduce");
    }
    return Check(nccl_.ReduceScatter(call.send.data(), call.recv.data(), count, type,
                                     ReductionOf(call), comm_, stream()),
                 "ncclReduceScatter");
  }

  absl::Status AllGather(const CollectiveCall& call) {
    return Check(
        nccl_.AllGather(call.send.data(), call.recv.data(), static_cast<int64_t>(call.send.size()),
                        NcclType::kUint8, comm_, stream()),
        "ncclAllGather");
  }

  absl::Status Broadcast(const CollectiveCall& call) {
    return Check(
        nccl_.Broadcast(call.recv.data(), call.recv.data(), static_cast<int64_t>(call.recv.size()),
                        NcclType::kUint8, call.root, comm_, stream()),
        "ncclBroadcast");
  }

  absl::Status Barrier() {
    void* const word = device_.barrier_word();
    return Check(
        nccl_.AllReduce(word, word, 1, NcclType::kFloat32, NcclReduction::kMax, comm_, stream()),
        "ncclAllReduce");
  }

  // The own block needs no peer, and no room in NCCL's buffers.
  absl::Status AllToAll(const CollectiveCall& call) {
    const CallBlocks blocks(call, size_);
    RETURN_IF_ERROR(CopyOwn(call.recv.data() + blocks.Begin(rank_),
                            call.send.data() + blocks.Begin(rank_), blocks.Bytes(rank_)));
    if (size_ == 1) return absl::OkStatus();
    RETURN_IF_ERROR(Check(nccl_.GroupStart(), "ncclGroupStart"));
    absl::Status status;
    for (int i = 1; i < size_ && status.ok(); ++i) {
      const int to = (rank_ + i) % size_;
      const int from = (rank_ - i + size_) % size_;
      status = Exchange(call.send.data() + blocks.Begin(to), to,
                        call.recv.data() + blocks.Begin(from), from, blocks.max_bytes());
    }
    return EndGroup(std::move(status));
  }

  absl::Status SendRecv(const CollectiveCall& call) {
    const auto bytes = static_cast<int64_t>(call.send.size());
    const int shift = (call.shift % size_ + size_) % size_;
    if (shift == 0) return CopyOwn(call.recv.data(), call.send.data(), bytes);
    RETURN_IF_ERROR(Check(nccl_.GroupStart(), "ncclGroupStart"));
    return EndGroup(Exchange(call.send.data(), (rank_ + shift) % size_, call.recv.data(),
                             (rank_ - shift + size_) % size_, bytes));
  }

 private:
  CudaStream stream() const { return device_.stream(); }

  absl::Status Check(NcclResult result, absl::string_view what) {
    return NcclStatus(nccl_, result, comm_, what);
  }

  absl::Status CopyOwn(std::byte* to, const std::byte* from, int64_t bytes) {
    if (to == from) return absl::OkStatus();
    return device_.cuda().CopyAsync(to, from, bytes, stream());
  }

  absl::Status Exchange(const std::byte* send, int to, std::byte* recv, int from, int64_t bytes) {
    RETURN_IF_ERROR(
        Check(nccl_.Send(send, bytes, NcclType::kUint8, to, comm_, stream()), "ncclSend"));
    return Check(nccl_.Recv(recv, bytes, NcclType::kUint8, from, comm_, stream()), "ncclRecv");
  }

  // A group that was started is ended whatever happened in it; NCCL counts them per thread.
  absl::Status EndGroup(absl::Status status) {
    const absl::Status ended = Check(nccl_.GroupEnd(), "ncclGroupEnd");
    status.Update(ended);
    return status;
  }

  const NcclDevice& device_;
  NcclApi& nccl_;
  const NcclComm comm_;
  const int rank_;
  const int size_;
};

}  // namespace

absl::Status CheckNcclType(const CollectiveCall& call) {
  if (!IsReduction(call.kind) || TypeOf(call.dtype).has_value()) return absl::OkStatus();
  return Unimplemented(KindName(call.kind), " of ", std::string(DTypeName(call.dtype)),
                       ": NCCL has no such type; reduce it as i32");
}

absl::Status NcclStatus(NcclApi& nccl, NcclResult result, NcclComm comm, absl::string_view what) {
  switch (result) {
    case NcclResult::kSuccess:
    case NcclResult::kInProgress:
      return absl::OkStatus();
    case NcclResult::kRemoteError:
    case NcclResult::kSystemError:
      return MarkPeerLost(Unavailable(what, ": ", nccl.Describe(result, comm)));
    default:
      return Internal(what, ": ", nccl.Describe(result, comm));
  }
}

absl::Status EnqueueOnNccl(const NcclDevice& device, NcclComm comm, int rank, int size,
                           const CollectiveCall& call) {
  Issuer issuer(device, comm, rank, size);
  if (call.kind == CollectiveKind::kBarrier) return issuer.Barrier();
  // All ranks see the same sizes, hence leave out the same calls.
  if (call.recv.empty()) return absl::OkStatus();
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
      return issuer.AllToAll(call);
    case CollectiveKind::kAllGather:
      return issuer.AllGather(call);
    case CollectiveKind::kReduceScatter:
    case CollectiveKind::kAllReduce:
      return issuer.Reduce(call);
    case CollectiveKind::kSendRecv:
      return issuer.SendRecv(call);
    case CollectiveKind::kBroadcast:
      return issuer.Broadcast(call);
    case CollectiveKind::kBarrier:
      break;
  }
  return absl::OkStatus();
}

int64_t NcclPayloadBytes(const CollectiveCall& call, int rank, int size) {
  const int64_t num_peers = size - 1;
  switch (call.kind) {
    case CollectiveKind::kAllReduce: {
      const int64_t own_bytes = CallBlocks(call, size).Bytes(rank);
      return num_peers == 0 ? 0 : num_peers * own_bytes + CallBytes(call) - own_bytes;
    }
    case CollectiveKind::kSendRecv:
      return call.shift % size == 0 ? 0 : CallBytes(call);
    case CollectiveKind::kBroadcast:
      return call.root == rank ? 0 : CallBytes(call);
    default:
      return BytesReceived(call.kind, CallBytes(call), size);
  }
}

}  // namespace autosp
