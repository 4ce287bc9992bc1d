#include "worker/rank/held_tensor.h"

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

absl::StatusOr<HeldTensor> HeldBy(const Executor& executor, const std::string& name) {
  const Program& program = executor.program();
  const auto persistent = std::ranges::find(program.persistents, name, &Persistent::name);
  if (persistent == program.persistents.end()) {
    return NotFound("the program has no persistent value '", name, "'");
  }
  HeldTensor held;
  ASSIGN_OR_RETURN(held.tensor, executor.Get(name));
  ASSIGN_OR_RETURN(held.whole_shape, WholeShape(program, program.value(persistent->value)));
  ASSIGN_OR_RETURN(TensorBox box, executor.HeldBox(name));
  held.offset = std::move(box.offset);
  return held;
}

}  // namespace autosp
