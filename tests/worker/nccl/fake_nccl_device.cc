// What the fake NCCL does when a stream of the fake CUDA gets to a call.

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/worker/nccl/fake_nccl.h"
#include "worker/collectives/reduce.h"

namespace autosp {
namespace {

constexpr const char* kNames[] = {"AllReduce", "AllGather", "ReduceScatter",
                                  "Broadcast", "Send",      "Recv"};

DType DTypeOf(NcclType type) {
  switch (type) {
    case NcclType::kInt8:
      return DType::kI8;
    case NcclType::kUint8:
      return DType::kU8;
    case NcclType::kInt32:
      return DType::kI32;
    case NcclType::kInt64:
      return DType::kI64;
    case NcclType::kFloat16:
      return DType::kF16;
    case NcclType::kBfloat16:
      return DType::kBF16;
    case NcclType::kFloat32:
      return DType::kF32;
    case NcclType::kFloat64:
      return DType::kF64;
  }
  return DType::kU8;
}

}  // namespace

bool FakeNccl::IsPointToPoint(Function function) {
  return function == Function::kSend || function == Function::kRecv;
}

// All that ranks must agree on.
std::string FakeNccl::NameOf(const Call& call) {
  return absl::StrCat(kNames[static_cast<int>(call.function)], " of ", call.count,
                      " elements of type ", static_cast<int>(call.type), ", reduction ",
                      static_cast<int>(call.reduction), ", peer ", call.peer);
}

int64_t FakeNccl::BytesOf(const Call& call) { return call.count * SizeOf(DTypeOf(call.type)); }

// A scatter counts what it receives.
int64_t FakeNccl::SentBytes(const Call& call, int num_ranks) {
  if (call.send == nullptr) return 0;
  return BytesOf(call) * (call.function == Function::kReduceScatter ? num_ranks : 1);
}

void FakeNccl::Run(const CommPtr& comm, const Batch& batch) {
  Lock lock(mutex_);
  if (batch.hangs) {
    changed_.wait(lock, [&] { return comm->is_aborted; });
    return;
  }
  if (IsPointToPoint(batch.calls.front().function)) {
    RunPointToPoint(lock, *comm, batch);
    return;
  }
  for (const Call& call : batch.calls) {
    if (!RunCollective(lock, *comm, call, batch.number)) return;
  }
}

// False where the communicator was aborted.
bool FakeNccl::RunCollective(Lock& lock, Comm& comm, const Call& call, int64_t number) {
  Clique& clique = *comm.clique;
  Meeting& meeting = clique.meetings[number];
  const std::string what = NameOf(call);
  if (meeting.what.empty()) meeting.what = what;
  if (meeting.what != what) {
    Wrong(absl::StrCat("call ", number, ": rank ", comm.rank, " makes ", what, ", another ",
                       meeting.what));
    changed_.wait(lock, [&] { return comm.is_aborted; });  // as the real one
    return false;
  }
  meeting.sent[comm.rank] = Bytes(call.send, call.send + SentBytes(call, clique.size));
  changed_.notify_all();
  changed_.wait(lock, [&] {
    return comm.is_aborted || meeting.sent.size() == static_cast<size_t>(clique.size);
  });
  if (comm.is_aborted) return false;
  Deliver(comm, call, meeting);
  if (++meeting.num_left == clique.size) clique.meetings.erase(number);
  return true;
}

void FakeNccl::Deliver(const Comm& comm, const Call& call, const Meeting& meeting) {
  const int64_t bytes = BytesOf(call);
  const bool is_scatter = call.function == Function::kReduceScatter;
  if (call.function == Function::kBroadcast) {
    std::memmove(call.recv, meeting.sent.at(call.peer).data(), bytes);
    return;
  }
  std::vector<const std::byte*> sources;
  for (const auto& [rank, sent] : meeting.sent) {
    if (call.function == Function::kAllGather) {
      std::memmove(call.recv + rank * bytes, sent.data(), bytes);
    }
    sources.push_back(sent.data() + (is_scatter ? comm.rank * bytes : 0));
  }
  if (call.function == Function::kAllGather) return;
  const ReduceOp op = call.reduction == NcclReduction::kMax ? ReduceOp::kMax : ReduceOp::kSum;
  Reduce(DTypeOf(call.type), op, sources, call.recv, call.count);
}

// Sends of a batch go out before its receives are waited for.
void FakeNccl::RunPointToPoint(Lock& lock, Comm& comm, const Batch& batch) {
  Clique& clique = *comm.clique;
  for (const Call& call : batch.calls) {
    if (!IsPointToPoint(call.function)) Wrong(NameOf(call) + " in a group of sends");
    if (call.function != Function::kSend) continue;
    clique.mail[{comm.rank, call.peer}].emplace_back(call.send, call.send + BytesOf(call));
  }
  changed_.notify_all();
  for (const Call& call : batch.calls) {
    if (call.function != Function::kRecv) continue;
    std::deque<Bytes>& mail = clique.mail[{call.peer, comm.rank}];
    changed_.wait(lock, [&] { return comm.is_aborted || !mail.empty(); });
    if (comm.is_aborted) return;
    const Bytes received = std::move(mail.front());
    mail.pop_front();
    const int64_t bytes = BytesOf(call);
    if (static_cast<int64_t>(received.size()) != bytes) {
      Wrong(absl::StrCat("rank ", comm.rank, " receives ", bytes, " bytes where rank ", call.peer,
                         " sends ", received.size()));
      return;
    }
    if (bytes > 0) std::memmove(call.recv, received.data(), bytes);
  }
}

void FakeNccl::CheckMail(const Comm& comm) {
  for (const auto& [ends, mail] : comm.clique->mail) {
    if (ends.second != comm.rank || mail.empty()) continue;
    Wrong(absl::StrCat(mail.size(), " sends from rank ", ends.first, " to rank ", ends.second,
                       " were never received"));
  }
}

}  // namespace autosp
