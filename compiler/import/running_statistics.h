// Norms that write running statistics of what they normalise, of which their schemas say nothing.
//
//   before  %y = aten.batch_norm(%x, %w, %b, %mean, %var, true, 0.1, 1e-05, false)
//   after   %y, %m, %s, %mean1, %var1 =
//               aten._native_batch_norm_legit_functional(%x, %w, %b, %mean, %var, true, 0.1, 1e-05)
//
// and %mean1 and %var1 are what later uses of %mean and %var read.
#pragma once

#include <string_view>
#include <vector>

#include "compiler/import/graph_builder.h"

namespace autosp {

inline constexpr std::string_view kBatchNormWithStatistics =
    "aten._native_batch_norm_legit_functional.default";

struct BufferUpdate {
  ValueId target;
  ValueId value;
};

// Whether running statistics of the op, if it has any, are understood here.
bool KeepsRunningStatistics(std::string_view op);

// Whether the call leaves other numbers in the buffers of its statistics.
bool WritesRunningStatistics(const Node& call);

// Appends the same norm in a form that writes nothing, and what computes the statistics that it
// leaves, which carry no gradient. Requires: WritesRunningStatistics.
std::vector<BufferUpdate> AppendWithStatistics(GraphBuilder& builder, Node call);

}  // namespace autosp
