// Ops that work position by position, with broadcasting: every index is parallel.
#include <algorithm>
#include <map>

#include "compiler/checker/op_shape.h"

namespace autosp::checker {
namespace {

struct Row {
  int num_inputs = 1;
  Linear linear = Linear::kNo;
};

using Table = std::map<std::string_view, Row>;

Table Arithmetic() {
  return {
      {"aten.add.Tensor", {2, Linear::kJointly}},
      {"aten.sub.Tensor", {2, Linear::kJointly}},
      {"aten.to.dtype", {1, Linear::kFirst}},
      {"aten.clone.default", {1, Linear::kFirst}},
      {"aten.detach.default", {1, Linear::kFirst}},
      {"aten.mul.Tensor", {2, Linear::kEach}},
      {"aten.div.Tensor", {2, Linear::kFirst}},
      {"aten.pow.Tensor_Scalar", {2}},
      {"aten.pow.Tensor_Tensor", {2}},
      {"aten.rsqrt.default", {}},
      {"aten.sqrt.default", {}},
      {"aten.reciprocal.default", {}},
      {"aten.exp.default", {}},
      {"aten.exp2.default", {}},
      {"aten.expm1.default", {}},
      {"aten.log.default", {}},
      {"aten.log1p.default", {}},
      {"aten.log2.default", {}},
      {"aten.sin.default", {}},
      {"aten.cos.default", {}},
      {"aten.tan.default", {}},
      {"aten.tanh.default", {}},
      {"aten.sigmoid.default", {}},
      {"aten.log_sigmoid.default", {}},
      {"aten.silu.default", {}},
      {"aten.relu.default", {}},
      {"aten.softplus.default", {3}},
      {"aten.elu.default", {}},
      {"aten.mish.default", {}},
      {"aten.hardtanh.default", {}},
      {"aten.hardswish.default", {}},
      {"aten.erf.default", {}},
      {"aten.abs.default", {}},
      {"aten.sign.default", {}},
      {"aten.square.default", {}},
      {"aten.floor.default", {}},
      {"aten.ceil.default", {}},
      {"aten.round.default", {}},
      {"aten.isnan.default", {}},
      {"aten.isinf.default", {}},
      {"aten.clamp.default", {}},
      {"aten.clamp_min.default", {2}},
      {"aten.clamp_max.default", {}},
      {"aten.rsub.Scalar", {2}},
      {"aten.rsub.Tensor", {2}},
      {"aten.maximum.default", {2}},
      {"aten.minimum.default", {2}},
      {"aten.floor_divide.default", {2}},
      {"aten.remainder.Scalar", {2}},
      {"aten.remainder.Tensor", {2}},
      {"aten.div.Tensor_mode", {2}},
      {"aten.addcmul.default", {3}},
      {"aten.binary_cross_entropy.default", {3}},
      // Which elements it keeps is a function of their place in the whole tensor and of the step.
      {"autosp.dropout", {1, Linear::kFirst}},
      {"autosp.uniform", {1, Linear::kNo}},
  };
}

Table RareFunctions() {
  return {
      {"aten.acos.default", {}},        {"aten.acosh.default", {}},
      {"aten.addcdiv.default", {3}},    {"aten.asin.default", {}},
      {"aten.asinh.default", {}},       {"aten.atan.default", {}},
      {"aten.atan2.default", {2}},      {"aten.atanh.default", {}},
      {"aten.celu.default", {}},        {"aten.clamp.Tensor", {3}},
      {"aten.clamp_max.Tensor", {2}},   {"aten.clamp_min.Tensor", {2}},
      {"aten.copysign.Scalar", {2}},    {"aten.copysign.Tensor", {2}},
      {"aten.cosh.default", {}},        {"aten.erfc.default", {}},
      {"aten.fmax.default", {2}},       {"aten.fmin.default", {2}},
      {"aten.fmod.Scalar", {2}},        {"aten.fmod.Tensor", {2}},
      {"aten.frac.default", {}},        {"aten.hardshrink.default", {}},
      {"aten.hardsigmoid.default", {}}, {"aten.hypot.default", {2}},
      {"aten.lerp.Tensor", {3}},        {"aten.log10.default", {}},
      {"aten.logaddexp.default", {2}},  {"aten.logaddexp2.default", {2}},
      {"aten.logit.default", {}},       {"aten.nan_to_num.default", {4}},
      {"aten.pow.Scalar", {2}},         {"aten.relu6.default", {}},
      {"aten.selu.default", {}},        {"aten.sinh.default", {}},
      {"aten.softshrink.default", {}},  {"aten.threshold.default", {3}},
      {"aten.trunc.default", {}},       {"aten.xlogy.Tensor", {2}},
  };
}

Table SpecialFunctions() {
  return {
      {"aten.deg2rad.default", {}},       {"aten.digamma.default", {}},
      {"aten.erfinv.default", {}},        {"aten.i0.default", {}},
      {"aten.isneginf.default", {}},      {"aten.isposinf.default", {}},
      {"aten.lgamma.default", {}},        {"aten.rad2deg.default", {}},
      {"aten.sgn.default", {}},           {"aten.signbit.default", {}},
      {"aten.sinc.default", {}},          {"aten.special_entr.default", {}},
      {"aten.special_i0e.default", {}},   {"aten.special_i1.default", {}},
      {"aten.special_i1e.default", {}},   {"aten.polygamma.default", {2}},
      {"aten.special_erfcx.default", {}}, {"aten.special_log_ndtr.default", {}},
      {"aten.special_ndtri.default", {}},
  };
}

Table ComparisonsAndChoices() {
  return {
      {"aten.neg.default", {1, Linear::kFirst}},
      {"aten.gelu.default", {}},
      {"aten.leaky_relu.default", {}},
      {"aten.bitwise_not.default", {}},
      {"aten.logical_not.default", {}},
      {"aten.lerp.Scalar", {2}},
      {"aten.where.self", {3}},
      {"aten.where.Scalar", {3}},
      {"aten.where.ScalarOther", {3}},
      {"aten.where.ScalarSelf", {3}},
      {"aten.masked_fill.Scalar", {3}},
      {"aten.masked_fill.Tensor", {3}},
      {"aten.eq.Tensor", {2}},
      {"aten.eq.Scalar", {2}},
      {"aten.ne.Tensor", {2}},
      {"aten.ne.Scalar", {2}},
      {"aten.lt.Tensor", {2}},
      {"aten.lt.Scalar", {2}},
      {"aten.le.Tensor", {2}},
      {"aten.le.Scalar", {2}},
      {"aten.gt.Tensor", {2}},
      {"aten.gt.Scalar", {2}},
      {"aten.ge.Tensor", {2}},
      {"aten.ge.Scalar", {2}},
      {"aten.__and__.Tensor", {2}},
      {"aten.__or__.Tensor", {2}},
      {"aten.__xor__.Tensor", {2}},
      {"aten.bitwise_and.Tensor", {2}},
      {"aten.bitwise_or.Tensor", {2}},
      {"aten.bitwise_xor.Tensor", {2}},
      {"aten.logical_and.default", {2}},
      {"aten.logical_or.default", {2}},
      {"aten.logical_xor.default", {2}},
  };
}

const Table& Rows() {
  static const auto& rows = *new Table([] {
    Table all = Arithmetic();
    all.merge(RareFunctions());
    all.merge(SpecialFunctions());
    all.merge(ComparisonsAndChoices());
    return all;
  }());
  return rows;
}

}  // namespace

int NumInputs(std::string_view op) {
  const auto row = Rows().find(op);
  return row == Rows().end() ? 0 : row->second.num_inputs;
}

bool DescribeElementwise(const OpCall& call, OpShape* shape, absl::Status* /*status*/) {
  const auto row = Rows().find(call.instruction.op);
  if (row == Rows().end()) return false;
  size_t rank = 0;
  for (const PlacedDims& dims : call.operands) rank = std::max(rank, dims.size());
  std::vector<int> result;
  for (size_t i = 0; i < rank; ++i) result.push_back(shape->NewLabel(Role::kParallel));
  std::vector<bool> held(rank, false);
  for (const PlacedDims& dims : call.operands) {
    std::vector<int> labels;
    for (size_t i = 0; i < dims.size(); ++i) {
      const size_t at = rank - dims.size() + i;
      const bool stretched = dims[i].empty();
      held[at] = held[at] || !stretched;
      labels.push_back(stretched ? OpShape::kNone : result[at]);
    }
    shape->operands.push_back(std::move(labels));
  }
  for (size_t i = 0; i < rank; ++i) {
    if (!held[i]) result[i] = OpShape::kNone;
  }
  shape->results.assign(call.results.size(), result);
  shape->linear = row->second.linear;
  shape->is_elementwise = true;
  return true;
}

}  // namespace autosp::checker
