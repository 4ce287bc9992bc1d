#include <algorithm>
#include <vector>

#include "compiler/lowering/lower_program.h"
#include "compiler/program/converted_rows.h"
#include "compiler/rules/expert_products.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

Extents ExtentsOf(const Program& program, const std::vector<ValueId>& values) {
  Extents extents;
  for (ValueId id : values) {
    const ProgramValue& value = program.value(id);
    if (value.is_tape) continue;
    extents.push_back({.numel = program.LocalNumel(value), .dtype = value.dtype});
  }
  return extents;
}

// Of an addition in place, or a product that is added in place, to a wider type: operands in that
// type. Set for CPUs.
int64_t WideningWorkspace(const Program& program, const Instruction& instruction) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  const DType wide = program.value(operands[0]).dtype;
  int64_t numel = 0;
  for (size_t i = 1; i < operands.size(); ++i) {
    const ProgramValue& value = program.value(operands[i]);
    if (value.dtype == wide) continue;
    const int64_t all = program.LocalNumel(value);
    const int64_t rows = program.LocalSizes(value).empty() ? 1 : program.LocalSizes(value)[0];
    const bool is_whole = instruction.kind == InstructionKind::kAccumulate || rows == 0;
    numel += is_whole ? all : all / rows * std::min(rows, kConvertedRows);
  }
  return numel * SizeOf(wide);
}

void SetIn(const Program& program, std::vector<Instruction>& body) {
  for (Instruction& instruction : body) {
    SetIn(program, instruction.body);
    if (AddsInPlace(instruction)) {
      instruction.workspace_bytes = WideningWorkspace(program, instruction);
    }
    if (instruction.op == kExpertMmWeightGrad) {
      instruction.workspace_bytes =
          ExpertMmWeightGradWorkspace(ExtentsOf(program, OperandsOf(instruction)));
    }
    const bool is_op =
        instruction.kind == InstructionKind::kCall || instruction.kind == InstructionKind::kRecord;
    const OpRule* rule = is_op ? FindOpRule(instruction.op) : nullptr;
    if (rule == nullptr || rule->workspace == nullptr) continue;
    instruction.workspace_bytes = rule->workspace(ExtentsOf(program, OperandsOf(instruction)),
                                                  ExtentsOf(program, instruction.results));
  }
}

}  // namespace

void SetWorkspaces(Program& program) {
  for (Section& section : program.sections) SetIn(program, section.body);
}

}  // namespace autosp
