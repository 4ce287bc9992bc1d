// Arithmetic of complex numbers, in the real and imaginary parts of pairs (complex_pairs.h). Each
// function writes the call that it is given. Requires: operands that the archive has types for.
#pragma once

#include <complex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/import/pair_writer.h"

namespace autosp {

// The real and imaginary parts of a complex tensor, by their names.
struct ComplexParts {
  std::string re, im;
};

ComplexParts PartsOf(PairWriter& writer, const exported::Node& node, const std::string& pair);
// a * b, or a times the conjugate of b: terms and their sums in the sizes of the call's result.
ComplexParts ProductOf(PairWriter& writer, const exported::Node& node, const ComplexParts& a,
                       const ComplexParts& b, bool conjugates);
// A number, which no tensor has.
bool IsRealNumber(const exported::Argument& argument);
std::complex<double> ComplexNumberOf(const exported::Argument& argument);

// add, sub: of pairs, of a pair and a real tensor or number.
absl::Status WriteSum(PairWriter& writer, exported::Node node);
// mul: by a pair, a real tensor or a number.
absl::Status WriteProduct(PairWriter& writer, exported::Node node);
// div: by and of the same.
absl::Status WriteQuotient(PairWriter& writer, exported::Node node);
// rsub(z, number), 1 / z.
absl::Status WriteReverseDifference(PairWriter& writer, exported::Node node);
absl::Status WriteReciprocal(PairWriter& writer, exported::Node node);
// pow(z, 2), square(z).
absl::Status WriteSquare(PairWriter& writer, exported::Node node);
// matmul, bmm, mm (self, other) and einsum (equation, [self, other]): linear in each of two.
absl::Status WriteMatrixProduct(PairWriter& writer, exported::Node node);
// linear(x, weight, bias): the same, and a sum.
absl::Status WriteLinear(PairWriter& writer, exported::Node node);

absl::Status WritePolar(PairWriter& writer, exported::Node node);    // (abs, angle)
absl::Status WriteComplex(PairWriter& writer, exported::Node node);  // (re, im)
absl::Status WriteConjugate(PairWriter& writer, exported::Node node);
absl::Status WriteExponential(PairWriter& writer, exported::Node node);

// Real results. The gradient of the modulus and the angle of zero is zero, as PyTorch has it.
absl::Status WritePart(PairWriter& writer, exported::Node node, int64_t index);
absl::Status WriteModulus(PairWriter& writer, exported::Node node);
absl::Status WriteAngle(PairWriter& writer, exported::Node node);

// Of a real tensor: with an imaginary part of zeros.
absl::Status WriteWidened(PairWriter& writer, exported::Node node);
absl::StatusOr<std::string> WidenedPair(PairWriter& writer, const exported::Node& node,
                                        const std::string& real);
// masked_fill(z, mask, w), where(mask, z, w), of which one may be real: the mask counts for both
// parts.
absl::Status WriteChoice(PairWriter& writer, exported::Node node, size_t mask);
// fill(z, number)
absl::Status WriteFilled(PairWriter& writer, exported::Node node);
// gather(z, dim, index): an index counts for both parts.
absl::Status WriteGather(PairWriter& writer, exported::Node node);
// pad(z, places), constant_pad_nd(z, places): with zeros.
absl::Status WritePad(PairWriter& writer, exported::Node node);

}  // namespace autosp
