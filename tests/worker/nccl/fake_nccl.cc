#include "tests/worker/nccl/fake_nccl.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

constexpr int kFakeVersion = 99900;

absl::Span<const std::byte> SpanOf(const std::byte* data, int64_t bytes) {
  return {data, static_cast<size_t>(bytes)};
}

}  // namespace

std::vector<std::string> FakeNccl::Leaks() const {
  const Lock lock(mutex_);
  std::vector<std::string> leaks;
  if (!comms_.empty()) leaks.push_back(absl::StrCat(comms_.size(), " communicators"));
  for (const auto& [thread, group] : groups_) {
    if (group.depth > 0) leaks.push_back("a group that was not ended");
  }
  return leaks;
}

void FakeNccl::HangAt(int rank, int64_t call) {
  const Lock lock(mutex_);
  faults_.push_back({.rank = rank, .call = call, .hangs = true});
}

void FakeNccl::DieAt(int rank, int64_t call) {
  const Lock lock(mutex_);
  faults_.push_back({.rank = rank, .call = call, .hangs = true, .peers_notice = true});
}

void FakeNccl::FailAsyncAt(int rank, int64_t call, NcclResult result) {
  const Lock lock(mutex_);
  faults_.push_back({.rank = rank, .call = call, .own_error = result});
}

void FakeNccl::FailOnce(const std::string& function, NcclResult result) {
  const Lock lock(mutex_);
  failures_[function] = result;
}

bool FakeNccl::TakeFailure(const std::string& function, NcclResult* result) {
  const auto found = failures_.find(function);
  if (found == failures_.end()) return false;
  *result = found->second;
  failures_.erase(found);
  return true;
}

NcclResult FakeNccl::Wrong(const std::string& text) {
  cuda_.AddViolation(text);
  return NcclResult::kInvalidUsage;
}

FakeNccl::CommPtr FakeNccl::Find(NcclComm comm, const std::string& function) {
  const auto found = comms_.find(comm);
  if (found != comms_.end()) return found->second;
  Wrong(function + " on a communicator that is no more");
  return nullptr;
}

NcclResult FakeNccl::GetVersion(int* version) {
  *version = kFakeVersion;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::GetUniqueId(NcclUniqueId* id) {
  const Lock lock(mutex_);
  NcclResult failure;
  if (TakeFailure("GetUniqueId", &failure)) return failure;
  const uintptr_t number = ++num_handles_;
  std::memcpy(id->bytes.data(), &number, sizeof(number));
  id->bytes.back() = 1;  // so that one that did not come through whole is not known
  cliques_[std::string(id->bytes.data(), id->bytes.size())] = std::make_shared<Clique>();
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::InitRank(NcclComm* comm, int num_ranks, const NcclUniqueId& id, int rank) {
  const int device = cuda_.CurrentDevice();
  const Lock lock(mutex_);
  NcclResult failure;
  if (TakeFailure("InitRank", &failure)) return failure;
  const auto found = cliques_.find(std::string(id.bytes.data(), id.bytes.size()));
  if (found == cliques_.end()) return Wrong("InitRank with an id that nobody made");
  Clique& clique = *found->second;
  if (clique.size == 0) clique.size = num_ranks;
  if (clique.size != num_ranks || rank < 0 || rank >= num_ranks) {
    return Wrong(absl::StrCat("InitRank of rank ", rank, " of ", num_ranks, " where others say ",
                              clique.size));
  }
  if (clique.joined.contains(rank)) return Wrong("InitRank twice for one rank");
  if (!clique.devices.insert(device).second) return NcclResult::kInvalidUsage;
  clique.joined.insert(rank);
  *comm = reinterpret_cast<NcclComm>(++num_handles_);
  comms_[*comm] =
      std::make_shared<Comm>(Comm{.clique = found->second, .rank = rank, .device = device});
  return NcclResult::kInProgress;
}

NcclResult FakeNccl::Abort(NcclComm comm) {
  const Lock lock(mutex_);
  const CommPtr found = Find(comm, "Abort");
  if (found == nullptr) return NcclResult::kInvalidArgument;
  found->is_aborted = true;
  comms_.erase(comm);
  changed_.notify_all();
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Finalize(NcclComm comm) {
  const Lock lock(mutex_);
  const CommPtr found = Find(comm, "Finalize");
  if (found == nullptr) return NcclResult::kInvalidArgument;
  if (found->launching != nullptr) return Wrong("Finalize while a call is in progress");
  found->is_finalized = true;
  found->clique->finalized.insert(found->rank);
  CheckMail(*found);
  return NcclResult::kInProgress;
}

NcclResult FakeNccl::Destroy(NcclComm comm) {
  const Lock lock(mutex_);
  const CommPtr found = Find(comm, "Destroy");
  if (found == nullptr) return NcclResult::kInvalidArgument;
  if (!found->is_finalized) return Wrong("Destroy before Finalize");
  comms_.erase(comm);
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::GetAsyncError(NcclComm comm, NcclResult* error) {
  CommPtr found;
  std::unique_ptr<Batch> launched;
  {
    const Lock lock(mutex_);
    found = Find(comm, "GetAsyncError");
    if (found == nullptr) return NcclResult::kInvalidArgument;
    Clique& clique = *found->clique;
    *error = found->error;
    if (*error != NcclResult::kSuccess) return NcclResult::kSuccess;
    const bool is_complete = found->is_finalized
                                 ? clique.finalized.size() == static_cast<size_t>(clique.size)
                                 : clique.joined.size() == static_cast<size_t>(clique.size);
    if (clique.num_dead > 0) {
      *error = NcclResult::kRemoteError;
    } else if (!is_complete) {
      *error = NcclResult::kInProgress;
    } else if (found->launching != nullptr) {
      *error = NcclResult::kInProgress;
      launched = std::move(found->launching);
    }
  }
  if (launched != nullptr) Enqueue(found, std::move(launched));
  return NcclResult::kSuccess;
}

std::string FakeNccl::Describe(NcclResult result, NcclComm /*comm*/) {
  return absl::StrCat("fake NCCL result ", static_cast<int>(result));
}

NcclResult FakeNccl::GroupStart() {
  const Lock lock(mutex_);
  ++groups_[std::this_thread::get_id()].depth;
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::GroupEnd() {
  const Lock lock(mutex_);
  Group& group = groups_[std::this_thread::get_id()];
  if (group.depth == 0) return Wrong("GroupEnd without GroupStart");
  if (--group.depth > 0) return NcclResult::kSuccess;
  const NcclComm comm = std::exchange(group.comm, nullptr);
  Batch batch = std::exchange(group.batch, Batch());
  if (batch.calls.empty()) return NcclResult::kSuccess;
  const CommPtr found = Find(comm, "GroupEnd");
  if (found == nullptr) return NcclResult::kInvalidArgument;
  return Launch(*found, std::move(batch));
}

NcclResult FakeNccl::Add(Call call, NcclComm comm, CudaStream stream) {
  const int device = cuda_.DeviceOf(stream);
  const Lock lock(mutex_);
  NcclResult failure;
  const std::string name = NameOf(call);
  if (TakeFailure(name.substr(0, name.find(' ')), &failure)) return failure;
  const CommPtr found = Find(comm, name);
  if (found == nullptr) return NcclResult::kInvalidArgument;
  if (found->clique->joined.size() != static_cast<size_t>(found->clique->size)) {
    return Wrong(name + " before all ranks have joined");
  }
  if (found->launching != nullptr) return Wrong(name + " while another call is in progress");
  if (found->is_finalized) return Wrong(name + " after Finalize");
  if (device != found->device) return Wrong(name + " on a stream of another device");
  if (call.peer < 0 || call.peer >= found->clique->size) return Wrong(name + ": no such peer");
  Group& group = groups_[std::this_thread::get_id()];
  if (group.depth == 0) {
    if (IsPointToPoint(call.function)) return Wrong(name + " outside of a group");
    Batch batch{.stream = stream};
    batch.calls.push_back(call);
    return Launch(*found, std::move(batch));
  }
  const bool is_first = group.batch.calls.empty();
  if (!is_first && (group.comm != comm || group.batch.stream != stream)) {
    return Wrong(name + ": one group on two communicators or streams");
  }
  group.comm = comm;
  group.batch.stream = stream;
  group.batch.calls.push_back(call);
  return NcclResult::kSuccess;
}

NcclResult FakeNccl::Launch(Comm& comm, Batch batch) {
  batch.number = comm.num_batches++;
  ApplyFaults(comm, batch);
  comm.launching = std::make_unique<Batch>(std::move(batch));
  return NcclResult::kInProgress;
}

void FakeNccl::ApplyFaults(Comm& comm, Batch& batch) {
  for (const Fault& fault : faults_) {
    if (fault.rank != comm.rank || batch.number < fault.call) continue;
    batch.hangs |= fault.hangs;
    if (fault.peers_notice) comm.clique->num_dead = 1;
    if (fault.own_error != NcclResult::kSuccess) comm.error = fault.own_error;
  }
}

void FakeNccl::Enqueue(const CommPtr& comm, std::unique_ptr<Batch> batch) {
  const std::shared_ptr<Batch> shared = std::move(batch);
  std::vector<absl::Span<const std::byte>> reads;
  for (const Call& call : shared->calls) {
    const int64_t sent_bytes = SentBytes(call, comm->clique->size);
    if (sent_bytes > 0) reads.push_back(SpanOf(call.send, sent_bytes));
  }
  const std::string what = NameOf(shared->calls.front());
  const absl::Status status = cuda_.Enqueue(
      shared->stream, what, std::move(reads), [this, comm, shared] { Run(comm, *shared); },
      [this, comm] {
        const Lock lock(mutex_);
        return comm->is_aborted;
      });
  if (!status.ok()) cuda_.AddViolation(absl::StrCat(what, ": ", status.message()));
}

NcclResult FakeNccl::AllReduce(const void* send, void* recv, int64_t count, NcclType type,
                               NcclReduction reduction, NcclComm comm, CudaStream stream) {
  return Add({.function = Function::kAllReduce,
              .send = static_cast<const std::byte*>(send),
              .recv = static_cast<std::byte*>(recv),
              .count = count,
              .type = type,
              .reduction = reduction},
             comm, stream);
}

NcclResult FakeNccl::AllGather(const void* send, void* recv, int64_t send_count, NcclType type,
                               NcclComm comm, CudaStream stream) {
  return Add({.function = Function::kAllGather,
              .send = static_cast<const std::byte*>(send),
              .recv = static_cast<std::byte*>(recv),
              .count = send_count,
              .type = type},
             comm, stream);
}

NcclResult FakeNccl::ReduceScatter(const void* send, void* recv, int64_t recv_count, NcclType type,
                                   NcclReduction reduction, NcclComm comm, CudaStream stream) {
  return Add({.function = Function::kReduceScatter,
              .send = static_cast<const std::byte*>(send),
              .recv = static_cast<std::byte*>(recv),
              .count = recv_count,
              .type = type,
              .reduction = reduction},
             comm, stream);
}

NcclResult FakeNccl::Broadcast(const void* send, void* recv, int64_t count, NcclType type, int root,
                               NcclComm comm, CudaStream stream) {
  return Add({.function = Function::kBroadcast,
              .send = static_cast<const std::byte*>(send),
              .recv = static_cast<std::byte*>(recv),
              .count = count,
              .type = type,
              .peer = root},
             comm, stream);
}

NcclResult FakeNccl::Send(const void* send, int64_t count, NcclType type, int peer, NcclComm comm,
                          CudaStream stream) {
  return Add({.function = Function::kSend,
              .send = static_cast<const std::byte*>(send),
              .count = count,
              .type = type,
              .peer = peer},
             comm, stream);
}

NcclResult FakeNccl::Recv(void* recv, int64_t count, NcclType type, int peer, NcclComm comm,
                          CudaStream stream) {
  return Add({.function = Function::kRecv,
              .recv = static_cast<std::byte*>(recv),
              .count = count,
              .type = type,
              .peer = peer},
             comm, stream);
}

}  // namespace autosp
