#include "worker/executor/persistents.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/layout.h"
#include "worker/executor/torch_types.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

bool IsIdentity(const std::vector<int64_t>& indices) {
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

// Takes the local elements of `whole` along each dim; padding becomes 0.
absl::StatusOr<at::Tensor> LocalShard(const at::Tensor& whole, const ProgramValue& value,
                                      const StepContext& context) {
  at::Tensor local = whole;
  for (size_t i = 0; i < value.dims.size(); ++i) {
    const auto dim = static_cast<int64_t>(i);
    std::vector<int64_t> indices =
        GlobalIndices(context.program, value.dims[i], {context.environment.place, 0});
    if (static_cast<int64_t>(indices.size()) == whole.size(dim) && IsIdentity(indices)) continue;
    // Padding reads some element first and is overwritten below.
    std::vector<int64_t> padding;
    for (size_t j = 0; j < indices.size(); ++j) {
      if (indices[j] >= 0 && indices[j] < whole.size(dim)) continue;
      padding.push_back(static_cast<int64_t>(j));
      indices[j] = 0;
    }
    const auto count = static_cast<int64_t>(indices.size());
    local = local.index_select(dim, at::from_blob(indices.data(), {count}, at::kLong));
    for (const int64_t j : padding) local.select(dim, j).zero_();
  }
  return local;
}

absl::Status CheckSizes(const at::Tensor& whole, const ProgramValue& value,
                        const Program& program) {
  std::vector<int64_t> expected;
  for (const ProgramDim& dim : value.dims) expected.push_back(GlobalSize(program, dim));
  if (whole.sizes() == at::IntArrayRef(expected)) return absl::OkStatus();
  return InvalidArgument("the weights have [", absl::StrJoin(whole.sizes(), ", "),
                         "], the program [", absl::StrJoin(expected, ", "), "]");
}

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
        if (persistent.init == StateInit::kCopyOfParameter) return CopyParameter(persistent, tensor);
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
    RETURN_IF_ERROR(CheckSizes(whole, value, context_.program));
    ASSIGN_OR_RETURN(const at::Tensor local, LocalShard(whole, value, context_));
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
    RETURN_IF_ERROR(WithContext(CatchTorch([&] { return loader.Load(persistent); }),
                                persistent.name));
  }
  return absl::OkStatus();
}

}  // namespace autosp
