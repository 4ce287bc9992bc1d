// The declared layout of a value in memory, and how results are brought into it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/DimVector.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/executor/step.h"

namespace autosp {

struct ValueLayout {
  ValueId id;
  at::ScalarType dtype = at::kFloat;
  at::DimVector sizes;
  at::DimVector strides;
  int64_t span = 0;  // elements from the first to the last
  const MemoryAccount* account = nullptr;
  c10::Device device{c10::DeviceType::CPU};

  static ValueLayout Of(ValueId id, const StepContext& context);
  // New memory of this layout, charged to the value's account.
  at::Tensor Allocate() const;
  // Are its elements where the declaration says? Strides of dims of size 1 do not matter.
  bool HasStrides(const at::Tensor& tensor) const;
};

// Stores `tensor`, a fresh result of an op, as the value of `layout`: checks dtype and sizes, and
// copies if strides differ, if it is a part of a larger storage, or if it shares storage with one
// of `others`.
absl::Status StoreResult(const ValueLayout& layout, at::Tensor tensor,
                         absl::Span<const ValueId> others, RunState& state);

// The value, or an error if it is not live.
absl::StatusOr<at::Tensor> LiveTensor(ValueId id, const RunState& state);

}  // namespace autosp
