// The vjp of a taped op: the transpose of its derivative, applied to the gradients of its results.
//
// It is linear in those. Where the op is split on an axis and an operand is not, each rank finds a
// part of the operand's gradient: a partial sum. Where a result was a partial sum, its gradient is
// replicated, and so is what follows from it.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {
namespace {

bool HoldsLabel(const std::vector<int>& labels, int label) {
  return std::ranges::count(labels, label) > 0;
}

// Which labels hold a kind of padding.
std::vector<int> LabelsWith(const OpShape& shape, const OpCall& call, const PadKey& key) {
  std::vector<int> labels;
  const auto add = [&](const std::vector<std::vector<int>>& sides,
                       const std::vector<PlacedDims>& dims) {
    for (size_t i = 0; i < sides.size() && i < dims.size(); ++i) {
      for (size_t j = 0; j < sides[i].size() && j < dims[i].size(); ++j) {
        const int label = sides[i][j];
        if (label == OpShape::kNone || HoldsLabel(labels, label)) continue;
        if (HasPad(dims[i][j], key)) labels.push_back(label);
      }
    }
  };
  add(shape.operands, call.operands);
  add(shape.results, call.results);
  return labels;
}

// The gradient of a factor is a product with the others.
bool HasZeroFactor(const TapeState& tape, size_t operand, const PadKey& key) {
  if (tape.shape.linear != Linear::kEach) return false;
  for (size_t i = 0; i < tape.operand_pads.size(); ++i) {
    if (i == operand) continue;
    if (PadIn(tape.operand_pads[i], tape.call.operands[i], key).is_zero()) return true;
  }
  return false;
}

}  // namespace

// What the derivative reads must be what the op read and wrote.
absl::Status Interpreter::CheckSaved(const Instruction& instruction, const TapeState& tape) {
  const ValueList saved = ValuesAttribute(instruction, "saved");
  if (saved.size() != tape.saved_versions.size()) {
    return Refuse(instruction, "it reads other values than the tape saves");
  }
  // The order of what was saved is that of the record; a value made again stands for the original.
  const ValueList kept = ValuesAttribute(tape.call.instruction, "saves");
  for (size_t i = 0; i < saved.size(); ++i) {
    ASSIGN_OR_RETURN(const ValueState* now, Read(instruction, saved[i]));
    const ValueState& then = state(kept[i]);
    const bool same = saved[i] == kept[i];
    // A value made again is compared with the original, which must be what it was.
    if (then.version != tape.saved_versions.at(kept[i])) {
      return Refuse(instruction,
                    absl::StrCat("the saved %", NameOf(kept[i]), " was written since"));
    }
    const bool is_alike = now->meaning == then.meaning && now->dims == then.dims &&
                          now->partial == then.partial && now->pads == then.pads &&
                          program_.value(saved[i]).dtype == program_.value(kept[i]).dtype &&
                          program_.LocalStrides(program_.value(saved[i])) ==
                              program_.LocalStrides(program_.value(kept[i]));
    if (!same && !is_alike) {
      return Refuse(instruction,
                    absl::StrCat("%", NameOf(saved[i]), " is not the saved %", NameOf(kept[i])));
    }
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RunVjp(const Instruction& instruction) {
  const auto* tape_id = std::get_if<ValueId>(&instruction.args[0]);
  const auto found = tape_id == nullptr ? tapes_.end() : tapes_.find(*tape_id);
  if (found == tapes_.end()) return Refuse(instruction, "its first operand is no tape");
  if (std::exchange(found->second.is_used, true)) {
    return Refuse(instruction, "a tape is good for one derivative, and this one had its");
  }
  const TapeState& tape = found->second;
  if (tape.depth != depth()) {
    return Refuse(instruction, "each iteration of the loop would use a tape from outside of it");
  }
  RETURN_IF_ERROR(CheckSaved(instruction, tape));
  const std::vector<int64_t> diff = IntsAttribute(tape.call.instruction, "diff");
  if (diff.size() != instruction.results.size() ||
      instruction.args.size() != tape.call.results.size() + 1) {
    return Refuse(instruction, "the numbers of gradients are not those of the tape");
  }
  std::vector<const ValueState*> grads;
  std::string key = absl::StrCat("vjp ", KeyOf(tape.call, 0));
  std::vector<NodeId> nodes = tape.operand_nodes;
  for (size_t i = 1; i < instruction.args.size(); ++i) {
    const auto* id = std::get_if<ValueId>(&instruction.args[i]);
    grads.push_back(nullptr);
    key += id == nullptr ? " -" : " g";
    if (id == nullptr) continue;
    ASSIGN_OR_RETURN(grads.back(), Read(instruction, *id));
    nodes.push_back(table_.Intern(grads.back()->meaning));
    if (grads.back()->dims != tape.call.results[i - 1]) {
      return Refuse(instruction,
                    absl::StrCat("the gradient %", NameOf(*id), " is ", ToText(grads.back()->dims),
                                 ", but the result is ", ToText(tape.call.results[i - 1])));
    }
  }
  for (size_t i = 0; i < diff.size(); ++i) {
    const auto operand = static_cast<size_t>(diff[i]);
    if (operand >= tape.operand_nodes.size()) return Refuse(instruction, "no such operand");
    Tensor meaning =
        table_.Node(absl::StrCat(key, " operand ", operand), nodes, tape.operand_shapes[operand]);
    if (tape.is_identity && operand == 1 && grads[0] != nullptr &&
        grads[0]->meaning.shape == meaning.shape) {
      meaning = grads[0]->meaning;
    }
    RETURN_IF_ERROR(DefineGrad(instruction, tape, operand, grads, meaning, instruction.results[i]));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::DefineGrad(const Instruction& instruction, const TapeState& tape,
                                     size_t operand, const std::vector<const ValueState*>& grads,
                                     const Tensor& meaning, ValueId result) {
  const OpCall& call = tape.call;
  const ValueId source = OperandsOf(call.instruction)[operand];
  const DType of = program_.value(source).dtype;
  const DType stated = program_.value(result).dtype;
  if (stated != of && !(IsHalf(of) && stated == DType::kF32)) {
    return RefuseDtype(
        instruction, result,
        absl::StrCat("is the gradient of %", NameOf(source), " of ", std::string(DTypeName(of))));
  }
  ValueState grad;
  grad.meaning = meaning;
  grad.dims = call.operands[operand];
  AxisList op_axes;
  for (const AxisList& partial : tape.operand_partials) op_axes = Plus(op_axes, partial);
  for (const PlacedDims& dims : call.operands) op_axes = Plus(op_axes, ShardAxes(dims));
  for (const PlacedDims& dims : call.results) op_axes = Plus(op_axes, ShardAxes(dims));
  bool is_first = true;
  for (const ValueState* each : grads) {
    if (each == nullptr) continue;
    if (HoldsAny(each->partial, op_axes) || (!is_first && each->partial != grad.partial)) {
      return Refuse(instruction,
                    absl::StrCat("a gradient is a partial sum over ", AxisListName(each->partial),
                                 ", on which the op is split"));
    }
    grad.partial = each->partial;
    is_first = false;
  }
  if (is_first) return Refuse(instruction, "no gradient is given");
  const std::vector<int> labels =
      tape.is_opaque ? std::vector<int>{} : tape.shape.operands[operand];
  // Where the operand lacks the index, or another operand was a partial sum, its gradient is one.
  const AxisList held = Plus(ShardAxes(grad.dims), tape.operand_partials[operand]);
  grad.partial = Plus(grad.partial, Minus(op_axes, held));
  std::vector<PadKey> keys;
  for (const std::vector<PlacedDims>* side : {&call.operands, &call.results}) {
    for (const PlacedDims& dims : *side) {
      for (const PadKey& key : PadKeys(dims)) {
        if (std::ranges::count(keys, key) == 0) keys.push_back(key);
      }
    }
  }
  for (const PadKey& key : keys) {
    bool summed = false;
    for (int label : LabelsWith(tape.shape, call, key)) {
      summed = summed || !HoldsLabel(labels, label);
    }
    ASSIGN_OR_RETURN(const PadState pad, PadOfGrad(instruction, tape, operand, key, grads, summed));
    if (!summed) grad.pads[key] = pad;
  }
  return Define(instruction, result, std::move(grad));
}

// Of an op that chooses between operands: whether padding is that of `operand`. Then its gradient
// is that of the result, whatever the other one is; nullopt: another op, or a choice that is not
// known.
std::optional<bool> Interpreter::IsTaken(std::string_view op, size_t operand,
                                         const std::vector<PadState>& operands) {
  const bool is_where = op.starts_with("aten.where.");
  if (!is_where && !op.starts_with("aten.masked_fill.")) return std::nullopt;
  const size_t condition = is_where ? 0 : 1;
  if (condition >= operands.size() || operand == condition ||
      operands[condition].kind != PadState::Kind::kConstant) {
    return std::nullopt;
  }
  const bool is_if_true = is_where ? operand == 1 && op != "aten.where.ScalarSelf" : operand == 2;
  return is_if_true != operands[condition].is_zero();
}

absl::StatusOr<PadState> Interpreter::PadOfGrad(const Instruction& instruction,
                                                const TapeState& tape, size_t operand,
                                                const PadKey& key,
                                                const std::vector<const ValueState*>& grads,
                                                bool summed) {
  PadState grad = PadState::Zero();
  for (const ValueState* each : grads) {
    if (each != nullptr) grad = PadOfSum(grad, PadIn(each->pads, each->dims, key));
  }
  if (grad.kind == PadState::Kind::kValid) grad = PadState::Finite();
  const Instruction& record = tape.call.instruction;
  std::vector<PadState> operands;
  for (size_t i = 0; i < tape.operand_pads.size(); ++i) {
    operands.push_back(PadIn(tape.operand_pads[i], tape.call.operands[i], key));
  }
  // Of what is the same in all positions, the derivative is that of valid ones: a number.
  const bool is_same = tape.shape.is_elementwise && record.op.starts_with("aten.") &&
                       std::ranges::all_of(operands, [](const PadState& pad) {
                         return pad.kind == PadState::Kind::kValid;
                       });
  // Numbers stand among them in the order of arguments.
  for (size_t arg = 0; arg < static_cast<size_t>(NumInputs(record.op)); ++arg) {
    const std::optional<double> number = tape.call.Number(arg);
    if (tape.call.HasTensor(arg) || !number) continue;
    operands.insert(operands.begin() + static_cast<int64_t>(std::min(arg, operands.size())),
                    PadState::Constant(*number));
  }
  PadState pad;
  if (const std::optional<bool> is_taken = IsTaken(record.op, operand, operands)) {
    pad = *is_taken ? grad : PadState::Zero();
  } else if (is_same && grad.is_finite()) {
    pad = grad.is_zero() ? grad : PadState::Finite();
  } else {
    pad =
        tape.shape.needs_spread ? PadState::Unknown() : PadOfDerivative(record.op, operands, grad);
    if (pad.is_finite() && HasZeroFactor(tape, operand, key)) pad = PadState::Zero();
  }
  if (!summed || pad.is_zero()) return pad;
  const std::string why = absl::StrCat(
      "padding reaches the gradient of operand ", operand, ", which sums over ", key.padded_size,
      " positions of which ", key.size, " are valid: it holds ", ToText(pad));
  // Zero times a derivative of which nothing is known may be zero.
  const bool is_open = grad.is_zero() && !pad.is_no_number();
  return is_open ? NotProven(instruction, why) : Refuse(instruction, why);
}

}  // namespace autosp::checker
