#include "worker/ops/own_op.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/errors.h"

namespace autosp {
namespace {

struct TableRow {
  std::string_view name;
  OwnOpFactory factory;
};

// Keep rows sorted.
constexpr std::array kOwnOps = {
    TableRow{"autosp.adamw_", &MakeAdamW},
    TableRow{"autosp.attend_block_", &MakeAttendBlock},
    TableRow{"autosp.attend_block_backward_", &MakeAttendBlockBackward},
    TableRow{"autosp.clip_", &MakeClip},
    TableRow{"autosp.cross_entropy", &MakeCrossEntropy},
    TableRow{"autosp.cross_entropy_backward_", &MakeCrossEntropyBackward},
    TableRow{"autosp.cross_entropy_sum", &MakeCrossEntropySum},
    TableRow{"autosp.dropout", &MakeDropout},
    TableRow{"autosp.expert_mm", &MakeExpertMm},
    TableRow{"autosp.expert_mm_weight_grad", &MakeExpertMmWeightGrad},
    TableRow{"autosp.fft_c2c", &MakeFftC2c},
    TableRow{"autosp.fft_c2r", &MakeFftC2r},
    TableRow{"autosp.fft_r2c", &MakeFftR2c},
    TableRow{"autosp.from_shards", &MakeFromShards},
    TableRow{"autosp.grad_norm", &MakeGradNorm},
    TableRow{"autosp.matmul_accumulate_", &MakeMatmulAccumulate},
    TableRow{"autosp.norm_of_sums", &MakeNormOfSums},
    TableRow{"autosp.sdpa", &MakeSdpa},
    TableRow{"autosp.sdpa_backward", &MakeSdpaBackward},
    TableRow{"autosp.sgd_", &MakeSgd},
    TableRow{"autosp.shard_edges", &MakeShardEdges},
    TableRow{"autosp.shard_indices", &MakeShardIndices},
    TableRow{"autosp.sum_of_squares", &MakeSumOfSquares},
    TableRow{"autosp.to_shards", &MakeToShards},
    TableRow{"autosp.token_conv", &MakeTokenConv},
    TableRow{"autosp.token_conv_input_grad", &MakeTokenConvInputGrad},
    TableRow{"autosp.token_conv_weight_grad", &MakeTokenConvWeightGrad},
    TableRow{"autosp.token_shift", &MakeTokenShift},
    TableRow{"autosp.uniform", &MakeUniform},
};
static_assert(std::ranges::is_sorted(kOwnOps, {}, &TableRow::name));

}  // namespace

OwnOpFactory FindOwnOp(std::string_view name) {
  const auto* found = std::ranges::lower_bound(kOwnOps, name, {}, &TableRow::name);
  return found != kOwnOps.end() && found->name == name ? found->factory : nullptr;
}

std::vector<std::string_view> OwnOpNames() {
  std::vector<std::string_view> names;
  for (const TableRow& row : kOwnOps) names.push_back(row.name);
  return names;
}

absl::Status CheckArity(const Instruction& instruction, size_t num_args, size_t num_results) {
  if (instruction.args.size() != num_args) {
    return InvalidArgument(instruction.op, " takes ", num_args, " arguments, not ",
                           instruction.args.size());
  }
  if (instruction.results.size() != num_results) {
    return InvalidArgument(instruction.op, " has ", num_results, " results, not ",
                           instruction.results.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> IntArgument(const Instruction& instruction, size_t index) {
  if (const auto* value = std::get_if<SymInt>(&instruction.args[index])) return value->value;
  return InvalidArgument(instruction.op, ": argument ", index, " must be an integer");
}

absl::StatusOr<double> FloatAttributeOr(const Instruction& instruction, std::string_view key,
                                        double fallback) {
  if (!instruction.attributes.contains(key)) return fallback;
  return FloatAttribute(instruction, key);
}

}  // namespace autosp
