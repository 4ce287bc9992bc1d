// Arithmetic of complex numbers in which zeros have the signs that PyTorch's kernels give them,
// for programs that read these: the angle of -1 + 0i is pi, that of -1 - 0i is -pi, and the first
// frequency of a real signal is such a number.
//
// A kernel of PyTorch makes a real operand w the complex number w + 0i, adds and subtracts a
// multiple of the second operand, and divides as numpy does:
//
//   z * w   (a w - b 0) + (a 0 + b w) i
//   z - v   z + v * (-1 + 0i)
//   z / v   with r = d / c where |c| >= |d| of v = c + di: (a + b r) / (c + d r), and so on
//
// Not so for -z, whose zeros depend on where in a tensor they are; it is that of each part.
#pragma once

#include "absl/status/status.h"
#include "compiler/import/pair_writer.h"

namespace autosp {

// Whether an op of the graph, or of a region of it, reads the signs of zeros.
bool ReadsSigns(const exported::Graph& graph);

// Of two operands, of which one may be real, or a number.
absl::Status WriteSignedSum(PairWriter& writer, exported::Node node);
absl::Status WriteSignedProduct(PairWriter& writer, exported::Node node);
absl::Status WriteSignedQuotient(PairWriter& writer, exported::Node node);
absl::Status WriteSignedReciprocal(PairWriter& writer, exported::Node node);

}  // namespace autosp
