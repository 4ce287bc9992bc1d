// NCCL between the threads of a process, on the queues of FakeCuda.
//
// Moves the data, reduces in the order of ranks, and looks at everything that real NCCL would hang
// or crash on: ranks that make different calls, sends without receives, sends outside of groups,
// groups left open, streams of another device, use while a communicator is in progress, use after
// the end, two ranks on one device. As on real non-blocking communicators, a call reaches its
// stream only when GetAsyncError has been asked once more after it.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/nccl/fake_cuda.h"
#include "worker/nccl/nccl_api.h"

namespace autosp {

class FakeNccl final : public NcclApi {
 public:
  explicit FakeNccl(FakeCuda& cuda) : cuda_(cuda) {}

  // What is left open. Violations are in the FakeCuda.
  std::vector<std::string> Leaks() const;

  // Faults of one rank of every communicator, from its call number `call` on.
  // The device never gets to the call: peers wait for it until somebody aborts.
  void HangAt(int rank, int64_t call);
  // As above, and the peers' communicators say so.
  void DieAt(int rank, int64_t call);
  // The rank's own communicator reports `result` once the call was made.
  void FailAsyncAt(int rank, int64_t call, NcclResult result);
  // The function of this name returns `result` once.
  void FailOnce(const std::string& function, NcclResult result);

  NcclResult GetVersion(int* version) override;
  NcclResult GetUniqueId(NcclUniqueId* id) override;
  NcclResult InitRank(NcclComm* comm, int num_ranks, const NcclUniqueId& id, int rank) override;
  NcclResult Abort(NcclComm comm) override;
  NcclResult Finalize(NcclComm comm) override;
  NcclResult Destroy(NcclComm comm) override;
  NcclResult GetAsyncError(NcclComm comm, NcclResult* error) override;
  std::string Describe(NcclResult result, NcclComm comm) override;
  NcclResult GroupStart() override;
  NcclResult GroupEnd() override;
  NcclResult AllReduce(const void* send, void* recv, int64_t count, NcclType type,
                       NcclReduction reduction, NcclComm comm, CudaStream stream) override;
  NcclResult AllGather(const void* send, void* recv, int64_t send_count, NcclType type,
                       NcclComm comm, CudaStream stream) override;
  NcclResult ReduceScatter(const void* send, void* recv, int64_t recv_count, NcclType type,
                           NcclReduction reduction, NcclComm comm, CudaStream stream) override;
  NcclResult Broadcast(const void* send, void* recv, int64_t count, NcclType type, int root,
                       NcclComm comm, CudaStream stream) override;
  NcclResult Send(const void* send, int64_t count, NcclType type, int peer, NcclComm comm,
                  CudaStream stream) override;
  NcclResult Recv(void* recv, int64_t count, NcclType type, int peer, NcclComm comm,
                  CudaStream stream) override;

 private:
  enum class Function { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kSend, kRecv };
  struct Call {
    Function function;
    const std::byte* send = nullptr;
    std::byte* recv = nullptr;
    int64_t count = 0;
    NcclType type = NcclType::kUint8;
    NcclReduction reduction = NcclReduction::kSum;
    int peer = 0;  // the root of a broadcast
  };
  // Calls that reach the device as one.
  struct Batch {
    std::vector<Call> calls = {};
    CudaStream stream = nullptr;
    int64_t number = 0;  // counts the batches of the communicator
    bool hangs = false;
  };
  using Bytes = std::vector<std::byte>;
  // Where the ranks meet for one collective.
  struct Meeting {
    std::string what = {};
    std::map<int, Bytes> sent = {};  // by rank
    int num_left = 0;
  };
  struct Clique {
    int size = 0;
    std::set<int> joined = {};
    std::set<int> devices = {};
    std::set<int> finalized = {};
    std::map<int64_t, Meeting> meetings = {};                    // by number of the batch
    std::map<std::pair<int, int>, std::deque<Bytes>> mail = {};  // by sender and receiver
    int num_dead = 0;
  };
  struct Comm {
    std::shared_ptr<Clique> clique = {};
    int rank = 0;
    int device = 0;
    int64_t num_batches = 0;
    std::unique_ptr<Batch> launching = {};  // until GetAsyncError is asked
    NcclResult error = NcclResult::kSuccess;
    bool is_aborted = false;
    bool is_finalized = false;
  };
  using CommPtr = std::shared_ptr<Comm>;
  struct Group {
    int depth = 0;
    NcclComm comm = nullptr;
    Batch batch = {};
  };
  struct Fault {
    int rank = 0;
    int64_t call = 0;
    bool hangs = false;
    bool peers_notice = false;
    NcclResult own_error = NcclResult::kSuccess;
  };
  using Lock = std::unique_lock<std::mutex>;

  static bool IsPointToPoint(Function function);
  static std::string NameOf(const Call& call);
  static int64_t BytesOf(const Call& call);  // of `count` elements
  static int64_t SentBytes(const Call& call, int num_ranks);
  // The function's injected result, once.
  bool TakeFailure(const std::string& function, NcclResult* result);
  NcclResult Wrong(const std::string& text);
  // Null, and a violation, where the communicator is no more.
  CommPtr Find(NcclComm comm, const std::string& function);
  NcclResult Add(Call call, NcclComm comm, CudaStream stream);
  NcclResult Launch(Comm& comm, Batch batch);
  void ApplyFaults(Comm& comm, Batch& batch);
  void Enqueue(const CommPtr& comm, std::unique_ptr<Batch> batch);
  // On the device.
  void Run(const CommPtr& comm, const Batch& batch);
  bool RunCollective(Lock& lock, Comm& comm, const Call& call, int64_t number);
  void RunPointToPoint(Lock& lock, Comm& comm, const Batch& batch);
  void Deliver(const Comm& comm, const Call& call, const Meeting& meeting);
  void CheckMail(const Comm& comm);

  FakeCuda& cuda_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uintptr_t num_handles_ = 0;
  std::map<std::string, std::shared_ptr<Clique>> cliques_;  // by unique id
  std::map<NcclComm, CommPtr> comms_;
  std::map<std::thread::id, Group> groups_;
  std::vector<Fault> faults_;
  std::map<std::string, NcclResult> failures_;
};

}  // namespace autosp
