#include "worker/executor/persistents.h"

#include <algorithm>
#include <string>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/layout.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

class PersistentLoader {
 public:
  PersistentLoader(const StepContext& context, WeightSource* weights, RunState& state)
      : context_(context), weights_(weights), state_(state) {}

  absl::Status Load(const Persistent& persistent) {
    const ValueLayout layout = ValueLayout::Of(persistent.value, context_);
    at::Tensor& tensor = state_.tensor(persistent.value);
    tensor = layout.Allocate();
    switch (persistent.kind) {
      case PersistentKind::kParam:
      case PersistentKind::kBuffer:
        return CopyWeights(persistent.name, persistent.value, tensor);
      case PersistentKind::kState:
        if (persistent.init == StateInit::kCopyOfParameter)
          return CopyParameter(persistent, tensor);
        tensor.zero_();
        return absl::OkStatus();
      case PersistentKind::kScalar:
        tensor.zero_();
        return absl::OkStatus();
    }
    return Internal("unknown kind of persistent");
  }

 private:
  absl::Status CopyWeights(const std::string& name, ValueId id, const at::Tensor& tensor) {
    if (weights_ == nullptr) return FailedPrecondition("there are no weights to load");
    const ProgramValue& value = context_.program.value(id);
    ASSIGN_OR_RETURN(const at::Tensor whole, weights_->Load(name));
    ASSIGN_OR_RETURN(const at::Tensor local,
                     TakeShard(context_.program, value, {context_.environment.place, 0}, whole));
    tensor.copy_(local);
    return absl::OkStatus();
  }

  // From the weights rather than from the parameter: an fp32 master keeps what bf16 rounds away.
  absl::Status CopyParameter(const Persistent& persistent, const at::Tensor& tensor) {
    const auto& persistents = context_.program.persistents;
    const auto found = std::ranges::find(persistents, persistent.init_from, &Persistent::name);
    if (found == persistents.end()) {
      return InvalidArgument("there is no parameter '", persistent.init_from, "' to copy");
    }
    return CopyWeights(found->name, persistent.value, tensor);
  }

  const StepContext& context_;
  WeightSource* weights_;
  RunState& state_;
};

}  // namespace

absl::Status LoadPersistents(const StepContext& context, WeightSource* weights, RunState& state) {
  PersistentLoader loader(context, weights, state);
  for (const Persistent& persistent : context.program.persistents) {
    RETURN_IF_ERROR(
        WithContext(CatchTorch([&] { return loader.Load(persistent); }), persistent.name));
  }
  return absl::OkStatus();
}

}  // namespace autosp
