// Ops of our own: what ATen does not have, or has too slowly or with too much memory.
//
// An instruction `call` or `update` whose op is "autosp.<name>" is prepared once by the factory of
// that name, which reads attributes and literals, and then run with the tensors of the moment.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/program/program.h"

namespace autosp {

// One argument with its tensors: none for a literal or `none`, one for a value, several for a list.
// An undefined tensor stands for `none` in a list.
using OwnArgument = std::vector<at::Tensor>;

struct OwnCall {
  absl::Span<const OwnArgument> args;  // in the order of Instruction::args
  // By argument: a literal integer, or what the loop variable that a string names is now; else 0.
  absl::Span<const int64_t> integers;
  int64_t micro_step = 0;  // loop variables; 0 outside of a loop
  int64_t tile = 0;
  std::vector<at::Tensor>& results;  // to be filled; empty for updates
};

// Throws what libtorch throws (CatchTorch is the caller's).
using OwnOp = std::function<absl::Status(const OwnCall&)>;

struct OwnOpContext {
  const Program& program;
  const Instruction& instruction;
  const MeshCoordinate& place;
  // Of results; operands are where they are.
  c10::Device device{c10::DeviceType::CPU};
};
using OwnOpFactory = absl::StatusOr<OwnOp> (*)(const OwnOpContext&);

// Null if there is no such op. `name` with its prefix: "autosp.adamw_".
OwnOpFactory FindOwnOp(std::string_view name);

// All names, sorted.
std::vector<std::string_view> OwnOpNames();

// Number of arguments, and how many results; an error names the op.
absl::Status CheckArity(const Instruction& instruction, size_t num_args, size_t num_results);

// Literals among the arguments.
absl::StatusOr<int64_t> IntArgument(const Instruction& instruction, size_t index);

// A number among the attributes; `fallback` where it is absent.
absl::StatusOr<double> FloatAttributeOr(const Instruction& instruction, std::string_view key,
                                        double fallback);

absl::StatusOr<OwnOp> MakeAttendBlock(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeAttendBlockBackward(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeCrossEntropy(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeCrossEntropySum(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeCrossEntropyBackward(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeDropout(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeExpertMm(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeExpertMmWeightGrad(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeFftC2c(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeFftC2r(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeFftR2c(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeShardIndices(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeShardEdges(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeTokenConv(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeTokenConvInputGrad(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeTokenConvWeightGrad(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeTokenShift(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeUniform(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeToShards(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeFromShards(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeSdpa(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeSdpaBackward(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeAdamW(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeSgd(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeGradNorm(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeSumOfSquares(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeNormOfSums(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeClip(const OwnOpContext& context);
absl::StatusOr<OwnOp> MakeMatmulAccumulate(const OwnOpContext& context);

}  // namespace autosp
