// Backward of blockwise attention: the gradients through one block of keys, added up.
//
// With the output and log-sum-exp over *all* keys, the probabilities of a block's pairs are those
// of the whole softmax, and the gradients of blocks only have to be summed. ATen's kernel
// takes both as they are. On CPUs it is called in fp32: in bf16 it sums the gradients of k and v in
// bf16. Kernels of GPUs sum in fp32, and round each tile's gradient once.
#include <ATen/ops/empty.h>

#include <algorithm>
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

constexpr float kInfinity = std::numeric_limits<float>::infinity();

absl::Status CheckSizes(std::string_view name, const at::Tensor& tensor,
                        const std::vector<int64_t>& sizes, at::ScalarType dtype) {
  const bool fits = tensor.sizes() == at::IntArrayRef(sizes) && tensor.scalar_type() == dtype;
  if (fits && (sizes.size() < 4 || tensor.size(3) <= 1 || tensor.stride(3) == 1)) {
    return absl::OkStatus();
  }
  return InvalidArgument(std::string(name), " ", c10::toString(tensor.scalar_type()), " [",
                         absl::StrJoin(tensor.sizes(), ", "), "] must be ", c10::toString(dtype),
                         " [", absl::StrJoin(sizes, ", "), "] with contiguous rows");
}

// The arguments by name.
struct Operands {
  explicit Operands(const OwnCall& call)
      : dq(call.args[0][0]),
        dk(call.args[1][0]),
        dv(call.args[2][0]),
        grad_out(call.args[3][0]),
        q(call.args[4][0]),
        k(call.args[5][0]),
        v(call.args[6][0]),
        out(call.args[7][0]),
        lse(call.args[8][0]),
        docs(AttentionDocs::Of(call, 9)),
        hop(call.integers[11]) {}

  at::Tensor dq, dk, dv, grad_out, q, k, v, out, lse;
  AttentionDocs docs;
  int64_t hop;
};

absl::Status CheckOperands(const AttentionShape& shape, const Operands& operands) {
  std::vector<int64_t> out_sizes = operands.q.sizes().vec();
  out_sizes[3] = shape.v_head_dim;
  const std::vector<int64_t> lse_sizes(out_sizes.begin(), out_sizes.begin() + 3);
  const at::ScalarType dtype = operands.q.scalar_type();
  RETURN_IF_ERROR(CheckSizes("dq", operands.dq, operands.q.sizes().vec(), at::kFloat));
  RETURN_IF_ERROR(CheckSizes("dk", operands.dk, operands.k.sizes().vec(), at::kFloat));
  RETURN_IF_ERROR(CheckSizes("dv", operands.dv, operands.v.sizes().vec(), at::kFloat));
  RETURN_IF_ERROR(CheckSizes("grad_out", operands.grad_out, out_sizes, dtype));
  RETURN_IF_ERROR(CheckSizes("out", operands.out, out_sizes, dtype));
  return CheckSizes("lse", operands.lse, lse_sizes, at::kFloat);
}

// A copy of lse [b, n, s] in which rows that attend to nothing have +inf: the kernel's
// exp(score - lse) is 0 there then, and not NaN.
at::Tensor FiniteProbabilities(const at::Tensor& lse) {
  if (lse.is_cuda()) return lse.masked_fill(lse.eq(-kInfinity), kInfinity);
  at::Tensor copy = at::empty(lse.sizes(), at::kFloat);
  copy.copy_(lse);
  float* data = copy.mutable_data_ptr<float>();
  std::replace(data, data + copy.numel(), -kInfinity, kInfinity);
  return copy;
}

// sum [b, n, s, H] += term [b, n, s, >= H]
void AddRows(const at::Tensor& sum, const at::Tensor& term) {
  const int64_t head_dim = sum.size(3);
  if (sum.is_cuda()) {
    sum.add_(term.narrow(3, 0, head_dim));
    return;
  }
  float* const sum_data = sum.mutable_data_ptr<float>();
  const float* const term_data = term.const_data_ptr<float>();
  ForEachRow(sum, [&](int64_t batch, int64_t head, int64_t token) {
    AddRow(sum_data + RowOffset(sum, batch, head, token),
           term_data + RowOffset(term, batch, head, token), head_dim);
  });
}

absl::Status RunBackward(const OwnCall& call, BlockAttention& attention) {
  const Operands operands(call);
  ASSIGN_OR_RETURN(const AttentionShape shape,
                   attention.ShapeOf(operands.q, operands.k, operands.v, operands.docs));
  RETURN_IF_ERROR(CheckOperands(shape, operands));
  const auto operand = [&](const at::Tensor& x) { return KernelOperand(x, shape.head_dim()); };
  return attention.ForEachCall(shape, operands.hop, operands.docs, [&](const AttentionCall& tile) {
    const AttentionSlice slice =
        AttendBackwardSlice(shape, tile.batch_count, tile.tile.q_size, tile.tile.k_size);
    const std::optional<at::Tensor> mask = MaskOn(operands.q, tile);
    ForEachSlice(tile, shape, slice, [&](const AttentionPart& queries, const AttentionPart& keys) {
      const AttentionInputs inputs = attention.InputsOf(
          shape, tile.tile, queries.Of(operands.q), keys.Of(operands.k), keys.Of(operands.v), mask);
      const auto [dq, dk, dv] = RunAttentionBackward(
          attention.KernelOf(inputs), inputs, operand(queries.Of(operands.grad_out)),
          operand(queries.Of(operands.out)), FiniteProbabilities(queries.Of(operands.lse)));
      AddRows(queries.Of(operands.dq), dq);
      AddRows(keys.Of(operands.dk), dk);
      AddRows(keys.Of(operands.dv), dv);
    });
  });
}

}  // namespace

// (dq f32 [B, N, Sq, H], dk f32 [B, K, Sk, H], dv f32 [B, K, Sk, Hv], grad_out [B, N, Sq, Hv],
//  q [B, N, Sq, H], k [B, K, Sk, H], v [B, K, Sk, Hv], out [B, N, Sq, Hv], lse f32 [B, N, Sq],
//  q_docs and k_docs i64 [B or 1, S] | none, hop)
//  {axes, causal, factor, gathered, kernel, kv_factor, piece, scale, window}
//
// Adds the gradients of the pairs of q with this block of k and v to dq, dk and dv; out and lse are
// those over all keys. Rows whose lse is -inf give nothing. Its workspace is
// AttendBlockBackwardWorkspace.
absl::StatusOr<OwnOp> MakeAttendBlockBackward(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 12, 0));
  ASSIGN_OR_RETURN(BlockAttention made, BlockAttention::Make(context));
  return [attention = std::make_shared<BlockAttention>(std::move(made))](const OwnCall& call) {
    return RunBackward(call, *attention);
  };
}

}  // namespace autosp
