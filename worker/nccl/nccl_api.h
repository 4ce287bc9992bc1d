// What the ranks use of NCCL: the only way by which our own code reaches it.
//
// The C functions one for one, in plain types, so that everything above builds and is tested
// without NCCL and without a GPU. The tests' double moves the data between threads, checks order,
// groups, counts, types, streams and lifetimes, and injects failures.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "worker/cuda/cuda_api.h"

namespace autosp {

using NcclComm = void*;

struct NcclUniqueId {
  std::array<char, 128> bytes{};
};

// The values are NCCL's own.
enum class NcclResult {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};
enum class NcclType {
  kInt8 = 0,
  kUint8 = 1,
  kInt32 = 2,
  kInt64 = 4,
  kFloat16 = 6,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9,
};
enum class NcclReduction { kSum = 0, kMax = 2 };

// Communicators are non-blocking: a call may return kInProgress, and the communicator may be used
// again once GetAsyncError no longer does. Counts are in elements. Thread-safe but for calls on one
// communicator, of which only Abort may overlap with waiting on the device.
class NcclApi {
 public:
  virtual ~NcclApi() = default;

  virtual NcclResult GetVersion(int* version) = 0;
  virtual NcclResult GetUniqueId(NcclUniqueId* id) = 0;

  // On the calling thread's device. `comm` may be aborted at once, also while this is in progress.
  virtual NcclResult InitRank(NcclComm* comm, int num_ranks, const NcclUniqueId& id, int rank) = 0;
  // Ends what is under way, on the device too, and frees the communicator.
  virtual NcclResult Abort(NcclComm comm) = 0;
  // Finalize flushes what was enqueued; Destroy frees the communicator after it.
  virtual NcclResult Finalize(NcclComm comm) = 0;
  virtual NcclResult Destroy(NcclComm comm) = 0;
  virtual NcclResult GetAsyncError(NcclComm comm, NcclResult* error) = 0;
  // Words for a result, with what NCCL noted of the last error of `comm` (may be null).
  virtual std::string Describe(NcclResult result, NcclComm comm) = 0;

  // Calls of the thread in between reach the device as one.
  virtual NcclResult GroupStart() = 0;
  virtual NcclResult GroupEnd() = 0;

  virtual NcclResult AllReduce(const void* send, void* recv, int64_t count, NcclType type,
                               NcclReduction reduction, NcclComm comm, CudaStream stream) = 0;
  // `send_count` elements of each rank; `recv` holds as many of all ranks.
  virtual NcclResult AllGather(const void* send, void* recv, int64_t send_count, NcclType type,
                               NcclComm comm, CudaStream stream) = 0;
  // `recv_count` elements for each rank; `send` holds as many for all ranks.
  virtual NcclResult ReduceScatter(const void* send, void* recv, int64_t recv_count, NcclType type,
                                   NcclReduction reduction, NcclComm comm, CudaStream stream) = 0;
  virtual NcclResult Broadcast(const void* send, void* recv, int64_t count, NcclType type, int root,
                               NcclComm comm, CudaStream stream) = 0;
  virtual NcclResult Send(const void* send, int64_t count, NcclType type, int peer, NcclComm comm,
                          CudaStream stream) = 0;
  virtual NcclResult Recv(void* recv, int64_t count, NcclType type, int peer, NcclComm comm,
                          CudaStream stream) = 0;
};

}  // namespace autosp
