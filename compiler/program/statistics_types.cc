#include "compiler/program/statistics_types.h"

#include <algorithm>
#include <vector>

namespace autosp {
namespace {

class TypeSetter {
 public:
  TypeSetter(Program& program, bool on_gpu)
      : program_(program), on_gpu_(on_gpu), is_set_(program.values.size()) {}

  void Visit(const std::vector<Instruction>& body) {
    for (const Instruction& instruction : body) {
      Visit(instruction.body);
      if (instruction.op == "aten.native_layer_norm.default") {
        SetStatistics(instruction);
      } else if (instruction.kind == InstructionKind::kCopy ||
                 instruction.kind == InstructionKind::kAlias) {
        const ValueId operand = OperandsOf(instruction)[0];
        if (is_set_[operand.index]) Set(instruction.results[0], program_.value(operand).dtype);
      }
    }
  }

 private:
  // (input, normalized_shape, weight, bias, eps) -> out, mean, rstd
  void SetStatistics(const Instruction& norm) {
    const DType input = program_.value(OperandsOf(norm)[0]).dtype;
    if (!IsHalf(input)) return;
    const auto* weight = std::get_if<ValueId>(&norm.args[2]);
    const DType of_cpu =
        weight == nullptr ? input : PromoteTypes(input, program_.value(*weight).dtype);
    for (size_t i = 1; i < norm.results.size(); ++i) {
      Set(norm.results[i], on_gpu_ ? DType::kF32 : of_cpu);
    }
  }

  void Set(ValueId id, DType dtype) {
    program_.value(id).dtype = dtype;
    is_set_[id.index] = true;
  }

  Program& program_;
  const bool on_gpu_;
  std::vector<bool> is_set_;
};

}  // namespace

void SetStatisticsTypes(Program& program, bool on_gpu) {
  TypeSetter setter(program, on_gpu);
  for (const Section& section : program.sections) setter.Visit(section.body);
}

}  // namespace autosp
