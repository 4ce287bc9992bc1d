// The norm of gradients, of which ranks may hold parts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {

// The norm of several tensors is a function of the sum of their squares, in whatever parts it is
// taken.
Tensor Interpreter::NormMeaning(const std::string& op,
                                const std::vector<const ValueState*>& operands) {
  std::vector<Tensor> squares;
  for (const ValueState* operand : operands) {
    const Tensor& term = operand->meaning;
    const bool is_sum = op == "autosp.norm_of_sums";
    squares.push_back(is_sum ? term : table_.Node("sum of squares", {table_.Intern(term)}, {}));
  }
  const Tensor sum = table_.Sum(squares, {});
  if (op == "autosp.sum_of_squares") return sum;
  return table_.Node("norm", {table_.Intern(sum)}, {});
}

// A sum over all elements of several tensors. Each is split over the same axes: of what is whole on
// some of them, the sum over the ranks would count a part more than once.
absl::Status Interpreter::RunSumOfSquares(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  if (operands.empty() || program_.value(instruction.results[0]).dtype != DType::kF64) {
    return Refuse(instruction, "it sums the squares of one tensor or more, in f64");
  }
  const AxisList axes = ShardAxes(operands[0]->dims);
  for (size_t i = 0; i < operands.size(); ++i) {
    const ValueState& operand = *operands[i];
    const bool fits = operand.partial.empty() && PadKeys(operand.dims).empty() &&
                      HoldsAll(axes, ShardAxes(operand.dims)) &&
                      HoldsAll(ShardAxes(operand.dims), axes);
    if (fits) continue;
    return Refuse(instruction,
                  absl::StrCat("operand ", i, " is ", ToText(operand.dims),
                               ", a partial sum over [", AxisListName(operand.partial),
                               "], but operand 0 is in parts over [", AxisListName(axes), "]"));
  }
  ValueState result;
  result.partial = axes;
  result.meaning = NormMeaning(instruction.op, operands);
  return Define(instruction, instruction.results[0], std::move(result));
}

// The norm itself is no linear function: every rank must have all that it is taken of.
absl::Status Interpreter::RunNorm(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool is_whole = std::ranges::all_of(operands[i]->dims, IsWhole);
    if (is_whole && operands[i]->partial.empty()) continue;
    return Refuse(instruction,
                  absl::StrCat("operand ", i, " is ", ToText(operands[i]->dims),
                               ", a partial sum over [", AxisListName(operands[i]->partial),
                               "]: each rank would take the norm of its part"));
  }
  if (program_.value(instruction.results[0]).dtype != DType::kF32) {
    return RefuseDtype(instruction, instruction.results[0], "a norm is taken in f32");
  }
  ValueState result;
  result.meaning = NormMeaning(instruction.op, operands);
  return Define(instruction, instruction.results[0], std::move(result));
}

}  // namespace autosp::checker
