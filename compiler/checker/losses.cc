// Cross entropy: what ignored targets leave out, and the gradient in place of the logits.
#include <optional>

#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {

// Whether all targets in a kind of padding are the ignored class, which is argument `arg`.
bool Interpreter::Ignores(const OpCall& call, size_t arg, const PadMap& targets,
                          const PadKey& key) {
  const auto found = targets.find(key);
  const std::optional<double> ignored = call.Number(arg);
  return found != targets.end() && ignored && found->second == PadState::Constant(*ignored);
}

// (logits, targets, logsumexp, gradient, ignored class), and (weights of classes | none,
// smoothing). The gradient is one number, or one for each token.
absl::Status Interpreter::CheckCrossEntropy(const OpCall& call,
                                            const std::vector<const ValueState*>& operands) const {
  const Instruction& instruction = call.instruction;
  const size_t num_args = instruction.args.size();
  const bool has_weight = call.HasTensor(5);
  const bool fits = (num_args == 5 || num_args == 7) && operands.size() == (has_weight ? 5U : 4U) &&
                    operands[0]->dims.size() == 2 && operands[1]->dims.size() == 1 &&
                    operands[2]->dims.size() == 1;
  if (!fits) {
    return Refuse(instruction,
                  "its operands are logits, targets, logsumexp, a gradient and perhaps weights");
  }
  const PlacedDim& rows = operands[0]->dims[0];
  const PlacedDim& classes = operands[0]->dims[1];
  const PlacedDims& grad = operands[3]->dims;
  const bool are_alike = operands[1]->dims[0] == rows && operands[2]->dims[0] == rows &&
                         (grad.empty() || grad == PlacedDims{rows}) && IsWhole(classes) &&
                         (!has_weight || operands[4]->dims == PlacedDims{classes});
  if (!are_alike) return Refuse(instruction, "logits, targets and logsumexp are not split alike");
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool passes =
        i == 3 ? !HoldsAny(operands[i]->partial, ShardAxes(rows)) : operands[i]->partial.empty();
    if (!passes) return Refuse(instruction, "a partial sum does not pass through the loss");
  }
  return absl::OkStatus();
}

// logits := their gradient; rows of ignored targets := 0
absl::Status Interpreter::UpdateCrossEntropy(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  const OpCall call{program_, instruction, {}, {}};
  RETURN_IF_ERROR(CheckCrossEntropy(call, operands));
  ValueState written = *operands[0];
  std::vector<NodeId> nodes;
  for (const ValueState* operand : operands) nodes.push_back(table_.Intern(operand->meaning));
  written.meaning = table_.Node(KeyOf(call, 0), nodes, written.meaning.shape);
  written.partial = operands[3]->partial;
  for (const PadKey& key : PadKeys({written.dims[0]})) {
    const bool is_ignored = Ignores(call, 4, operands[1]->pads, key);
    written.pads[key] = is_ignored ? PadState::Zero() : PadState::Unknown();
  }
  return Overwrite(instruction, OperandsOf(instruction)[0], std::move(written));
}

}  // namespace autosp::checker
