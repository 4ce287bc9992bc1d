// From the labels of an op (op_shape.h) and the placement of its operands to that of its results.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {
namespace {

std::string LabelText(const PlacedDim& dim) { return ToText({dim}); }

}  // namespace

// The padding of indices that are padded alike is known under one name. So a tensor runs over all
// of them, or over none: of one that runs over some, nobody could say which positions are meant.
absl::Status Interpreter::CheckPaddedAlike(const OpCall& call, const OpShape& shape,
                                           const Placed& placed) const {
  std::map<PadKey, std::vector<int>> labels_of;
  for (size_t label = 0; label < placed.labels.size(); ++label) {
    for (const PadKey& key : PadKeys({placed.labels[label]})) {
      labels_of[key].push_back(static_cast<int>(label));
    }
  }
  for (const auto& [key, alike] : labels_of) {
    const auto runs_over_some = [&alike = alike](const std::vector<int>& tensor) {
      const auto is_run_over = [&](int label) { return std::ranges::count(tensor, label) > 0; };
      return std::ranges::any_of(alike, is_run_over) && !std::ranges::all_of(alike, is_run_over);
    };
    if (std::ranges::none_of(shape.operands, runs_over_some) &&
        std::ranges::none_of(shape.results, runs_over_some)) {
      continue;
    }
    return NotProven(call.instruction,
                     absl::StrCat(alike.size(), " indices of the op are padded alike, from ",
                                  key.size, " to ", key.padded_size));
  }
  return absl::OkStatus();
}

// Everything that runs over the same index is split in the same way, and no axis splits two
// indices.
absl::Status Interpreter::PlaceLabels(const OpCall& call, const OpShape& shape, Placed* placed) {
  std::vector<bool> is_set(shape.roles.size(), false);
  placed->labels.resize(shape.roles.size());
  if (shape.operands.size() != call.operands.size()) {
    return NotProven(call.instruction, "a number of operands that the checker does not know");
  }
  for (size_t i = 0; i < call.operands.size(); ++i) {
    if (shape.operands[i].size() != call.operands[i].size()) {
      return NotProven(call.instruction, "a number of dimensions that the checker does not know");
    }
    for (size_t j = 0; j < call.operands[i].size(); ++j) {
      const int label = shape.operands[i][j];
      const PlacedDim& dim = call.operands[i][j];
      if (label == OpShape::kNone) continue;
      if (is_set[label] && placed->labels[label] != dim) {
        return Refuse(call.instruction,
                      absl::StrCat("dimension ", j, " of operand ", i, " is ", LabelText(dim),
                                   ", but the same index is ", LabelText(placed->labels[label]),
                                   " elsewhere in the op"));
      }
      placed->labels[label] = dim;
      is_set[label] = true;
    }
  }
  for (size_t i = 0; i < shape.results.size() && i < call.results.size(); ++i) {
    for (size_t j = 0; j < shape.results[i].size() && j < call.results[i].size(); ++j) {
      const int label = shape.results[i][j];
      // What no operand has is new: a result's own dimension, which must be whole.
      if (label == OpShape::kNone || is_set[label]) continue;
      placed->labels[label] = call.results[i][j];
      is_set[label] = true;
    }
  }
  AxisList used;
  for (size_t label = 0; label < shape.roles.size(); ++label) {
    const PlacedDim& dim = placed->labels[label];
    if (shape.roles[label] == Role::kWhole && !IsWhole(dim)) {
      return Refuse(call.instruction, absl::StrCat("the op needs whole what is ", LabelText(dim)));
    }
    for (Axis axis : ShardAxes(dim)) {
      if (Holds(used, axis)) {
        return Refuse(call.instruction, absl::StrCat("the axis ", std::string(AxisName(axis)),
                                                     " splits two indices of the op"));
      }
      used.push_back(axis);
    }
  }
  return CheckPaddedAlike(call, shape, *placed);
}

namespace {

// histc(x, bins, min, max) counts no element outside of its range.
bool IsOutsideOfBins(const OpCall& call, const PadState& pad) {
  if (call.instruction.op != "aten.histc.default") return false;
  if (pad.kind != PadState::Kind::kConstant) return false;
  return pad.constant < call.Number(2).value_or(0) || pad.constant > call.Number(3).value_or(0);
}

}  // namespace

// A sum over an index includes its padding, which must be zero in one factor and a number in
// others. Where it is zero in one and not known in another, the sum may be right.
absl::Status Interpreter::CheckReducedPadding(const OpCall& call, const OpShape& shape, int label,
                                              const PlacedDim& dim,
                                              const std::vector<const ValueState*>& operands) {
  if (label == shape.masked) return absl::OkStatus();
  for (const PadKey& key : PadKeys({dim})) {
    bool has_zero = false;
    bool all_finite = true;
    bool is_wrong = false;
    std::string held;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (std::ranges::count(shape.operands[i], label) == 0) continue;
      const auto found = operands[i]->pads.find(key);
      const PadState pad = found == operands[i]->pads.end() ? PadState::Unknown() : found->second;
      const bool is_factor =
          shape.linear == Linear::kEach || (shape.linear == Linear::kFirst && i == 0);
      has_zero = has_zero || (is_factor && pad.is_zero());
      all_finite = all_finite && pad.is_finite();
      is_wrong = is_wrong || pad.is_no_number();
      absl::StrAppend(&held, held.empty() ? "" : " and ", ToText(pad));
      if (IsOutsideOfBins(call, pad)) return absl::OkStatus();
      if (call.instruction.op != "autosp.cross_entropy_sum" || i != 1) continue;
      // Ignored targets add nothing, whatever the logits.
      if (Ignores(call, 2, operands[i]->pads, key)) return absl::OkStatus();
    }
    if (shape.roles[label] == Role::kSum && has_zero && all_finite) continue;
    const std::string why =
        absl::StrCat("padding reaches a reduction over ", LabelText(dim), ": it holds ", held);
    // The other factor may be a number.
    const bool is_open = shape.roles[label] == Role::kSum && has_zero && !is_wrong;
    return is_open ? NotProven(call.instruction, why) : Refuse(call.instruction, why);
  }
  return absl::OkStatus();
}

// A partial sum passes through an op that is linear in it, if nothing else varies on its axes.
absl::Status Interpreter::CarryPartial(const OpCall& call, const OpShape& shape,
                                       const std::vector<const ValueState*>& operands,
                                       Placed* placed) {
  size_t num_partial = 0;
  size_t which = 0;
  bool are_sums = true;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i]->partial.empty()) continue;
    ++num_partial;
    which = i;
    are_sums = are_sums && operands[i]->reduction == Reduction::kSum;
    placed->carried = operands[i]->partial;
    placed->reduction = operands[i]->reduction;
  }
  if (num_partial == 0) return absl::OkStatus();
  AxisList used;
  for (const PlacedDim& dim : placed->labels) used = Plus(used, ShardAxes(dim));
  bool passes = are_sums && !HoldsAny(used, placed->carried);
  switch (shape.linear) {
    case Linear::kNo:
      // Of parts that are masked by the same condition, and else zero, the sum is what is masked.
      passes = passes && call.instruction.op == "aten.where.ScalarOther" && num_partial == 1 &&
               which == 1 && call.Number(2) == 0.0;
      break;
    case Linear::kFirst:
      // 1 / x has no first tensor.
      passes = passes && num_partial == 1 && which == 0 && call.HasTensor(0);
      break;
    case Linear::kEach:
      passes = passes && num_partial == 1;
      break;
    case Linear::kJointly:
      // x + 1 would add the number once per rank.
      passes = passes && (operands.size() > 1 || NumInputs(call.instruction.op) < 2);
      for (const ValueState* operand : operands) {
        // What is zero over all ranks together may be something else on each of them.
        const bool is_zero = operand->partial.empty() && operand->meaning.is_zero();
        passes = passes && (operand->partial == placed->carried || is_zero);
      }
      break;
  }
  const Instruction& instruction = call.instruction;
  if (instruction.op == "aten.to.dtype") {
    const DType from = program_.value(OperandsOf(instruction)[0]).dtype;
    const DType to = program_.value(instruction.results[0]).dtype;
    passes = passes && (IsFloating(to) || (!IsFloating(from) && to != DType::kBool));
  }
  if (passes) return absl::OkStatus();
  return Refuse(instruction,
                absl::StrCat("operand ", which, " is a partial sum over ",
                             AxisListName(operands[which]->partial),
                             ", which does not pass through this op: it must be reduced first"));
}

absl::StatusOr<Interpreter::Placed> Interpreter::PlaceOp(
    const OpCall& call, const OpShape& shape, const std::vector<const ValueState*>& operands) {
  Placed placed;
  RETURN_IF_ERROR(PlaceLabels(call, shape, &placed));
  RETURN_IF_ERROR(CarryPartial(call, shape, operands, &placed));
  placed.partial.assign(shape.results.size(), placed.carried);
  for (size_t label = 0; label < shape.roles.size(); ++label) {
    const PlacedDim& dim = placed.labels[label];
    const bool reduces = shape.roles[label] == Role::kSum || shape.roles[label] == Role::kMax;
    if (!reduces) continue;
    RETURN_IF_ERROR(CheckReducedPadding(call, shape, static_cast<int>(label), dim, operands));
    const AxisList axes = ShardAxes(dim);
    if (axes.empty()) continue;
    for (size_t i = 0; i < shape.results.size(); ++i) {
      const bool kept = std::ranges::count(shape.results[i], static_cast<int>(label)) > 0;
      if (!kept) placed.partial[i] = Plus(placed.partial[i], axes);
    }
    const Reduction kind = shape.roles[label] == Role::kMax ? Reduction::kMax : Reduction::kSum;
    if (kind != placed.reduction && !placed.carried.empty()) {
      return Refuse(call.instruction, "a maximum of what is a partial sum");
    }
    placed.reduction = kind;
  }
  const bool is_max = placed.reduction == Reduction::kMax;
  const auto is_partial = [](const AxisList& axes) { return !axes.empty(); };
  if (is_max && call.instruction.kind == InstructionKind::kRecord &&
      std::ranges::any_of(placed.partial, is_partial)) {
    return Refuse(call.instruction,
                  "each rank would give a gradient to the maximum of its own part");
  }
  return placed;
}

PlacedDims Interpreter::DimsOf(const std::vector<int>& labels, const Placed& placed) const {
  PlacedDims dims;
  for (int label : labels) {
    dims.push_back(label == OpShape::kNone ? PlacedDim{} : placed.labels[label]);
  }
  return dims;
}

namespace {

// Where the result is padded: what the operand has there.
PadState PadOfOperand(const ValueState& operand, const PadKey& key) {
  const PadState pad = PadIn(operand.pads, operand.dims, key);
  const bool is_open = pad.kind == PadState::Kind::kValid && !operand.holds.is_finite();
  return is_open ? PadState::Open() : pad;
}

// The operand that says what an op chooses, position by position.
std::optional<size_t> ConditionOf(const std::string& op) {
  if (op.starts_with("aten.where.")) return 0;
  return op.starts_with("aten.masked_fill.") ? std::optional<size_t>(1) : std::nullopt;
}

// The same where the op chooses between operands: of a constant, valid positions may choose the
// numbers alone, and padding, if it does not choose as they do, an infinity.
PadState PadOfChoice(const std::string& op, const std::vector<const ValueState*>& operands,
                     size_t index, const PadKey& key) {
  const ValueState& operand = *operands[index];
  const PadState pad = PadOfOperand(operand, key);
  const std::optional<size_t> condition = ConditionOf(op);
  if (!condition || *condition >= operands.size()) return pad;
  const bool is_same = PadOfOperand(*operands[*condition], key).kind == PadState::Kind::kValid;
  const bool is_open = pad.is_open() && !operand.holds.is_finite();
  return is_open && !is_same ? operand.holds : pad;
}

// Whether operands are the same for all positions, valid and padded, though stretched over them.
bool AreTheSame(const std::vector<const ValueState*>& operands, const PadKey& key) {
  return std::ranges::all_of(operands, [&](const ValueState* operand) {
    return PadIn(operand->pads, operand->dims, key).kind == PadState::Kind::kValid;
  });
}

// Whether more is known of a number than that it is one. Of a truth value nothing else counts.
bool SaysSign(const OpCall& call, const PadState& pad) {
  const bool is_truth = call.program.value(call.instruction.results[0]).dtype == DType::kBool;
  return pad.is_zero() || pad.is_nonzero() || (pad.is_non_negative() && !is_truth);
}

// Whether valid positions may read the numbers of a table alone, and padding an infinity. Places
// of the padding itself are beyond those of all tokens: a table by place goes on there.
bool LooksUpOpen(const OpCall& call, const std::vector<const ValueState*>& operands,
                 const PadKey& key) {
  const std::string& op = call.instruction.op;
  const bool looks_up = op == "aten.index.Tensor" || op == "aten.index_select.default" ||
                        op == "aten.embedding.default" || op == "aten.gather.default" ||
                        op == "aten.take.default" || op == "aten.take_along_dim.default";
  if (!looks_up || !PadOfOperand(*operands[0], key).is_open()) return false;
  return std::any_of(operands.begin() + 1, operands.end(), [&](const ValueState* index) {
    const PadState::Kind kind = PadOfOperand(*index, key).kind;
    return kind != PadState::Kind::kBeyond && kind != PadState::Kind::kValid;
  });
}

// The tensors and numbers of an elementwise op in order; `pad_of` is asked for each tensor.
template <typename PadOf>
std::vector<PadState> InputsOf(const OpCall& call, const PadOf& pad_of) {
  std::vector<PadState> inputs;
  size_t next = 0;
  const auto num_inputs = static_cast<size_t>(NumInputs(call.instruction.op));
  for (size_t arg = 0; arg < call.instruction.args.size() && arg < num_inputs; ++arg) {
    if (call.HasTensor(arg)) {
      inputs.push_back(pad_of(next++));
    } else if (const std::optional<double> number = call.Number(arg)) {
      inputs.push_back(PadState::Constant(*number));
    }
  }
  return inputs;
}

// What the op makes of its tensors and numbers, with the arguments that follow them.
PadState PadOfInputs(const OpCall& call, std::vector<PadState> inputs) {
  const std::string& op = call.instruction.op;
  const DType dtype = call.program.value(call.instruction.results[0]).dtype;
  if (op == "aten.to.dtype" && inputs.size() == 1) return PadOfCast(inputs[0], dtype);
  const double alpha = call.Number(2).value_or(1);
  if (op == "aten.add.Tensor" && inputs.size() == 2 && alpha != 1) {
    inputs[1] = PadOfElementwise("aten.mul.Tensor", {inputs[1], PadState::Constant(alpha)});
  }
  // Bounds are numbers of the result's type.
  const auto is_positive_bound = [&](size_t arg, double otherwise) {
    const PadState bound = PadState::Constant(call.Number(arg).value_or(otherwise));
    return PadOfCast(bound, dtype).is_positive();
  };
  if (op == "aten.clamp.default" && !inputs.empty() && inputs[0].is_finite() &&
      is_positive_bound(1, 0) && is_positive_bound(2, 1)) {
    return {PadState::Kind::kPositive, 0};
  }
  // Products of integers wrap around.
  const std::vector<ValueId> operands = OperandsOf(call.instruction);
  const bool is_square = op == "aten.mul.Tensor" && operands.size() == 2 &&
                         operands[0] == operands[1] && IsFloating(dtype);
  if (is_square) return PadOfElementwise("aten.square.default", {inputs[0]});
  return PadOfElementwise(op, inputs);
}

}  // namespace

// Of what is made of constants alone, or with one; their elements may all be read, or only some.
PadState Interpreter::HoldsOf(const OpCall& call, const OpShape& shape,
                              const std::vector<const ValueState*>& operands) const {
  if (operands.empty()) return PadState::Valid();
  const std::string& op = call.instruction.op;
  bool is_data = false;
  bool are_finite = true;
  for (const ValueState* operand : operands) {
    is_data = is_data || operand->holds.kind == PadState::Kind::kValid;
    are_finite = are_finite && operand->holds.is_finite();
  }
  // Of integers and truth values all are numbers.
  const bool is_floating = IsFloating(call.program.value(call.instruction.results[0]).dtype);
  if (is_data) {
    const bool passes = (shape.is_elementwise || PicksElements(op)) && !ConditionOf(op) &&
                        op != "aten.nan_to_num.default";
    return is_floating && passes && !are_finite ? PadState::Unknown() : PadState::Valid();
  }
  PadState holds = are_finite && !shape.needs_spread ? PadState::Finite() : PadState::Unknown();
  if (shape.is_elementwise) {
    const auto held = [&](size_t operand) { return operands[operand]->holds; };
    holds = PadOfInputs(call, InputsOf(call, held));
  }
  return is_floating || holds.is_finite() ? holds : PadState::Finite();
}

PadMap Interpreter::PadsOf(const OpCall& call, const OpShape& shape,
                           const std::vector<const ValueState*>& operands,
                           const PlacedDims& result) const {
  PadMap pads;
  for (const PadKey& key : PadKeys(result)) {
    const auto pad_of = [&](size_t operand) { return PadOfOperand(*operands[operand], key); };
    if (shape.is_elementwise) {
      const auto chosen = [&](size_t operand) {
        return PadOfChoice(call.instruction.op, operands, operand, key);
      };
      pads[key] = PadOfInputs(call, InputsOf(call, chosen));
      const bool is_same = call.instruction.op.starts_with("aten.") && AreTheSame(operands, key);
      if (is_same && !SaysSign(call, pads[key])) pads[key] = PadState::Valid();
      continue;
    }
    bool all_finite = true;
    bool all_below = true;
    bool has_zero = false;
    bool has_open = false;
    for (size_t i = 0; i < operands.size(); ++i) {
      const PadState pad = pad_of(i);
      all_finite = all_finite && pad.is_finite();
      all_below = all_below && pad.is_below();
      has_zero = has_zero || pad.is_zero();
      has_open = has_open || pad.is_open();
    }
    const PadState first = operands.empty() ? PadState::Finite() : pad_of(0);
    if (LooksUpOpen(call, operands, key)) {
      pads[key] = PadState::Unknown();
    } else if (IsSoftmaxAlike(call.instruction.op, first)) {
      // The logarithm of what is hidden is minus infinity, as it is where valid positions are.
      const bool is_logarithm = call.instruction.op == "aten._log_softmax.default";
      pads[key] = is_logarithm ? first : PadState::Open();
    } else if (!all_finite && all_below && PicksElements(call.instruction.op)) {
      pads[key] = {PadState::Kind::kBelow, 0};
    } else if (!all_finite || shape.needs_spread) {
      pads[key] = PadState::Unknown();
    } else if ((shape.keeps_zero && has_zero) || (shape.keeps_zero_of_first && first.is_zero())) {
      pads[key] = PadState::Zero();
    } else if (shape.gives_non_negative ||
               (shape.keeps_zero && shape.linear == Linear::kFirst && first.is_non_negative())) {
      // A spread or a norm; a sum or a mean of what is not negative.
      pads[key] = {PadState::Kind::kNonNegative, 0};
    } else {
      const bool stays_open = has_open && PicksElements(call.instruction.op);
      pads[key] = stays_open ? PadState{PadState::Kind::kLike, 0} : PadState::Finite();
    }
  }
  return pads;
}

// What some ops say of their padding beyond what their operands' says. That the weights of a router
// are positive lets them be divided by their sum.
PadMap Interpreter::PadsOfResult(const OpCall& call, const OpShape& shape,
                                 const std::vector<const ValueState*>& operands,
                                 const PlacedDims& result, size_t index,
                                 const Tensor& meaning) const {
  PadMap pads = PadsOf(call, shape, operands, result);
  const std::string& op = call.instruction.op;
  if (IsWindowOp(op)) {
    SetWindowPads(call, result, &pads);
    return pads;
  }
  // Indices beyond the last valid one are not below the number of valid ones.
  const bool is_validity = op == "aten.lt.Scalar" && IsTrue(meaning);
  const bool is_loss = op == "autosp.cross_entropy" && index == 0;
  for (auto& [key, pad] : pads) {
    const bool is_beyond =
        is_validity && PadOfOperand(*operands[0], key).kind == PadState::Kind::kBeyond;
    if (is_beyond || (is_loss && Ignores(call, 2, operands[1]->pads, key))) {
      pad = PadState::Zero();
    } else if (!operands.empty() && index == 0) {
      const PadState first = PadOfOperand(*operands[0], key);
      const bool is_positive = (shape.gives_positive && first.is_finite()) ||
                               (shape.keeps_positive && first.is_positive());
      if (is_positive) pad = {PadState::Kind::kPositive, 0};
    }
    // Places are numbers, whatever stands there.
    if (index == 1 && PicksElements(op)) pad = {PadState::Kind::kNonNegative, 0};
  }
  return pads;
}

}  // namespace autosp::checker
