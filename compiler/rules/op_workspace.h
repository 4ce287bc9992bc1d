// What ops allocate besides their results, as measured (tests/worker/rules/op_memory_test.cc). Sums
// of half types are made in fp32, and not every kernel converts as it reads.
#pragma once

#include "compiler/rules/op_rule.h"

namespace autosp {

// The row with a workspace.
inline OpRule With(WorkspaceFn workspace, OpRule row) {
  row.workspace = workspace;
  return row;
}

// Of sums and means: the operand in the type that is summed.
int64_t SumWorkspace(const Extents& operands, const Extents& results);

// The operand in the type of the result, where that is another.
int64_t ConversionWorkspace(const Extents& operands, const Extents& results);

// One value for each element of the operand: of its own type, or a truth value.
int64_t CopyWorkspace(const Extents& operands, const Extents& results);
int64_t FlagsWorkspace(const Extents& operands, const Extents& results);

// The exponentials, and the maxima.
int64_t LogSumExpWorkspace(const Extents& operands, const Extents& results);

// The places of a row, which may be all there is; argsort also makes the values.
int64_t SortWorkspace(const Extents& operands, const Extents& results);
int64_t ArgSortWorkspace(const Extents& operands, const Extents& results);

// The edges of the bins, and counts of its own.
int64_t HistogramWorkspace(const Extents& operands, const Extents& results);

// All operands put together, and differences of differences.
int64_t DiffWorkspace(const Extents& operands, const Extents& results);

// Of half types, an fp32 copy of the result, or of the operand that is written to.
int64_t GatherWorkspace(const Extents& operands, const Extents& results);
int64_t ScatterWorkspace(const Extents& operands, const Extents& results);

// Values and boundaries in the type of both, where theirs differ.
int64_t SearchWorkspace(const Extents& operands, const Extents& results);

// The loss of each element, where they are summed.
int64_t ElementLossWorkspace(const Extents& operands, const Extents& results);

// Of a Fourier transform: the larger of operand and result twice, as all places and as frequencies.
int64_t FourierWorkspace(const Extents& operands, const Extents& results);

}  // namespace autosp
