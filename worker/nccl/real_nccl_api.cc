#include "worker/nccl/real_nccl_api.h"

#include <nccl.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

// What the enumerations of nccl_api.h promise.
static_assert(static_cast<int>(NcclResult::kSuccess) == ncclSuccess);
static_assert(static_cast<int>(NcclResult::kUnhandledCudaError) == ncclUnhandledCudaError);
static_assert(static_cast<int>(NcclResult::kSystemError) == ncclSystemError);
static_assert(static_cast<int>(NcclResult::kInternalError) == ncclInternalError);
static_assert(static_cast<int>(NcclResult::kInvalidArgument) == ncclInvalidArgument);
static_assert(static_cast<int>(NcclResult::kInvalidUsage) == ncclInvalidUsage);
static_assert(static_cast<int>(NcclResult::kRemoteError) == ncclRemoteError);
static_assert(static_cast<int>(NcclResult::kInProgress) == ncclInProgress);
static_assert(static_cast<int>(NcclType::kInt8) == ncclInt8);
static_assert(static_cast<int>(NcclType::kUint8) == ncclUint8);
static_assert(static_cast<int>(NcclType::kInt32) == ncclInt32);
static_assert(static_cast<int>(NcclType::kInt64) == ncclInt64);
static_assert(static_cast<int>(NcclType::kFloat16) == ncclFloat16);
static_assert(static_cast<int>(NcclType::kFloat32) == ncclFloat32);
static_assert(static_cast<int>(NcclType::kFloat64) == ncclFloat64);
static_assert(static_cast<int>(NcclType::kBfloat16) == ncclBfloat16);
static_assert(static_cast<int>(NcclReduction::kSum) == ncclSum);
static_assert(static_cast<int>(NcclReduction::kMax) == ncclMax);
static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));

ncclComm_t Comm(NcclComm comm) { return static_cast<ncclComm_t>(comm); }
cudaStream_t Stream(CudaStream stream) { return static_cast<cudaStream_t>(stream); }
ncclDataType_t Type(NcclType type) { return static_cast<ncclDataType_t>(type); }
ncclRedOp_t Reduction(NcclReduction reduction) { return static_cast<ncclRedOp_t>(reduction); }
NcclResult Result(ncclResult_t result) { return static_cast<NcclResult>(result); }

class RealNccl final : public NcclApi {
 public:
  NcclResult GetVersion(int* version) override { return Result(ncclGetVersion(version)); }

  NcclResult GetUniqueId(NcclUniqueId* id) override {
    ncclUniqueId unique;
    const ncclResult_t result = ncclGetUniqueId(&unique);
    std::memcpy(id->bytes.data(), &unique, sizeof(unique));
    return Result(result);
  }

  NcclResult InitRank(NcclComm* comm, int num_ranks, const NcclUniqueId& id, int rank) override {
    ncclUniqueId unique;
    std::memcpy(&unique, id.bytes.data(), sizeof(unique));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t made = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&made, num_ranks, unique, rank, &config);
    *comm = made;
    return Result(result);
  }

  NcclResult Abort(NcclComm comm) override { return Result(ncclCommAbort(Comm(comm))); }
  NcclResult Finalize(NcclComm comm) override { return Result(ncclCommFinalize(Comm(comm))); }
  NcclResult Destroy(NcclComm comm) override { return Result(ncclCommDestroy(Comm(comm))); }

  NcclResult GetAsyncError(NcclComm comm, NcclResult* error) override {
    ncclResult_t found = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(Comm(comm), &found);
    *error = Result(found);
    return Result(result);
  }

  std::string Describe(NcclResult result, NcclComm comm) override {
    std::string text = ncclGetErrorString(static_cast<ncclResult_t>(result));
    const char* const last = ncclGetLastError(Comm(comm));
    if (last != nullptr && *last != '\0') absl::StrAppend(&text, " (", last, ")");
    return text;
  }

  NcclResult GroupStart() override { return Result(ncclGroupStart()); }
  NcclResult GroupEnd() override { return Result(ncclGroupEnd()); }

  NcclResult AllReduce(const void* send, void* recv, int64_t count, NcclType type,
                       NcclReduction reduction, NcclComm comm, CudaStream stream) override {
    return Result(ncclAllReduce(send, recv, static_cast<size_t>(count), Type(type),
                                Reduction(reduction), Comm(comm), Stream(stream)));
  }

  NcclResult AllGather(const void* send, void* recv, int64_t send_count, NcclType type,
                       NcclComm comm, CudaStream stream) override {
    return Result(ncclAllGather(send, recv, static_cast<size_t>(send_count), Type(type), Comm(comm),
                                Stream(stream)));
  }

  NcclResult ReduceScatter(const void* send, void* recv, int64_t recv_count, NcclType type,
                           NcclReduction reduction, NcclComm comm, CudaStream stream) override {
    return Result(ncclReduceScatter(send, recv, static_cast<size_t>(recv_count), Type(type),
                                    Reduction(reduction), Comm(comm), Stream(stream)));
  }

  NcclResult Broadcast(const void* send, void* recv, int64_t count, NcclType type, int root,
                       NcclComm comm, CudaStream stream) override {
    return Result(ncclBroadcast(send, recv, static_cast<size_t>(count), Type(type), root,
                                Comm(comm), Stream(stream)));
  }

  NcclResult Send(const void* send, int64_t count, NcclType type, int peer, NcclComm comm,
                  CudaStream stream) override {
    return Result(
        ncclSend(send, static_cast<size_t>(count), Type(type), peer, Comm(comm), Stream(stream)));
  }

  NcclResult Recv(void* recv, int64_t count, NcclType type, int peer, NcclComm comm,
                  CudaStream stream) override {
    return Result(
        ncclRecv(recv, static_cast<size_t>(count), Type(type), peer, Comm(comm), Stream(stream)));
  }
};

}  // namespace

NcclApi& RealNcclApi() {
  static auto* const api = new RealNccl;
  return *api;
}

}  // namespace autosp
