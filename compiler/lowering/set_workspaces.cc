#include <algorithm>
#include <string_view>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/program/attention_workspace.h"
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

constexpr std::string_view kCpuFlash = "aten._scaled_dot_product_flash_attention_for_cpu";

// (q, k, v, ..), and (grad, q, k, v, ..) of the derivative. Of one thread: ranks may have more.
int64_t FlashWorkspace(const Program& program, const Instruction& instruction) {
  const bool is_backward = instruction.op.starts_with(
      "aten._scaled_dot_product_flash_attention_"
      "for_cpu_backward");
  const size_t first = is_backward ? 1 : 0;
  const ProgramValue& query = program.value(TensorArgument(instruction.args, first));
  const std::vector<int64_t> q = program.LocalSizes(query);
  const std::vector<int64_t> k =
      program.LocalSizes(program.value(TensorArgument(instruction.args, first + 1)));
  const AttentionShape shape = {.batch = q[0],
                                .num_heads = q[1],
                                .num_kv_heads = k[1],
                                .q_len = q[2],
                                .k_len = k[2],
                                .qk_head_dim = q[3],
                                .v_head_dim = q[3],
                                .element_bytes = SizeOf(query.dtype)};
  return is_backward ? CpuFlashBackwardWorkspace(shape) : CpuFlashWorkspace(shape);
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
    if (instruction.op.starts_with(kCpuFlash)) {
      instruction.workspace_bytes = FlashWorkspace(program, instruction);
      continue;
    }
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
