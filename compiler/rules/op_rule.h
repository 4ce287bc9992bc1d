// One row per op: how its dimensions relate, how its result lies in memory, its derivative, and its
// work.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/rules/factor_table.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_flops.h"

namespace autosp {

// What an op does with factors. A factor of the results that is in no list below and in the
// operands is parallel: the op may run on a shard of it, and gives the same shard of the result. A
// factor of operands that no result has is whole unless `reduced` says that shards give partial
// results.
struct OpFactors {
  std::vector<FactorDims> results = {};
  std::vector<FactorVar> whole = {};      // must not be sharded while the op runs
  std::vector<FactorVar> sum = {};        // sharded: each rank holds a partial sum
  std::vector<FactorVar> max = {};        // sharded: each rank holds a partial maximum
  std::vector<FactorVar> generated = {};  // in no operand, but any shard can be made (full, expand)
  // Of those that are whole: may be sharded where ranks exchange the tokens at borders of shards.
  std::vector<FactorVar> halo = {};
  // Nothing is known of the results but the sizes that the archive states, which do not follow
  // those of the operands.
  bool is_opaque = false;
};

using InferFactorsFn = absl::StatusOr<OpFactors> (*)(OpContext& context);

// How the strides of the result follow from the operands (compiler/rules/layout.h).
enum class ResultLayout : uint8_t {
  kContiguous,
  kElementwise,  // the order of dimensions of the operands, as ATen's TensorIterator finds it
  kView,         // shares the storage of operand 0
  kMaybeView,    // reshape, contiguous, to: a view where strides allow it, else a contiguous copy
};

// How the backward pass treats the op.
enum class Derivative : uint8_t {
  kNone,      // integer or boolean results; else as an op without a rule: a tape that keeps all
  kZero,      // the result does not depend on the operands' values: the gradient ends here
  kTaped,     // recorded; `saves` names what its tape keeps
  kExplicit,  // compiler/lowering/adjoints_*.cc spells the adjoint out
};

struct TensorExtent {
  int64_t numel = 0;
  DType dtype = DType::kF32;
  bool needs_grad = false;
};

// Bytes that an op allocates besides its results, on the CPU. A bound: kernels of GPUs need less.
// Rows take them from compiler/rules/op_workspace.h.
using Extents = std::vector<TensorExtent>;
using WorkspaceFn = int64_t (*)(const Extents& operands, const Extents& results);

struct OpRule {
  std::string_view op;  // "aten.mul.Tensor"
  InferFactorsFn infer;
  ResultLayout layout = ResultLayout::kContiguous;
  Derivative derivative = Derivative::kNone;
  // What a taped op keeps for its derivative. Tokens: `iN` operand N, `rN` result N; `iN/M`:
  // operand N, where operand M needs a gradient. Operands are counted over tensors only.
  std::string_view saves = "";
  // Bytes that the derivative allocates besides its results, in halves of the largest floating
  // operand or result.
  int vjp_workspace_halves = 0;
  // Linear in operand 0 with the other operands fixed, for most literals: ask IsLinear.
  bool linear = false;
  // More of `vjp_workspace_halves`, where operand 1 needs a gradient.
  int second_workspace_halves = 0;
  // Floating point operations; none: nothing beside products.
  FlopsFn flops = nullptr;
  // Of the op itself; none: nothing but its results.
  WorkspaceFn workspace = nullptr;
};

// Whether this node maps partial sums in operand 0 to partial sums.
bool IsLinear(const OpRule& rule, const Graph& graph, const Node& node);

// A tensor that a taped op keeps: an operand, counted over tensors, or a result.
struct SavedTensor {
  bool is_result = false;
  size_t index = 0;
};
// What `saves` names where the operands in `needs_grad` need gradients.
std::vector<SavedTensor> SavedTensors(const OpRule& rule, const std::vector<bool>& needs_grad);

// What the derivative of a taped op allocates and frees itself, at its peak. A gradient that is
// summed to an operand that was stretched is made whole first, and half types are summed in fp32.
int64_t VjpWorkspaceBytes(const OpRule& rule, const std::vector<TensorExtent>& operands,
                          const std::vector<TensorExtent>& results);

// Position of the argument that spells out the sizes of the result; nullopt: the op has none.
std::optional<size_t> SizeArgument(std::string_view op);

// Attention as exported, and with a mask that is a function of indices (recognize-masks):
//
//   autosp.attention(q, k, v, q_docs, k_docs, causal, window, scale)
//
// q [B, N, S, H]; k, v [B, K, S, H], consecutive query heads share a kv head. A query at i attends
// to the key at j where all of these hold: q_docs[b, i] == k_docs[b, j] (i64 [B or 1, S]; none
// stands for 0, both none for no condition); j <= i if `causal`; i - j < window, and also
// j - i < window if not causal, where window > 0.
inline constexpr std::string_view kSdpa = "aten.scaled_dot_product_attention.default";
inline constexpr std::string_view kMaskedAttention = "autosp.attention";

// autosp.dropout(x, probability, number, always): number counts the dropouts of the graph
// (expand-dropout); always: in validation too, as the model draws numbers itself.
inline constexpr std::string_view kDropout = "autosp.dropout";

// autosp.all_tokens(x, dim): x itself, where every rank needs all tokens of dim; the tokens of its
// result are a dimension of their own, that no rank has a shard of (split-rows).
inline constexpr std::string_view kAllTokens = "autosp.all_tokens";

// nullptr: the op has no rule. It is gathered, computed in full and sliced.
const OpRule* FindOpRule(std::string_view op);
const std::vector<OpRule>& AllOpRules();

// The families, one file each; a new op is a row in one of them.
std::vector<OpRule> ElementwiseRules();
std::vector<OpRule> ViewRules();
std::vector<OpRule> ContractionRules();
std::vector<OpRule> ConvolutionRules();
std::vector<OpRule> ReductionRules();
std::vector<OpRule> CreationRules();
std::vector<OpRule> IndexingRules();
std::vector<OpRule> LossRules();
std::vector<OpRule> PoolingRules();
std::vector<OpRule> FourierRules();
std::vector<OpRule> TokenWindowRules();

// The rule of an op without one, and of forms that a rule does not know: everything is whole.
// Results have the factors that opaque_sizes.h finds in the operands, or else some of their own.
absl::StatusOr<OpFactors> InferOpaque(OpContext& context);

// Broadcasts dimensions as ATen does: aligned at the right, size 1 stretches.
absl::StatusOr<FactorDims> BroadcastFactors(OpContext& context,
                                            const std::vector<ValueId>& operands);

// A dimension of a result that no operand has: the factor that its expression names, else a new
// one.
FactorDim FactorOfSize(OpContext& context, const SymInt& size);

// Appends all factors of `dim` to `out`.
void AppendFactors(const FactorDim& dim, std::vector<FactorVar>* out);

}  // namespace autosp
