// Ops that the table knows but no plan can run as they stand, each with its reason and remedy.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument.h"

namespace autosp {

// Ok, or why a call of this op with these arguments is refused.
absl::Status CheckSupported(const OpSchema& schema, const std::vector<Argument>& args);

// Why an ATen op that the table leaves out ("aten.fft_rfft.default") is refused, and what to write
// instead.
absl::Status RefuseUnknownAtenOp(std::string_view op);

// A dropout that passes its input on: probability 0, or not in training mode.
bool IsIdentityDropout(const OpSchema& schema, const std::vector<Argument>& args);

}  // namespace autosp
