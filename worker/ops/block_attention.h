// What the forward and the backward op of blockwise attention share: who attends to whom on this
// rank at a hop of the ring, as calls of ATen's kernel.
//
// B batch, N query heads, K kv heads (N a multiple of K), Sq / Sk local numbers of query / key
// tokens, H head_dim.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/program/attention_workspace.h"
#include "compiler/program/program.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/attention_tiles.h"
#include "worker/ops/own_op.h"

namespace autosp {

// A rectangle of queries x keys of some batch elements and heads.
struct AttentionCall {
  AttentionTile tile;
  int64_t batch_begin = 0;
  int64_t batch_count = 0;
  at::Tensor mask = {};                    // f32 [1, 1, q_size, k_size]: 0 or -inf; else undefined
  std::vector<uint8_t> row_has_keys = {};  // by row of the tile where there is a mask
};

// Documents of queries and of keys, whole on each rank: i64 [B or 1, S]; undefined: all in 0. In
// host memory, where tiles are planned.
struct AttentionDocs {
  at::Tensor q = {};
  at::Tensor k = {};

  // Two arguments of a call, the second after the first.
  static AttentionDocs Of(const OwnCall& call, size_t first);
  bool defined() const { return q.defined() || k.defined(); }
};

// [b, n, s, h] of a tensor [B, N, S, H] or [b, n, s] of [B, N, S], no copy.
struct AttentionPart {
  int64_t batch_begin = 0;
  int64_t batch_count = 0;
  int64_t head_begin = 0;
  int64_t head_count = 0;
  int64_t token_begin = 0;
  int64_t token_count = 0;

  at::Tensor Of(const at::Tensor& tensor) const;
};

// Heads and batch elements of a call, cut into slices. `queries` and `keys` are the parts of
// tensors with N and with K heads.
using SliceFn = absl::FunctionRef<void(const AttentionPart& queries, const AttentionPart& keys)>;
void ForEachSlice(const AttentionCall& call, const AttentionShape& shape,
                  const AttentionSlice& slice, SliceFn run);

// An operand as the kernel takes it: fp32 on CPUs, and on GPUs as it is; with zeros as further
// columns up to `columns`, which change no dot product. A copy is made where it is needed, and lies
// as [B, S, N, H] in memory: the kernel would bring a gradient into that order itself.
at::Tensor KernelOperand(const at::Tensor& tensor, int64_t columns);

// What the kernel adds to the scores of a tile, and the rows of the tile that have a key (bool
// [q_size]; undefined where all have), on the device of `query`.
std::optional<at::Tensor> MaskOn(const at::Tensor& query, const AttentionCall& call);
at::Tensor RowsWithKeysOn(const at::Tensor& query, const AttentionCall& call);

inline int64_t RowOffset(const at::Tensor& tensor, int64_t batch, int64_t head, int64_t token) {
  return batch * tensor.stride(0) + head * tensor.stride(1) + token * tensor.stride(2);
}

// Calls `run(batch, head, token)` for each row of a tensor [b, n, s, H], by several threads.
template <typename Run>
void ForEachRow(const at::Tensor& tensor, Run run) {
  constexpr int64_t kGrainElements = 1 << 15;
  const int64_t heads = tensor.size(1);
  const int64_t tokens = tensor.size(2);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, tensor.size(3)));
  at::parallel_for(0, tensor.size(0) * heads * tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      run(i / tokens / heads, i / tokens % heads, i % tokens);
    }
  });
}

// One thread at a time: keeps the plans of hops.
class BlockAttention {
 public:
  // Attributes {axes, causal, factor, gathered, kernel, kv_factor, piece, scale, window}; the last
  // argument is the hop. gathered: keys and values are those of all members, in their order.
  // kernel: of a plan for GPUs, the one for tiles without a mask, "flash" or "cudnn".
  static absl::StatusOr<BlockAttention> Make(const OwnOpContext& context);

  // Of operands q [B, N, Sq, H], k [B, K, Sk, H], v [B, K, Sk, Hv].
  absl::StatusOr<AttentionShape> ShapeOf(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const AttentionDocs& docs) const;

  // Calls `run` for each tile at `hop`. Together they are all pairs that may attend.
  absl::Status ForEachCall(const AttentionShape& shape, int64_t hop, const AttentionDocs& docs,
                           absl::FunctionRef<void(const AttentionCall&)> run);

  double scale() const { return scale_; }

  // The part of the operands that one call of the kernel gets, and the kernel.
  AttentionInputs InputsOf(const AttentionShape& shape, const AttentionTile& tile,
                           const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::optional<at::Tensor>& mask) const;
  AttentionKernel KernelOf(const AttentionInputs& inputs) const;

 private:
  // Global indices of local tokens, -1 for padding, and the same as runs.
  struct Tokens {
    std::vector<int64_t> global;
    std::vector<IndexRun> runs;
  };
  struct Hop {
    Tokens queries;
    Tokens keys;
    std::vector<AttentionTile> tiles;  // where there are no documents
    bool is_planned = false;
  };

  explicit BlockAttention(const OwnOpContext& context);

  absl::StatusOr<DimFactor> FactorOf(std::string_view attribute) const;
  int64_t NumMembers() const;  // of the ring that tokens are split over
  absl::StatusOr<Tokens> KeysAt(int64_t hop, int64_t length) const;
  absl::StatusOr<Hop*> FindHop(const AttentionShape& shape, int64_t hop);
  bool RunsOnGpu(const at::Tensor& query) const {
    return query.is_cuda() && gpu_kernel_.has_value();
  }
  static std::vector<AttentionTile> Plan(const Hop& hop, AttentionRule rule, bool on_gpu);
  int64_t NumTokens(const DimFactor& factor) const;
  absl::StatusOr<Tokens> TokensOf(const DimFactor& factor, absl::Span<const MeshCoordinate> places,
                                  int64_t length, std::string_view what) const;
  absl::Status CheckDocs(const AttentionShape& shape, const DimFactor& factor,
                         const at::Tensor& docs) const;

  const Program& program_;
  const Instruction& instruction_;
  const MeshCoordinate place_;
  DimFactor q_factor_;
  DimFactor k_factor_;
  int64_t piece_ = 1;  // tokens for each one of the factor
  bool is_gathered_ = false;
  AttentionRule rule_;  // without documents
  double scale_ = 1;
  std::optional<AttentionKernel> gpu_kernel_;
  std::map<int64_t, Hop> hops_;
};

}  // namespace autosp
