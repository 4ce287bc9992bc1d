// Arguments of an instruction as a stack for c10's dispatcher.
//
// Literals are converted once, to the types of the op's schema; per call only tensors are filled
// in.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/ir/argument.h"

namespace autosp {

class ArgumentStack {
 public:
  // Missing trailing arguments get the defaults of the schema. Every argument that is a device
  // becomes `device`, whatever the graph was exported on. Errors name the argument.
  static absl::StatusOr<ArgumentStack> Make(const c10::FunctionSchema& schema,
                                            const std::vector<Argument>& args,
                                            c10::Device device = c10::DeviceType::CPU);

  // Pushes all arguments; `tensors` are those of all values. Error: a value that is not live.
  absl::Status Push(absl::Span<const at::Tensor> tensors, torch::jit::Stack& stack) const;

 private:
  enum class SlotKind { kTensor, kTensorList, kOptionalTensorList };
  struct Slot {
    size_t position;
    SlotKind kind;
    ValueList values;
  };

  absl::Status Add(const c10::Argument& parameter, const Argument& argument);

  std::vector<c10::IValue> literals_;  // None where a slot is
  std::vector<Slot> slots_;
};

}  // namespace autosp
