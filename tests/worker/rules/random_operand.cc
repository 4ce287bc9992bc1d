#include "tests/worker/rules/random_operand.h"

#include <ATen/ops/empty.h>

#include <random>

#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

at::Tensor RandomValues(const OperandSpec& spec, DType dtype, uint32_t seed) {
  std::vector<int64_t> sizes;
  for (const SymInt& size : spec.type.sizes) sizes.push_back(size.value);
  at::Tensor tensor = at::empty(sizes, at::kDouble);
  std::mt19937 random(seed);
  const bool is_positive = spec.range == ValueRange::kPositive;
  std::uniform_real_distribution<double> real(is_positive ? 0.5 : -2.0, is_positive ? 1.5 : 2.0);
  std::uniform_int_distribution<int64_t> whole(is_positive ? 1 : -3, 3);
  std::uniform_int_distribution<int64_t> index(
      0, spec.range == ValueRange::kIndex ? spec.below - 1 : 1);
  const bool is_index = spec.range == ValueRange::kIndex || dtype == DType::kBool;
  double* values = tensor.mutable_data_ptr<double>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = is_index            ? static_cast<double>(index(random))
                : IsFloating(dtype) ? real(random)
                                    : static_cast<double>(whole(random));
  }
  return tensor.to(ToScalarType(dtype));
}

}  // namespace

at::Tensor RandomOperand(const OperandSpec& spec, const CaseVariant& variant, uint32_t seed) {
  const DType dtype = spec.type.dtype == DType::kF32 ? variant.dtype : spec.type.dtype;
  const at::Tensor tensor = RandomValues(spec, dtype, seed);
  if (tensor.dim() < 2) return tensor;
  if (variant.memory == OperandMemory::kTransposed) {
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2);
  }
  if (variant.memory == OperandMemory::kExpanded) {
    int64_t dim = 0;
    while (dim + 1 < tensor.dim() && tensor.size(dim) == 1) ++dim;
    return tensor.narrow(dim, 0, 1).contiguous().expand(tensor.sizes());
  }
  return tensor;
}

}  // namespace autosp
