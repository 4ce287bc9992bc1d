// The sizes that a model was exported for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace autosp {

// Bounds of a dynamic size at export, both inclusive; absent bounds are open.
struct SymbolRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};

using SymbolRanges = std::map<std::string, SymbolRange, std::less<>>;

}  // namespace autosp
