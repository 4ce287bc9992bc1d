// Adjoint of products of rows with the matrices of their experts (rules/expert_products.h).
#include <string>

#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/rules/expert_products.h"

namespace autosp {

void BackwardLowering::NoteTransposed(const Instruction& instruction) {
  const bool is_view = instruction.kind == InstructionKind::kAlias &&
                       instruction.op == "aten.permute.default" && instruction.args.size() > 1;
  if (!is_view) return;
  const auto* order = std::get_if<IntList>(&instruction.args[1]);
  const bool swaps = order != nullptr && (*order == IntList{SymInt(0), SymInt(2), SymInt(1)} ||
                                          *order == IntList{SymInt(1), SymInt(0)});
  if (swaps) transposed_[instruction.results[0]] = OperandsOf(instruction)[0];
}

// Of a row: its gradient times the matrix of its expert, transposed. Of a matrix: a sum over the
// rows of its expert, as the matrix lies, so that it adds up without being transposed.
absl::Status BackwardLowering::ExpertMm(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId rows = TensorArgument(forward.args, 0);
  const ValueId weight = TensorArgument(forward.args, 1);
  const ValueId experts = TensorArgument(forward.args, 2);
  const ValueId grad = adjoint.grad();
  // The weight first, as of a linear layer: it reads the rows, which the other does not.
  if (Needs(weight)) {
    const auto view = transposed_.find(weight);
    const ValueId matrices = view == transposed_.end() ? weight : view->second;
    ProgramValue type = builder_.Like(matrices);
    type.partial = PartialOf(forward, weight, grad);
    const SymInt num_experts(builder_.LocalSizes(weight)[0]);
    AddGrad(matrices,
            builder_.Call(std::string(kExpertMmWeightGrad),
                          {grad, rows, experts, num_experts, matrices != weight}, std::move(type)));
  }
  if (Needs(rows)) {
    ProgramValue type = builder_.Like(rows);
    type.partial = PartialOf(forward, rows, grad);
    AddGrad(rows, builder_.Call(std::string(kExpertMm), {grad, Transposed(weight), experts},
                                std::move(type)));
  }
  return absl::OkStatus();
}

}  // namespace autosp
