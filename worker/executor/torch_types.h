// The border to libtorch: element types, and exceptions that become statuses.
#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/ir/dtype.h"

namespace autosp {

at::ScalarType ToScalarType(DType dtype);

// Error for a type that no program has (complex, quantised, ...).
absl::StatusOr<DType> FromScalarType(at::ScalarType type);

// Runs `body`, which calls libtorch. An exception becomes an internal error with the first line of
// its message: the rest is a C++ backtrace.
absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body);

}  // namespace autosp
