// Appends the adjoint of each forward instruction: the backward is lowered, not traced.
//
// The gradient of a value lies where the value lies, with one change: where the value is replicated
// on an axis and the op was split on it, each rank finds a part of the gradient: it is a partial
// sum there. Where the value is a partial sum, its gradient is replicated. Parameters are
// replicated, so their gradients are partial on every axis; one reduction after the backward sums
// them, once.
//
// Gradients that are partial on fewer axes than the sum they join are divided by the sizes of the
// missing axes, so that the reduction counts them once too.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/lowering/program_builder.h"
#include "compiler/rules/op_rule.h"

namespace autosp {

// Instructions [first, second) of the backward that are the adjoint of a forward instruction.
using AdjointRange = std::pair<size_t, size_t>;

class BackwardLowering {
 public:
  // `gradients`: the persistent accumulator of each trained parameter, f32. `stopped`: results that
  // no gradient flows through.
  BackwardLowering(ProgramBuilder& builder, const std::map<ValueId, ValueId>& gradients,
                   const std::set<ValueId>& stopped);

  // Appends the backward of `loss` (a scalar, partial or not) to builder.body(). Instructions of
  // `forward` whose derivative is taped become records.
  absl::Status Append(std::vector<Instruction>& forward, ValueId loss);
  // Where in builder.body() the adjoint of each instruction of `forward` is.
  const std::vector<AdjointRange>& ranges() const { return ranges_; }

 private:
  // The forward instruction at hand, and the gradients of its results (invalid: none).
  struct Adjoint {
    Instruction& forward;
    std::vector<ValueId> grads;
    ValueId grad() const { return grads[0]; }
  };
  using AdjointFn = absl::Status (BackwardLowering::*)(Adjoint& adjoint);
  static const std::map<std::string, AdjointFn, std::less<>>& AdjointTable();

  // backward_lowering.cc
  void FindNeeds(const std::vector<Instruction>& forward);
  void NoteCopy(const Instruction& instruction);
  static bool KeepsResults(const Instruction& instruction);
  absl::Status AppendOne(Instruction& forward);
  bool Needs(ValueId value) const { return needs_grad_[value.index]; }
  void AddGrad(ValueId value, ValueId grad);
  void AddParameterGrad(ValueId parameter, ValueId grad);
  ValueId ScaleTo(ValueId grad, const AxisList& axes);
  bool IsExclusive(ValueId grad, int64_t pending) const;
  AxisList PartialAxes(const Instruction& forward, ValueId operand, ValueId grad) const;
  Partial PartialOf(const Instruction& forward, ValueId operand, ValueId grad) const {
    return {.axes = PartialAxes(forward, operand, grad)};
  }
  // Sums the dims that broadcasting stretched, and casts to the operand's dtype.
  ValueId SumTo(const Instruction& forward, ValueId grad, ValueId operand);
  ValueId SumOver(const Instruction& forward, ValueId grad, ValueId operand,
                  const std::vector<int64_t>& dims, bool keep);
  ValueId CastTo(ValueId operand, ValueId grad);
  // Whether a value of a half type is a trained parameter, or a view or copy of one that shows no
  // element twice. Its gradient may be in fp32.
  bool IsHalfParameter(ValueId value) const;
  ValueId Scaled(ValueId grad, double factor);
  // [T, last]: all leading dims merged.
  ValueId Flatten2D(ValueId value);
  ValueId Transposed(ValueId value);  // the last two dims swapped
  ValueId Matmul(ValueId a, ValueId b, std::vector<ProgramDim> dims, Partial partial);
  // gradient of a [out, in] matrix: a^T b over tokens, straight into a parameter's accumulator.
  void AddMatrixGrad(const Adjoint& adjoint, ValueId matrix, ValueId a, ValueId b);

  // adjoints_views.cc
  absl::Status View(Adjoint& adjoint);
  absl::Status Permute(Adjoint& adjoint);
  absl::Status Expand(Adjoint& adjoint);
  absl::Status Slice(Adjoint& adjoint);
  absl::Status Select(Adjoint& adjoint);
  absl::Status Cat(Adjoint& adjoint);
  absl::Status Pad(Adjoint& adjoint);
  absl::Status PassThrough(Adjoint& adjoint);
  // A zeroed or already accumulating gradient of `value`, to add parts into.
  ValueId GradBuffer(ValueId value, const Partial& partial);

  // adjoints_math.cc
  absl::Status Add(Adjoint& adjoint);
  absl::Status Neg(Adjoint& adjoint);
  absl::Status Dropout(Adjoint& adjoint);
  absl::Status Cast(Adjoint& adjoint);
  absl::Status MulOrDiv(Adjoint& adjoint);
  absl::Status SumOrMean(Adjoint& adjoint);
  absl::Status Linear(Adjoint& adjoint);
  absl::Status MatmulAdjoint(Adjoint& adjoint);
  absl::Status Addmm(Adjoint& adjoint);
  absl::Status Embedding(Adjoint& adjoint);
  absl::Status CrossEntropy(Adjoint& adjoint);
  absl::Status Taped(Adjoint& adjoint);
  void TapedInF32(const Adjoint& adjoint, const std::vector<bool>& wanted);
  void Record(Instruction& call, const std::vector<bool>& wanted);
  std::vector<ValueId> Vjp(const Instruction& record, const std::vector<ValueId>& grads);
  std::vector<TensorExtent> Extents(const std::vector<ValueId>& values,
                                    const std::vector<bool>& needs) const;

  // adjoints_attention.cc
  absl::Status FlashAttention(Adjoint& adjoint);
  absl::Status BlockAttention(Adjoint& adjoint);

  // adjoints_windows.cc
  absl::Status TokenShift(Adjoint& adjoint);
  absl::Status TokenConv(Adjoint& adjoint);

  // adjoints_experts.cc
  absl::Status ExpertMm(Adjoint& adjoint);
  void NoteTransposed(const Instruction& instruction);

  // adjoints_fourier.cc
  absl::Status Fourier(Adjoint& adjoint);

  // adjoints_collectives.cc
  absl::Status AllToAll(Adjoint& adjoint);
  absl::Status AllGather(Adjoint& adjoint);
  absl::Status AllReduce(Adjoint& adjoint);
  absl::Status ToShards(Adjoint& adjoint);
  absl::Status FromShards(Adjoint& adjoint);

  ProgramBuilder& builder_;
  const std::map<ValueId, ValueId>& gradients_;
  const std::set<ValueId>& stopped_;
  std::vector<AdjointRange> ranges_;
  std::vector<bool> needs_grad_;          // by value
  std::map<ValueId, ValueId> grads_;      // pending, by forward value
  std::map<StorageId, int64_t> pending_;  // pending gradients by storage
  // Reads by storage that are no alias, those of derivatives of what is kept included.
  std::map<StorageId, int64_t> forward_reads_;
  std::set<StorageId> forward_storages_;
  std::set<StorageId> parameter_storages_;  // of those that are trained, and of copies of them
  std::map<ValueId, ValueId> transposed_;   // by view: what it shows with its last dims swapped
};

}  // namespace autosp
