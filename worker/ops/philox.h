// Philox4x32-10, a random generator without state: Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011. Four random words are a function of a counter and a key.
#pragma once

#include <array>
#include <cstdint>

#include "worker/ops/vector_clones.h"

namespace autosp {

using PhiloxWords = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

AUTOSP_INLINE PhiloxWords Philox(PhiloxWords counter, PhiloxKey key) {
  auto [a, b, c, d] = counter;
  auto [k0, k1] = key;
  for (int round = 0; round < 10; ++round) {
    const uint64_t from_a = uint64_t{0xD2511F53U} * a;
    const uint64_t from_c = uint64_t{0xCD9E8D57U} * c;
    a = static_cast<uint32_t>(from_c >> 32) ^ b ^ k0;
    b = static_cast<uint32_t>(from_c);
    c = static_cast<uint32_t>(from_a >> 32) ^ d ^ k1;
    d = static_cast<uint32_t>(from_a);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {a, b, c, d};
}

}  // namespace autosp
