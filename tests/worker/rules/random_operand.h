// Random operands of a test case, in several element types and layouts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "tests/worker/rules/argument_sets.h"

namespace autosp {

// How operands of more than one dimension lie in memory. Expanded: the first dimension of more than
// one element has stride 0.
enum class OperandMemory : uint8_t { kContiguous, kTransposed, kExpanded };

// What stands for operands of f32, and where.
struct CaseVariant {
  DType dtype = DType::kF32;
  OperandMemory memory = OperandMemory::kContiguous;
};

// The same for the same arguments.
at::Tensor RandomOperand(const OperandSpec& spec, const CaseVariant& variant, uint32_t seed);

}  // namespace autosp
