// Adjoint of products of rows with the matrices of their experts (rules/expert_products.h).
#include <string>

#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/rules/expert_products.h"

namespace autosp {

// Of a row: its gradient times the matrix of its expert, transposed. Of a matrix: a sum over the
// rows of its expert.
absl::Status BackwardLowering::ExpertMm(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId rows = TensorArgument(forward.args, 0);
  const ValueId weight = TensorArgument(forward.args, 1);
  const ValueId experts = TensorArgument(forward.args, 2);
  const ValueId grad = adjoint.grad();
  // The weight first, as of a linear layer: it reads the rows, which the other does not.
  if (Needs(weight)) {
    ProgramValue type = builder_.Like(weight);
    type.partial = PartialOf(forward, weight, grad);
    const SymInt num_experts(builder_.LocalSizes(weight)[0]);
    AddGrad(weight, builder_.Call(std::string(kExpertMmWeightGrad),
                                  {grad, rows, experts, num_experts}, std::move(type)));
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
