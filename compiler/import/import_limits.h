// Limits on what an archive may hold. They are far above any real model, and keep a hostile file
// from exhausting memory or the stack.
#pragma once

#include <cstddef>
#include <cstdint>

namespace autosp {

constexpr int64_t kMaxArchiveEntries = 200'000;
constexpr int64_t kMaxJsonBytes = int64_t{128} << 20;
constexpr int kMaxJsonDepth = 128;
constexpr size_t kMaxNameBytes = 2048;
constexpr size_t kMaxListLength = 500'000;  // also of the nodes of a graph
constexpr size_t kMaxTensorRank = 64;       // ATen's own
constexpr int kMaxSubgraphDepth = 16;
constexpr size_t kMaxGraphValues = 4'000'000;  // writes in place repeat the views of a tensor
constexpr int kMaxExprDepth = 100;
constexpr size_t kMaxExprBytes = 8 << 10;
// A deflated entry may not be more than this many times larger than its compressed bytes.
constexpr int64_t kMaxInflationRatio = 200;

}  // namespace autosp
