// What autosp.matmul_accumulate_ allocates: one definition for the planner that predicts it and for
// the op.
#pragma once

#include <cstdint>

namespace autosp {

// No kernel of CPUs multiplies half types into a sum in fp32. So many rows of both operands,
// [T, out] and [T, in], are converted at a time; GPUs take them as they are.
inline constexpr int64_t kConvertedRows = 512;

}  // namespace autosp
