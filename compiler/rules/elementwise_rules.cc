// Ops that work element by element, with broadcasting. Every factor is parallel.
#include <algorithm>

#include "common/status_macros.h"
#include "compiler/ir/random_ops.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"
#include "compiler/rules/shared_dim.h"

namespace autosp {

void AppendFactors(const FactorDim& dim, std::vector<FactorVar>* out) {
  out->insert(out->end(), dim.begin(), dim.end());
}

namespace {

// Dimensions that the model cut in other ways are appended to `whole`; nullptr: they are refused.
absl::StatusOr<FactorDims> Broadcast(OpContext& context, const std::vector<ValueId>& operands,
                                     std::vector<FactorVar>* whole) {
  size_t rank = 0;
  for (ValueId id : operands) rank = std::max(rank, context.Factors(id).size());
  FactorDims result(rank);
  for (ValueId id : operands) {
    const FactorDims& dims = context.Factors(id);
    const TensorType& type = context.Type(id);
    for (size_t i = 0; i < dims.size(); ++i) {
      FactorDim& out = result[rank - dims.size() + i];
      if (dims[i].empty()) continue;
      // A factor of size 1 (a batch of one) names the dimension unless a larger one does.
      if (out.empty() || (type.sizes[i].value > 1 && context.table().Size(out) == 1)) {
        out = dims[i];
      } else if (context.table().Size(out) == type.sizes[i].value) {
        RETURN_IF_ERROR(whole == nullptr ? context.table().Unify(out, dims[i])
                                         : ShareDim(context.table(), dims[i], &out, whole));
      }
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<FactorDims> BroadcastFactors(OpContext& context,
                                            const std::vector<ValueId>& operands) {
  return Broadcast(context, operands, nullptr);
}

namespace {

absl::StatusOr<OpFactors> InferElementwise(OpContext& context) {
  OpFactors factors;
  ASSIGN_OR_RETURN(FactorDims dims, Broadcast(context, OperandsOf(context.node()), &factors.whole));
  factors.results.assign(context.node().outputs.size(), dims);
  return factors;
}

constexpr ResultLayout kLike = ResultLayout::kElementwise;
constexpr Derivative kTaped = Derivative::kTaped;
constexpr Derivative kExplicit = Derivative::kExplicit;

OpRule Taped(std::string_view op, std::string_view saves, int workspace_halves = 0) {
  return {op, InferElementwise, kLike, kTaped, saves, workspace_halves};
}
OpRule Linear(std::string_view op, std::string_view saves, int second_workspace_halves = 0) {
  return {op, InferElementwise, kLike, kTaped, saves, 0, true, second_workspace_halves};
}
OpRule Explicit(std::string_view op, bool linear = true) {
  return {op, InferElementwise, kLike, kExplicit, "", 0, linear};
}
OpRule Plain(std::string_view op, int workspace_halves = 0, int second_workspace_halves = 0) {
  return {.op = op,
          .infer = InferElementwise,
          .layout = kLike,
          .vjp_workspace_halves = workspace_halves,
          .second_workspace_halves = second_workspace_halves};
}
OpRule Constant(std::string_view op) { return {op, InferElementwise, kLike, Derivative::kZero}; }

// Comparisons, logic, integers: no derivative.
std::vector<OpRule> PlainRules() {
  return {
      Plain("aten.eq.Tensor"),
      Plain("aten.eq.Scalar"),
      Plain("aten.ne.Tensor"),
      Plain("aten.ne.Scalar"),
      Plain("aten.lt.Tensor"),
      Plain("aten.lt.Scalar"),
      Plain("aten.le.Tensor"),
      Plain("aten.le.Scalar"),
      Plain("aten.gt.Tensor"),
      Plain("aten.gt.Scalar"),
      Plain("aten.ge.Tensor"),
      Plain("aten.ge.Scalar"),
      Plain("aten.__and__.Tensor"),
      Plain("aten.__or__.Tensor"),
      Plain("aten.__xor__.Tensor"),
      Plain("aten.bitwise_and.Tensor"),
      Plain("aten.bitwise_or.Tensor"),
      Plain("aten.bitwise_xor.Tensor"),
      Plain("aten.bitwise_not.default"),
      Plain("aten.logical_and.default"),
      Plain("aten.logical_or.default"),
      Plain("aten.logical_xor.default"),
      Plain("aten.logical_not.default"),
      Plain("aten.floor_divide.default"),
      Plain("aten.remainder.Scalar"),
      Plain("aten.remainder.Tensor", 0, 6),
      Plain("aten.floor.default"),
      Plain("aten.ceil.default"),
      Plain("aten.round.default"),
      Plain("aten.trunc.default"),
      Plain("aten.sign.default"),
      Plain("aten.isnan.default"),
      With(CopyWorkspace, Plain("aten.isinf.default")),
      Plain("aten.div.Tensor_mode", 0, 2),
      // No view: what is stopped must be another value than its operand.
      Constant("aten.detach.default"),
      Constant("aten.zeros_like.default"),
      Constant("aten.ones_like.default"),
      Constant("aten.full_like.default"),
      Constant("aten.fill.Scalar"),
      Constant(kUniform),
      // Differentiable, but rare: the tape keeps all operands and results.
      Plain("aten.rsub.Scalar", 2),
      Plain("aten.rsub.Tensor", 2),
      Plain("aten.leaky_relu.default"),
      Plain("aten.log_sigmoid.default"),
      Plain("aten.elu.default"),
      Plain("aten.mish.default"),
      Plain("aten.hardtanh.default"),
      Plain("aten.hardswish.default"),
      Plain("aten.erf.default", 8),
      Plain("aten.expm1.default", 2),
      Plain("aten.log2.default", 2),
      Plain("aten.clamp_max.default", 1),
      Plain("aten.exp2.default", 2),
      Plain("aten.where.Scalar"),
      Plain("aten.where.ScalarSelf"),
  };
}

// Functions of numbers that few models use: the tape keeps all operands and results.
std::vector<OpRule> RareFunctions() {
  return {
      Plain("aten.acos.default", 10),     Plain("aten.acosh.default", 6),
      Plain("aten.addcdiv.default", 8),   Plain("aten.asin.default", 8),
      Plain("aten.asinh.default", 6),     Plain("aten.atan.default", 4),
      Plain("aten.atan2.default", 10),    Plain("aten.atanh.default", 6),
      Plain("aten.celu.default"),         Plain("aten.clamp.Tensor", 9),
      Plain("aten.clamp_max.Tensor", 4),  Plain("aten.clamp_min.Tensor", 4),
      Plain("aten.copysign.Scalar", 2),   Plain("aten.copysign.Tensor", 2),
      Plain("aten.cosh.default", 2),      Plain("aten.erfc.default", 8),
      Plain("aten.fmax.default", 5),      Plain("aten.fmin.default", 5),
      Plain("aten.fmod.Scalar"),          Plain("aten.fmod.Tensor", 0, 4),
      Plain("aten.frac.default"),         Plain("aten.hardshrink.default"),
      Plain("aten.hardsigmoid.default"),  Plain("aten.hypot.default", 2),
      Plain("aten.lerp.Tensor", 2),       Plain("aten.log10.default", 2),
      Plain("aten.logaddexp.default", 6), Plain("aten.logaddexp2.default", 6),
      Plain("aten.logit.default"),        Plain("aten.nan_to_num.default", 3),
      Plain("aten.pow.Scalar", 2),        Plain("aten.relu6.default"),
      Plain("aten.selu.default"),         Plain("aten.sinh.default", 2),
      Plain("aten.softshrink.default"),   Plain("aten.tan.default", 4),
      Plain("aten.threshold.default"),    Plain("aten.xlogy.Tensor", 5),
  };
}

// Those of torch.special and the like.
std::vector<OpRule> SpecialFunctions() {
  return {
      Plain("aten.deg2rad.default"),          Plain("aten.digamma.default", 2),
      Plain("aten.erfinv.default", 8),        Plain("aten.i0.default", 2),
      Plain("aten.isneginf.default"),         Plain("aten.isposinf.default"),
      Plain("aten.lgamma.default", 2),        Plain("aten.polygamma.default", 2),
      Plain("aten.rad2deg.default"),          Plain("aten.sgn.default"),
      Plain("aten.signbit.default"),          Plain("aten.sinc.default", 14),
      Plain("aten.special_entr.default", 6),  Plain("aten.special_erfcx.default", 6),
      Plain("aten.special_i0e.default", 8),   Plain("aten.special_i1.default", 10),
      Plain("aten.special_i1e.default", 13),  Plain("aten.special_log_ndtr.default", 12),
      Plain("aten.special_ndtri.default", 8),
  };
}

}  // namespace

std::vector<OpRule> ElementwiseRules() {
  std::vector<OpRule> rules = {
      // The adjoint of a sum of two is the gradient itself; autograd is not asked.
      Explicit("aten.add.Tensor", false),
      Explicit("aten.sub.Tensor", false),
      Explicit("aten.neg.default"),
      Explicit("aten.to.dtype"),
      Explicit("aten.clone.default"),
      Linear("aten.mul.Tensor", "i0/1 i1/0"),
      Linear("aten.div.Tensor", "i0/1 i1", 6),
      Taped("aten.pow.Tensor_Scalar", "i0", 4),
      Taped("aten.pow.Tensor_Tensor", "i0 i1 r0", 9),
      Taped("aten.rsqrt.default", "r0", 4),
      Taped("aten.sqrt.default", "r0", 2),
      Taped("aten.reciprocal.default", "r0", 4),
      Taped("aten.exp.default", "r0"),
      Taped("aten.log.default", "i0"),
      Taped("aten.log1p.default", "i0", 2),
      Taped("aten.sin.default", "i0", 2),
      Taped("aten.cos.default", "i0", 4),
      Taped("aten.tanh.default", "r0"),
      Taped("aten.sigmoid.default", "r0"),
      Taped("aten.silu.default", "i0"),
      Taped("aten.gelu.default", "i0"),
      Taped("aten.relu.default", "r0"),
      Taped("aten.softplus.default", "i0"),
      Taped("aten.abs.default", "i0", 2),
      Taped("aten.square.default", "i0", 4),
      Taped("aten.clamp.default", "i0", 2),
      Taped("aten.clamp_min.default", "i0", 1),
      Taped("aten.maximum.default", "i0 i1", 4),
      Taped("aten.minimum.default", "i0 i1", 4),
      Taped("aten.where.self", "i0"),
      Taped("aten.where.ScalarOther", "i0"),
      // As exported; passes replace them.
      Plain("aten.dropout.default"),
      Plain("aten.broadcast_tensors.default"),
      Plain("aten.expand_as.default"),
      Explicit(kDropout, /*linear=*/false),
      Taped("aten.masked_fill.Scalar", "i1"),
      Taped("aten.masked_fill.Tensor", "i1"),
      Taped("aten.lerp.Scalar", ""),
      Taped("aten.addcmul.default", "i1 i2", 2),
  };
  for (const std::vector<OpRule>& more : {PlainRules(), RareFunctions(), SpecialFunctions()}) {
    rules.insert(rules.end(), more.begin(), more.end());
  }
  return rules;
}

}  // namespace autosp
