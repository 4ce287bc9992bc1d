#include "compiler/rules/op_workspace.h"

#include <algorithm>

namespace autosp {
namespace {

constexpr int64_t kIndexBytes = 8;
constexpr int64_t kF32Bytes = 4;

int64_t BytesOf(const TensorExtent& tensor) { return tensor.numel * SizeOf(tensor.dtype); }

// In fp32, of a half type; nothing of others.
int64_t HalfInF32(const TensorExtent& tensor) {
  const bool is_half = IsFloating(tensor.dtype) && SizeOf(tensor.dtype) == 2;
  return is_half ? tensor.numel * kF32Bytes : 0;
}

}  // namespace

int64_t SumWorkspace(const Extents& operands, const Extents& results) {
  if (operands[0].dtype != results[0].dtype) return ConversionWorkspace(operands, results);
  return HalfInF32(operands[0]) + HalfInF32(results[0]);
}

int64_t ConversionWorkspace(const Extents& operands, const Extents& results) {
  const bool is_same = operands[0].dtype == results[0].dtype;
  return is_same ? 0 : operands[0].numel * SizeOf(results[0].dtype);
}

int64_t CopyWorkspace(const Extents& operands, const Extents& /*results*/) {
  return BytesOf(operands[0]);
}

int64_t FlagsWorkspace(const Extents& operands, const Extents& /*results*/) {
  return operands[0].numel;
}

int64_t LogSumExpWorkspace(const Extents& operands, const Extents& results) {
  return BytesOf(operands[0]) + BytesOf(results[0]);
}

int64_t SortWorkspace(const Extents& operands, const Extents& /*results*/) {
  return operands[0].numel * kIndexBytes;
}

int64_t ArgSortWorkspace(const Extents& operands, const Extents& results) {
  return BytesOf(operands[0]) + SortWorkspace(operands, results);
}

int64_t HistogramWorkspace(const Extents& /*operands*/, const Extents& results) {
  return 2 * BytesOf(results[0]) + kIndexBytes;
}

int64_t DiffWorkspace(const Extents& operands, const Extents& /*results*/) {
  int64_t bytes = 0;
  for (const TensorExtent& operand : operands) bytes += BytesOf(operand);
  return 2 * bytes;
}

int64_t GatherWorkspace(const Extents& /*operands*/, const Extents& results) {
  return HalfInF32(results[0]);
}

int64_t ScatterWorkspace(const Extents& operands, const Extents& /*results*/) {
  return HalfInF32(operands[0]);
}

int64_t SearchWorkspace(const Extents& operands, const Extents& /*results*/) {
  const DType both = PromoteTypes(operands[0].dtype, operands[1].dtype);
  int64_t bytes = 0;
  for (size_t i = 0; i < 2; ++i) {
    if (operands[i].dtype != both) bytes += operands[i].numel * SizeOf(both);
  }
  return bytes;
}

int64_t FourierWorkspace(const Extents& operands, const Extents& results) {
  return 2 * std::max(BytesOf(operands[0]), BytesOf(results[0]));
}

int64_t ElementLossWorkspace(const Extents& operands, const Extents& results) {
  if (results[0].numel == operands[0].numel) return 0;
  return BytesOf(operands[0]) + HalfInF32(operands[0]);
}

}  // namespace autosp
