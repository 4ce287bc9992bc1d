// Forward of blockwise attention: the attention of local queries over one block of keys, merged
// into a running result. After all blocks the result is softmax attention over all keys.
//
// Outputs of blocks are normalised, so two of them are put together by their log-sum-exps. All of
// it is in fp32: ATen's kernel rounds its output to the dtype of q, and with bf16 every tile and
// every hop of a ring would round once more. Nor is the kernel faster in bf16.
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>

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

// Merges one row. The weights of both sides sum to 1.
void MergeRow(float* acc, float* lse, const float* block, float block_lse, int64_t head_dim) {
  if (block_lse == kNothing) return;
  if (*lse == kNothing) {
    BlendRow(acc, block, head_dim, 0.0F, 1.0F);
    *lse = block_lse;
    return;
  }
  const float high = std::max(*lse, block_lse);
  const float both = high + std::log1p(std::exp(std::min(*lse, block_lse) - high));
  BlendRow(acc, block, head_dim, std::exp(*lse - both), std::exp(block_lse - both));
  *lse = both;
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
  const auto operand = [&](const at::Tensor& x) { return KernelOperand(x, shape.head_dim()); };
  return attention.ForEachCall(shape, call.integers[7], docs, [&](const AttentionCall& tile) {
    const AttentionSlice slice =
        AttendSlice(shape, tile.batch_count, tile.tile.q_size, tile.tile.k_size);
    const bool is_causal = tile.tile.kind == TileKind::kCausal;
    const auto mask = tile.mask.defined() ? std::optional(tile.mask) : std::nullopt;
    ForEachSlice(tile, shape, slice, [&](const AttentionPart& queries, const AttentionPart& keys) {
      const auto [out, out_lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          operand(queries.Of(q)), operand(keys.Of(k)), operand(keys.Of(v)), /*dropout_p=*/0,
          is_causal, mask, attention.scale());
      MergeTile(queries.Of(acc), queries.Of(lse), out, out_lse, tile.row_has_keys);
    });
  });
}

}  // namespace

// (acc f32 [B, N, Sq, Hv], lse f32 [B, N, Sq], q [B, N, Sq, H], k [B, K, Sk, H], v [B, K, Sk, Hv],
//  q_docs and k_docs i64 [B or 1, S] | none, hop) {axes, causal, factor, kv_factor, scale, window}
//
// acc and lse are merged with the attention of q over k and v, which are those of the ring member
// `hop` places before this one. They begin as 0 and -inf, and stay so in rows that may attend to
// nothing. Its workspace is AttendBlockWorkspace.
absl::StatusOr<OwnOp> MakeAttendBlock(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 8, 0));
  ASSIGN_OR_RETURN(BlockAttention made, BlockAttention::Make(context));
  return [attention = std::make_shared<BlockAttention>(std::move(made))](const OwnCall& call) {
    return RunForward(call, *attention);
  };
}

}  // namespace autosp
