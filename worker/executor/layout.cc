#include "worker/executor/layout.h"

#include <ATen/ops/empty_strided.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

int64_t SpanOf(at::IntArrayRef sizes, at::IntArrayRef strides) {
  int64_t span = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
    span += (sizes[i] - 1) * strides[i];
  }
  return span;
}

std::string Describe(at::ScalarType dtype, at::IntArrayRef sizes) {
  return absl::StrCat(c10::toString(dtype), "[", absl::StrJoin(sizes, ", "), "]");
}

bool SharesStorage(const at::Tensor& tensor, absl::Span<const ValueId> others,
                   const RunState& state) {
  const c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  return std::any_of(others.begin(), others.end(), [&](ValueId id) {
    const at::Tensor& other = state.tensor(id);
    return other.defined() && other.storage().unsafeGetStorageImpl() == storage;
  });
}

}  // namespace

ValueLayout ValueLayout::Of(ValueId id, const StepContext& context) {
  const ProgramValue& value = context.program.value(id);
  ValueLayout layout;
  layout.id = id;
  layout.dtype = ToScalarType(value.dtype);
  for (const int64_t size : context.program.LocalSizes(value)) layout.sizes.push_back(size);
  for (const int64_t stride : context.program.LocalStrides(value)) layout.strides.push_back(stride);
  layout.span = SpanOf(layout.sizes, layout.strides);
  layout.account = context.AccountOf(id);
  if (value.account != Account::kPinnedHost) layout.device = context.environment.compute;
  return layout;
}

at::Tensor ValueLayout::Allocate() const {
  const MemoryScope scope(account);
  return at::empty_strided(sizes, strides, at::TensorOptions(device).dtype(dtype));
}

bool ValueLayout::HasStrides(const at::Tensor& tensor) const {
  const at::IntArrayRef actual = tensor.strides();
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > 1 && actual[i] != strides[i]) return false;
  }
  return true;
}

absl::Status StoreResult(const ValueLayout& layout, at::Tensor tensor,
                         absl::Span<const ValueId> others, RunState& state) {
  if (tensor.scalar_type() != layout.dtype || tensor.sizes() != at::IntArrayRef(layout.sizes)) {
    return Internal("the op made ", Describe(tensor.scalar_type(), tensor.sizes()),
                    " where the program declares ", Describe(layout.dtype, layout.sizes));
  }
  const bool is_shared = SharesStorage(tensor, others, state);
  const auto bytes = static_cast<size_t>(layout.span) * tensor.element_size();
  if (!is_shared && layout.HasStrides(tensor) && tensor.storage().nbytes() <= bytes) {
    state.tensor(layout.id) = std::move(tensor);
    return absl::OkStatus();
  }
  (is_shared ? state.num_unshared : state.num_conformed) += 1;
  at::Tensor copy = layout.Allocate();
  copy.copy_(tensor);
  state.tensor(layout.id) = std::move(copy);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> LiveTensor(ValueId id, const RunState& state) {
  const at::Tensor& tensor = state.tensor(id);
  if (!tensor.defined()) return Internal("operand ", id.index, " is not live");
  return tensor;
}

}  // namespace autosp
