// Constants, indices, and the padding and order of a dimension before it is split.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {
namespace {

constexpr int kLikeOperand = -1;
constexpr int kScalar = -2;

// What fills the result, and where the sizes stand.
struct Row {
  int value_arg = -1;
  double value = 0;
  int sizes_arg = kLikeOperand;
};

const std::map<std::string, Row>& Rows() {
  static const auto& rows = *new std::map<std::string, Row>{
      {"aten.zeros.default", {-1, 0, 0}},       {"aten.ones.default", {-1, 1, 0}},
      {"aten.full.default", {1, 0, 0}},         {"aten.new_zeros.default", {-1, 0, 1}},
      {"aten.new_ones.default", {-1, 1, 1}},    {"aten.new_full.default", {2, 0, 1}},
      {"aten.zeros_like.default", {-1, 0, -1}}, {"aten.ones_like.default", {-1, 1, -1}},
      {"aten.full_like.default", {1, 0, -1}},   {"aten.scalar_tensor.default", {0, 0, kScalar}},
      {"aten.fill.Scalar", {1, 0, -1}},
  };
  return rows;
}

// What is written of a number in a tensor of this type; nullopt: the type holds nothing like it.
std::optional<double> ValueIn(DType dtype, double value) {
  if (IsFloating(dtype)) return value;
  if (dtype == DType::kBool) return value != 0 ? 1 : 0;
  return std::isfinite(value) ? std::optional(std::trunc(value)) : std::nullopt;
}

bool IsRange(const std::string& op) { return op.starts_with("aten.arange."); }

// nullopt: the op leaves it to defaults.
std::optional<DType> CreatedDtype(const Program& program, const Instruction& instruction) {
  if (instruction.op == "autosp.shard_indices") return DType::kI64;
  if (const std::optional<DType> asked = AskedDtype(instruction)) return asked;
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.empty()) return std::nullopt;
  return program.value(operands[0]).dtype;
}

}  // namespace

bool Interpreter::IsCreation(const std::string& op) const {
  return Rows().contains(op) || IsRange(op) || op == "autosp.shard_indices";
}

absl::Status Interpreter::RunCreation(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  if (instruction.results.size() != 1) return Refuse(instruction, "a constant has one result");
  const ValueId id = instruction.results[0];
  ValueState result;
  result.dims = StatedDims(id);
  const std::optional<DType> created = CreatedDtype(program_, instruction);
  if (created && *created != program_.value(id).dtype) {
    return RefuseDtype(instruction, id,
                       absl::StrCat("the op gives ", std::string(DTypeName(*created))));
  }
  const Shape shape = LogicalShape(result.dims);
  OpCall call{program_, instruction, {}, {result.dims}};
  if (instruction.op == "autosp.shard_indices") {
    ASSIGN_OR_RETURN(const std::string name, StringAttribute(instruction, "factor"));
    ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
    ProgramDim dim;
    for (size_t i = 0; i < program_.factors.size(); ++i) {
      const bool is_it = program_.factors[i].name == name;
      if (is_it) dim = {{.factor = FactorId{static_cast<int32_t>(i)}, .axes = axes}};
    }
    if (dim.empty() || PlacedDims{Place(program_, dim)} != result.dims) {
      return Refuse(instruction, "the result is not split as the factor whose indices it holds");
    }
    result.meaning = table_.Node("indices", {}, shape);
    for (const PadKey& key : PadKeys(result.dims)) {
      result.pads[key] = {PadState::Kind::kBeyond, 0};
    }
    return Define(instruction, id, std::move(result));
  }
  if (IsRange(instruction.op)) {
    if (!std::ranges::all_of(result.dims, IsWhole)) {
      return Refuse(instruction, "a range that starts anew on every rank");
    }
    result.meaning = table_.Node(KeyOf(call, 0), {}, shape);
    result.holds = PadState::Finite();
    return Define(instruction, id, std::move(result));
  }
  const Row& row = Rows().at(instruction.op);
  const double given =
      row.value_arg < 0 ? row.value : call.Number(row.value_arg).value_or(row.value);
  const std::optional<double> written = ValueIn(program_.value(id).dtype, given);
  if (!written) return Refuse(instruction, absl::StrCat("its dtype does not hold ", given));
  const double value = *written;
  std::vector<int64_t> sizes;
  if (row.sizes_arg >= 0) sizes = call.Ints(row.sizes_arg);
  const bool sizes_fit = row.sizes_arg == kLikeOperand
                             ? !operands.empty() && operands[0]->dims == result.dims
                             : sizes == program_.LocalSizes(program_.value(id));
  if (!sizes_fit) return Refuse(instruction, "the sizes are not those of the result on a rank");
  result.meaning = table_.Full(shape, value);
  result.any_partial = value == 0;
  result.holds = PadState::Constant(value);
  for (const PadKey& key : PadKeys(result.dims)) result.pads[key] = PadState::Constant(value);
  return Define(instruction, id, std::move(result));
}

// constant_pad_nd that makes a padded dimension of a whole one means its operand.
absl::Status Interpreter::RunPadding(const OpCall& call, const ValueState& operand,
                                     bool* is_padding) {
  const Instruction& instruction = call.instruction;
  const PlacedDims& to = call.results[0];
  if (to.size() != operand.dims.size()) return absl::OkStatus();
  ValueState padded = operand;
  padded.dims = to;
  std::vector<int64_t> expected(to.size() * 2, 0);
  for (size_t i = 0; i < to.size(); ++i) {
    const PlacedDim& from = operand.dims[i];
    if (to[i] == from) continue;
    if (!EndsWithPadding(to[i]) || WithoutPadding(to[i]) != from) return absl::OkStatus();
    expected[(to.size() - 1 - i) * 2 + 1] = LocalSize(to[i]) - LocalSize(from);
    const PadKey key = to[i][0].pad;
    const PadState pad = PadState::Constant(call.Number(2).value_or(0));
    padded.pads[key] = HasPad(operand.dims, key) ? PadOfEither(padded.pads[key], pad) : pad;
    *is_padding = true;
  }
  if (!*is_padding) return absl::OkStatus();
  while (expected.size() > 2 && expected[expected.size() - 1] == 0 &&
         expected[expected.size() - 2] == 0) {
    expected.resize(expected.size() - 2);
  }
  if (call.Ints(1) != expected) {
    return Refuse(instruction, absl::StrCat("the padding does not make ", ToText(to), " of ",
                                            ToText(operand.dims)));
  }
  if (instruction.kind == InstructionKind::kRecord) {
    return NotProven(instruction, "a taped padding");
  }
  return Define(instruction, instruction.results[0], std::move(padded));
}

// to_shards and from_shards of one dimension: the whole of it, and the shards of all members one
// after another with their padding, which to_shards fills. Both mean the same tensor.
absl::Status Interpreter::RunShardOrder(const OpCall& call, const ValueState& operand) {
  const Instruction& instruction = call.instruction;
  if (instruction.kind == InstructionKind::kRecord) {
    return NotProven(instruction, "a taped order of shards");
  }
  ASSIGN_OR_RETURN(const int64_t dim, IntAttribute(instruction, "dim"));
  const bool to_shards = instruction.op == "autosp.to_shards";
  const PlacedDims& shards = to_shards ? call.results[0] : operand.dims;
  PlacedDims whole = shards;
  const bool fits = dim >= 0 && dim < static_cast<int64_t>(shards.size()) && !shards[dim].empty() &&
                    shards[dim][0].kind == Digit::Kind::kPaddedWhole;
  if (fits) whole[dim] = WithoutPadding(whole[dim]);
  if (!fits || (to_shards ? operand.dims : call.results[0]) != whole) {
    return Refuse(instruction, absl::StrCat("it does not make ", ToText(call.results[0]), " of ",
                                            ToText(operand.dims)));
  }
  if (program_.value(instruction.results[0]).dtype !=
      program_.value(OperandsOf(instruction)[0]).dtype) {
    return Refuse(instruction, "an order of shards does not change the dtype");
  }
  ValueState ordered = operand;
  ordered.dims = call.results[0];
  const PadKey key = shards[dim][0].pad;
  if (to_shards) {
    const PadState pad = PadState::Constant(call.Number(1).value_or(0));
    ordered.pads[key] = HasPad(operand.dims, key) ? PadOfEither(ordered.pads[key], pad) : pad;
  } else {
    ordered.pads.erase(key);
  }
  return Define(instruction, instruction.results[0], std::move(ordered));
}

}  // namespace autosp::checker
