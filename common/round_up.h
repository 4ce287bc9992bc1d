#pragma once

#include <cstdint>

namespace autosp {

// The least multiple of `multiple` that is not less than `value`. Requires: value >= 0.
inline int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace autosp
