#include <vector>

#include "compiler/lowering/lower_program.h"
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

void SetIn(const Program& program, std::vector<Instruction>& body) {
  for (Instruction& instruction : body) {
    SetIn(program, instruction.body);
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
