#include "worker/executor/lookup_errors.h"

#include <ATen/ops/max.h>
#include <ATen/ops/min.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

struct LookUp {
  std::string_view op;
  size_t index;               // arguments
  std::optional<size_t> dim;  // none: the first
};

constexpr LookUp kLookUps[] = {
    {"aten.embedding.default", 1, std::nullopt},
    {"aten.gather.default", 2, 1},
    {"aten.index_add.default", 2, 1},
    {"aten.index_select.default", 2, 1},
    {"aten.scatter_add.default", 2, 1},
};

const at::Tensor* HostTensor(const Instruction& instruction, size_t arg, const RunState& state) {
  const ValueId id = TensorArgument(instruction.args, arg);
  if (!id.valid()) return nullptr;
  const at::Tensor& tensor = state.tensor(id);
  return tensor.defined() && tensor.is_cpu() && tensor.numel() > 0 ? &tensor : nullptr;
}

}  // namespace

absl::Status DescribeLookUp(const Program& program, const Instruction& instruction,
                            const RunState& state) {
  for (const LookUp& look_up : kLookUps) {
    if (look_up.op != instruction.op) continue;
    const at::Tensor* table = HostTensor(instruction, 0, state);
    const at::Tensor* index = HostTensor(instruction, look_up.index, state);
    if (table == nullptr || index == nullptr || table->dim() == 0) break;
    const int64_t dim =
        look_up.dim ? IntegerArgument(instruction.args, *look_up.dim).value_or(0) : 0;
    const int64_t count = table->size(dim);
    const int64_t low = at::min(*index).item().toLong();
    const int64_t high = at::max(*index).item().toLong();
    if (low >= 0 && high < count) break;
    const int64_t place = low < 0 ? low : high;
    // The spelling of one_hot looks up classes in the list of them.
    if (!table->is_floating_point()) {
      return Internal("the data has class ", place, " of ", count);
    }
    return Internal("looks up place ", place, " of %",
                    program.value(TensorArgument(instruction.args, 0)).name, ", which has ", count,
                    "; the data has a token or label that the model has no row for");
  }
  return absl::OkStatus();
}

}  // namespace autosp
