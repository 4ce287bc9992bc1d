// Adjoints of Fourier transforms, which are transforms (ir/fourier.h).
#include <string>

#include "compiler/ir/argument_access.h"
#include "compiler/ir/fourier.h"
#include "compiler/lowering/backward_lowering.h"

namespace autosp {

absl::Status BackwardLowering::Fourier(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = TensorArgument(forward.args, 0);
  if (!Needs(operand)) return absl::OkStatus();
  std::vector<Argument> args = forward.args;
  args[0] = adjoint.grad();
  const int64_t dim = IntegerArgument(args, kFftDim).value_or(0);
  args[kFftLength] = SymInt(builder_.LocalSizes(operand)[dim]);
  std::string_view op = kFftC2c;
  if (forward.op == kFftC2c) {
    args[kFftFlag] = !FlagArgument(args, kFftFlag).value_or(false);
  } else {
    op = forward.op == kFftR2c ? kFftC2r : kFftR2c;
  }
  ProgramValue type = builder_.Like(operand);
  type.strides.clear();
  type.partial = PartialOf(forward, operand, adjoint.grad());
  AddGrad(operand, builder_.Call(std::string(op), std::move(args), std::move(type)));
  return absl::OkStatus();
}

}  // namespace autosp
