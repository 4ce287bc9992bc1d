// The relations between sizes that an archive lists (guards_code), over the sizes of its inputs.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/size_guard.h"

namespace autosp {

// One for each text, in their order, also of those that cannot be read.
std::vector<SizeGuard> ReadGuards(absl::Span<const std::string> texts, const Graph& graph);

}  // namespace autosp
