// Forward of blockwise attention: the attention of local queries over one block of keys, merged
// into a running result. After all blocks the result is softmax attention over all keys.
//
// Outputs of blocks are normalised, so two of them are put together by their log-sum-exps. They are
// added up in fp32. On CPUs all of it is in fp32: ATen's kernel rounds its output to the dtype of
// q, and with bf16 every tile and every hop of a ring would round once more; nor is the kernel
// faster in bf16. On GPUs it is, by far, so that there a tile's output is rounded once.
#include <ATen/ops/logaddexp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/block_attention.h"
#include "worker/ops/own_op.h"
#include "worker/ops/row_kernels.h"

namespace autosp {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();  // log-sum-exp of no key

absl::Status CheckRunning(const AttentionShape& shape, const at::Tensor& acc,
                          const at::Tensor& lse) {
  const std::vector<int64_t> sizes = {shape.batch, shape.num_heads, shape.q_len, shape.v_head_dim};
  const bool fits = acc.sizes() == at::IntArrayRef(sizes) &&
                    lse.sizes() == at::IntArrayRef(sizes).slice(0, 3) &&
                    acc.scalar_type() == at::kFloat && lse.scalar_type() == at::kFloat &&
                    (acc.size(3) <= 1 || acc.stride(3) == 1);
  if (fits) return absl::OkStatus();
  return InvalidArgument("acc [", absl::StrJoin(acc.sizes(), ", "), "] and lse [",
                         absl::StrJoin(lse.sizes(), ", "), "] must be f32 [",
                         absl::StrJoin(sizes, ", "), "] with contiguous rows, and [B, N, Sq]");
}

float Sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

// Merges one row. The weights follow from the difference of the log-sum-exps, and not from the sum
// of both: that is rounded, to 1e-4 where scores are in the thousands, and weights that do not sum
// to 1 leave an output that is no mean of the values. A backward pass takes each value's distance
// from it, and where attention is peaky these distances are all that there is.
void MergeRow(float* acc, float* lse, const float* block, float block_lse, int64_t head_dim) {
  if (block_lse == kNothing) return;
  if (*lse == kNothing) {
    BlendRow(acc, block, head_dim, 0.0F, 1.0F);
    *lse = block_lse;
    return;
  }
  const float ahead = *lse - block_lse;
  BlendRow(acc, block, head_dim, Sigmoid(ahead), Sigmoid(-ahead));
  *lse = std::max(*lse, block_lse) + std::log1p(std::exp(-std::abs(ahead)));
}

// acc [b, n, s, H] and lse [b, n, s] with the tile's out [b, n, s, >= H] and log-sum-exp. Rows of
// the tile without a key are skipped: for them the kernel returns a log-sum-exp of 0.
void MergeTile(const at::Tensor& acc, const at::Tensor& lse, const at::Tensor& out,
               const at::Tensor& out_lse, const std::vector<uint8_t>& row_has_keys) {
  const int64_t head_dim = acc.size(3);
  float* const acc_data = acc.mutable_data_ptr<float>();
  float* const lse_data = lse.mutable_data_ptr<float>();
  const float* const out_data = out.const_data_ptr<float>();
  const float* const out_lse_data = out_lse.const_data_ptr<float>();
  ForEachRow(acc, [&](int64_t batch, int64_t head, int64_t row) {
    if (!row_has_keys.empty() && row_has_keys[row] == 0) return;
    const auto offset = [&](const at::Tensor& tensor) {
      return RowOffset(tensor, batch, head, row);
    };
    MergeRow(acc_data + offset(acc), lse_data + offset(lse), out_data + offset(out),
             out_lse_data[offset(out_lse)], head_dim);
  });
}

// The same with ATen's kernels, for a device that this thread cannot read.
void MergeTileOnDevice(const at::Tensor& acc, const at::Tensor& lse, const at::Tensor& out,
                       const at::Tensor& out_lse, const at::Tensor& row_has_keys) {
  at::Tensor term = out.narrow(3, 0, acc.size(3)).to(at::kFloat);
  at::Tensor term_lse = out_lse;
  if (row_has_keys.defined()) {
    const at::Tensor is_empty = row_has_keys.logical_not();
    term = term.masked_fill(is_empty.unsqueeze(-1), 0.0);
    term_lse = term_lse.masked_fill(is_empty, kNothing);
  }
  const at::Tensor both = at::logaddexp(lse, term_lse);
  // Where neither side has a key the weight of the term is 0, and not NaN.
  const at::Tensor is_nothing = both.eq(kNothing);
  const at::Tensor weight = term_lse.sub(lse).sigmoid_().masked_fill_(is_nothing, 0.0);
  acc.lerp_(term, weight.unsqueeze(-1));
  lse.copy_(both);
}

absl::Status RunForward(const OwnCall& call, BlockAttention& attention) {
  const at::Tensor& acc = call.args[0][0];
  const at::Tensor& lse = call.args[1][0];
  const AttentionDocs docs = AttentionDocs::Of(call, 5);
  ASSIGN_OR_RETURN(const AttentionShape shape,
                   attention.ShapeOf(call.args[2][0], call.args[3][0], call.args[4][0], docs));
  RETURN_IF_ERROR(CheckRunning(shape, acc, lse));
  const at::Tensor& q = call.args[2][0];
  const at::Tensor& k = call.args[3][0];
  const at::Tensor& v = call.args[4][0];
  return attention.ForEachCall(shape, call.integers[7], docs, [&](const AttentionCall& tile) {
    const AttentionSlice slice =
        AttendSlice(shape, tile.batch_count, tile.tile.q_size, tile.tile.k_size);
    const std::optional<at::Tensor> mask = MaskOn(q, tile);
    ForEachSlice(tile, shape, slice, [&](const AttentionPart& queries, const AttentionPart& keys) {
      const AttentionInputs inputs =
          attention.InputsOf(shape, tile.tile, queries.Of(q), keys.Of(k), keys.Of(v), mask);
      const auto [out, out_lse] = RunAttention(attention.KernelOf(inputs), inputs);
      if (q.is_cuda()) {
        MergeTileOnDevice(queries.Of(acc), queries.Of(lse), out, out_lse, RowsWithKeysOn(q, tile));
      } else {
        MergeTile(queries.Of(acc), queries.Of(lse), out, out_lse, tile.row_has_keys);
      }
    });
  });
}

}  // namespace

// (acc f32 [B, N, Sq, Hv], lse f32 [B, N, Sq], q [B, N, Sq, H], k [B, K, Sk, H], v [B, K, Sk, Hv],
//  q_docs and k_docs i64 [B or 1, S] | none, hop)
//  {axes, causal, factor, gathered, kernel, kv_factor, piece, scale, window}
//
// acc and lse are merged with the attention of q over k and v, which are those of the ring member
// `hop` places before this one, or, gathered, those of all members. They begin as 0 and -inf, and
// stay so in rows that may attend to nothing. Its workspace is AttendBlockWorkspace.
absl::StatusOr<OwnOp> MakeAttendBlock(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 8, 0));
  ASSIGN_OR_RETURN(BlockAttention made, BlockAttention::Make(context));
  return [attention = std::make_shared<BlockAttention>(std::move(made))](const OwnCall& call) {
    return RunForward(call, *attention);
  };
}

}  // namespace autosp
