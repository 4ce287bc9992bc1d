#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"
#include "compiler/ir/random_ops.h"

namespace autosp::checker {
namespace {

bool IsAttention(std::string_view op) {
  return op == "aten._scaled_dot_product_flash_attention_for_cpu.default" || op == "autosp.sdpa";
}

bool IsAttentionBackward(std::string_view op) {
  return op == "aten._scaled_dot_product_flash_attention_for_cpu_backward.default" ||
         op == "autosp.sdpa_backward";
}

}  // namespace

absl::StatusOr<OpCall> Interpreter::MakeCall(const Instruction& instruction,
                                             const std::vector<const ValueState*>& operands) {
  OpCall call{program_, instruction, {}, {}};
  for (const ValueState* operand : operands) call.operands.push_back(operand->dims);
  for (ValueId id : instruction.results) {
    if (program_.value(id).is_tape) continue;
    call.results.push_back(StatedDims(id));
  }
  bool fits = true;
  if (IsAttention(instruction.op) && call.operands.size() >= 3) {
    fits = GroupHeads(call.operands[0], &call.operands[1]) &&
           GroupHeads(call.operands[0], &call.operands[2]);
  } else if (IsAttentionBackward(instruction.op) && call.operands.size() >= 4 &&
             call.results.size() == 3) {
    for (PlacedDims* dims :
         {&call.operands[2], &call.operands[3], &call.results[1], &call.results[2]}) {
      fits = fits && GroupHeads(call.operands[1], dims);
    }
  }
  if (fits) return call;
  return Refuse(instruction, "the key heads do not divide the query heads");
}

absl::Status Interpreter::RunCall(const Instruction& instruction) {
  if (IsCreation(instruction.op)) return RunCreation(instruction);
  if (instruction.op == "autosp.sum_of_squares") return RunSumOfSquares(instruction);
  if (instruction.op == "autosp.shard_edges") return RunShardEdges(instruction);
  if (instruction.op == "autosp.grad_norm" || instruction.op == "autosp.norm_of_sums") {
    return RunNorm(instruction);
  }
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  ASSIGN_OR_RETURN(const OpCall call, MakeCall(instruction, operands));
  if (instruction.op == "aten.constant_pad_nd.default" && operands.size() == 1) {
    bool is_padding = false;
    RETURN_IF_ERROR(RunPadding(call, *operands[0], &is_padding));
    if (is_padding) return absl::OkStatus();
  }
  if (instruction.op == "autosp.to_shards" || instruction.op == "autosp.from_shards") {
    if (operands.size() != 1) return Refuse(instruction, "it orders one value");
    return RunShardOrder(call, *operands[0]);
  }
  if (IsWindowOp(instruction.op)) RETURN_IF_ERROR(CheckWindow(call, operands));
  RETURN_IF_ERROR(CheckDtype(call));
  OpShape shape;
  const std::optional<absl::Status> described = DescribeOp(call, &shape);
  if (!described) return RunOpaque(call, operands);
  if (absl::IsUnimplemented(*described)) {
    return NotProven(instruction, std::string(described->message()));
  }
  RETURN_IF_ERROR(*described);
  return RunKnown(call, shape, operands);
}

// Of an op that is not in the table nothing is assumed but that it gives the same each time: every
// rank must compute all of it.
absl::Status Interpreter::RunOpaque(const OpCall& call,
                                    const std::vector<const ValueState*>& operands) {
  if (DrawsRandomNumbers(call.instruction.op)) {
    return NotProven(call.instruction, "every rank would draw random numbers of its own");
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool is_whole = std::ranges::all_of(operands[i]->dims, IsWhole);
    if (is_whole && operands[i]->partial.empty()) continue;
    return NotProven(call.instruction,
                     absl::StrCat("the checker does not know the op, and operand ", i, " is ",
                                  ToText(operands[i]->dims), ", not whole on every rank"));
  }
  RETURN_IF_ERROR(AddTape(call, {}, /*is_opaque=*/true));
  const auto is_constant = [](const ValueState* each) {
    return each->holds.kind != PadState::Kind::kValid;
  };
  const bool are_constant = !operands.empty() && std::ranges::all_of(operands, is_constant);
  const std::vector<Tensor> meanings = MeaningOf(call, operands);
  for (size_t i = 0; i < call.results.size(); ++i) {
    const ValueId id = call.instruction.results[i];
    ValueState result;
    result.dims = call.results[i];
    if (!std::ranges::all_of(result.dims, IsWhole)) {
      return NotProven(call.instruction, absl::StrCat("the checker does not know the op, and %",
                                                      NameOf(id), " is not whole on every rank"));
    }
    result.meaning = meanings[i];
    if (are_constant) result.holds = PadState::Unknown();
    RETURN_IF_ERROR(Define(call.instruction, id, std::move(result)));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RunKnown(const OpCall& call, const OpShape& shape,
                                   const std::vector<const ValueState*>& operands) {
  const Instruction& instruction = call.instruction;
  ASSIGN_OR_RETURN(Placed placed, PlaceOp(call, shape, operands));
  if (shape.results.size() < call.results.size()) {
    return NotProven(instruction, "a number of results that the checker does not know");
  }
  for (size_t i = 0; i < call.results.size(); ++i) {
    const PlacedDims derived = DimsOf(shape.results[i], placed);
    if (derived == call.results[i]) continue;
    return Refuse(instruction, absl::StrCat("%", NameOf(instruction.results[i]), " is stated as ",
                                            ToText(call.results[i]), ", but its operands give ",
                                            ToText(derived)));
  }
  std::vector<Tensor> meanings = MeaningOf(call, operands);
  // A number times 1/n is the share of one of n ranks: all shares together are the number.
  const AxisList stated = program_.value(instruction.results[0]).partial.axes;
  const AxisList shared = Minus(Nontrivial(program_.mesh, stated), placed.partial[0]);
  const bool is_mul = instruction.op == "aten.mul.Tensor" && operands.size() == 1;
  if (is_mul && !shared.empty()) {
    const double share = 1.0 / static_cast<double>(program_.mesh.size(shared));
    const AxisList used = Plus(ShardAxes(operands[0]->dims), operands[0]->partial);
    const bool in_loop = !HoldsAny(shared, InactiveLoops());
    if (call.Number(1) == share && !HoldsAny(used, shared) && in_loop) {
      meanings[0] = operands[0]->meaning;
      placed.partial[0] = Plus(placed.partial[0], shared);
    }
  }
  RETURN_IF_ERROR(AddTape(call, shape, /*is_opaque=*/false));
  const bool is_identity =
      instruction.op == "aten.where.ScalarOther" && IsTrue(operands[0]->meaning);
  if (is_identity && instruction.kind == InstructionKind::kRecord) {
    tapes_.at(instruction.results.back()).is_identity = true;
  }
  const PadState holds = HoldsOf(call, shape, operands);
  std::vector<ValueState> results;
  for (size_t i = 0; i < call.results.size(); ++i) {
    ValueState result;
    result.dims = DimsOf(shape.results[i], placed);
    result.pads = PadsOfResult(call, shape, operands, result.dims, i, meanings[i]);
    result.partial = placed.partial[i];
    result.reduction = placed.reduction;
    result.meaning = meanings[i];
    result.holds = i == 0 ? holds : PadState::Valid();
    // Grouped heads are compared as groups; the value has the key heads alone.
    if (IsAttentionBackward(instruction.op) && i > 0 && result.dims == call.results[i]) {
      result.dims = StatedDims(instruction.results[i]);
    }
    results.push_back(std::move(result));
  }
  for (size_t i = 0; i < call.results.size(); ++i) {
    RETURN_IF_ERROR(Define(instruction, instruction.results[i], std::move(results[i])));
  }
  return absl::OkStatus();
}

bool Interpreter::SavesAll(const Instruction& record) const {
  const ValueList saves = ValuesAttribute(record, "saves");
  const auto is_saved = [&](ValueId id) {
    return program_.value(id).is_tape || std::ranges::count(saves, id) > 0;
  };
  return std::ranges::all_of(OperandsOf(record), is_saved) &&
         std::ranges::all_of(record.results, is_saved);
}

absl::Status Interpreter::AddTape(const OpCall& call, const OpShape& shape, bool is_opaque) {
  const Instruction& instruction = call.instruction;
  if (instruction.kind != InstructionKind::kRecord) return absl::OkStatus();
  const ValueId id = instruction.results.back();
  if (!program_.value(id).is_tape) return Refuse(instruction, "a record ends with its tape");
  if (instruction.attributes.contains("opaque") && !SavesAll(instruction)) {
    return Refuse(instruction,
                  "what an opaque tape keeps has no name by which a write to it is "
                  "seen: it must save all operands and results");
  }
  const std::vector<ValueId> operands = OperandsOf(instruction);
  TapeState tape{.call = call,
                 .shape = shape,
                 .is_opaque = is_opaque,
                 .depth = depth(),
                 .is_used = false,
                 .is_identity = false,
                 .operand_nodes = {},
                 .operand_pads = {},
                 .operand_partials = {},
                 .operand_shapes = {},
                 .saved_versions = {}};
  for (ValueId operand : operands) {
    tape.operand_nodes.push_back(table_.Intern(state(operand).meaning));
    tape.operand_pads.push_back(state(operand).pads);
    tape.operand_partials.push_back(state(operand).partial);
    tape.operand_shapes.push_back(state(operand).meaning.shape);
  }
  for (ValueId saved : ValuesAttribute(instruction, "saves")) {
    // A result gets its version when it is defined, right after this.
    const bool is_result = std::ranges::count(instruction.results, saved) > 0;
    const int64_t version = storage_versions_[program_.value(saved).storage.index];
    tape.saved_versions[saved] = is_result ? version + 1 : version;
  }
  tapes_.erase(id);
  tapes_.emplace(id, std::move(tape));
  state(id).is_defined = true;
  return absl::OkStatus();
}

}  // namespace autosp::checker
