#include "worker/executor/aten_op.h"

#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

absl::StatusOr<c10::OperatorHandle> FindAtenOp(const std::string& name) {
  const size_t first = name.find('.');
  const size_t second = name.find('.', first == std::string::npos ? first : first + 1);
  if (second == std::string::npos) {
    return InvalidArgument("op '", name, "' is not of the form namespace.op.overload");
  }
  const std::string op = name.substr(0, first) + "::" + name.substr(first + 1, second - first - 1);
  std::string overload = name.substr(second + 1);
  if (overload == "default") overload.clear();
  const auto found = c10::Dispatcher::singleton().findSchema({op, overload});
  if (!found.has_value()) return Unimplemented("libtorch has no op ", name);
  return *found;
}

ResultStore::ResultStore(const Instruction& instruction, const std::vector<ValueId>& results,
                         const StepContext& context)
    : others_(ReadsOf(instruction)), is_update_(instruction.kind == InstructionKind::kUpdate) {
  num_operands_ = others_.size();
  for (const ValueId id : results) {
    layouts_.push_back(ValueLayout::Of(id, context));
    others_.push_back(id);
  }
}

absl::Status ResultStore::Store(at::Tensor tensor, size_t index, RunState& state) const {
  if (index >= layouts_.size()) {
    return Internal("the op has more results than the ", layouts_.size(), " that are declared");
  }
  const absl::Span<const ValueId> others(others_.data(), num_operands_ + index);
  if (!tensor.defined()) return Internal("result ", index, " is undefined");
  return StoreResult(layouts_[index], std::move(tensor), others, state);
}

absl::Status ResultStore::Take(RunState& state) const {
  if (is_update_) {
    state.stack.clear();
    return absl::OkStatus();
  }
  size_t index = 0;
  for (c10::IValue& value : state.stack) {
    if (value.isTensor()) {
      RETURN_IF_ERROR(Store(std::move(value).toTensor(), index++, state));
    } else if (value.isTensorList()) {
      for (at::Tensor& tensor : value.toTensorVector()) {
        RETURN_IF_ERROR(Store(std::move(tensor), index++, state));
      }
    } else {
      return Internal("result ", index, " is a ", value.tagKind(), ", not a tensor");
    }
  }
  state.stack.clear();
  if (index == layouts_.size()) return absl::OkStatus();
  return Internal("the op has ", index, " results, and ", layouts_.size(), " are declared");
}

}  // namespace autosp
