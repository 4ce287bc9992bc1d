// Wrong numbers, wrong parts, wrong operands, wrong labels.
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

bool IsAddition(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kAccumulate ||
         instruction.op == "autosp.matmul_accumulate_";
}

std::optional<Program> DropAddition(const Program& program, const Site& site) {
  if (!IsAddition(At(program, site))) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> DoubleAddition(const Program& program, const Site& site) {
  if (!IsAddition(At(program, site))) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), At(program, site));
  return mutant;
}

bool HasRankOffset(const Program& program, const Site& site) {
  const Instruction& alias = At(program, site);
  return alias.kind == InstructionKind::kAlias && alias.op == "aten.slice.Tensor" &&
         !program.value(alias.results[0]).offset.terms.empty();
}

std::optional<Program> ShiftShard(const Program& program, const Site& site) {
  if (!HasRankOffset(program, site)) return std::nullopt;
  Program mutant = program;
  LinearExpr& offset = mutant.value(At(program, site).results[0]).offset;
  for (auto& [variable, coefficient] : offset.terms) coefficient += 1;
  return mutant;
}

std::optional<Program> SameShardOnAllRanks(const Program& program, const Site& site) {
  if (!HasRankOffset(program, site)) return std::nullopt;
  Program mutant = program;
  mutant.value(At(program, site).results[0]).offset.terms.clear();
  return mutant;
}

std::optional<Program> ShardOfAnotherAxis(const Program& program, const Site& site) {
  if (!HasRankOffset(program, site) || program.mesh.dp < 2) return std::nullopt;
  Program mutant = program;
  for (auto& [variable, step] : mutant.value(At(program, site).results[0]).offset.terms) {
    variable = variable == "rank.dp" ? "rank.ulysses" : "rank.dp";
  }
  return mutant;
}

std::optional<Program> ShiftView(const Program& program, const Site& site) {
  const Instruction& alias = At(program, site);
  if (alias.kind != InstructionKind::kAlias) return std::nullopt;
  Program mutant = program;
  mutant.value(alias.results[0]).offset.base += 1;
  return mutant;
}

// The factor that splits a dimension of a feed counts its elements in another order.
std::optional<Program> OtherLayout(const Program& program, const Site& site) {
  const Instruction& feed = At(program, site);
  if (feed.kind != InstructionKind::kFeed) return std::nullopt;
  for (const ProgramDim& dim : program.value(feed.results[0]).dims) {
    for (const DimFactor& factor : dim) {
      const bool is_split = std::ranges::count(factor.axes, Axis::kUlysses) > 0;
      if (!is_split || !factor.factor.valid()) continue;
      if (program.factors[factor.factor.index].layout == Layout::kZigzag) continue;
      Program mutant = program;
      mutant.factors[factor.factor.index].layout = Layout::kZigzag;
      return mutant;
    }
  }
  return std::nullopt;
}

std::optional<Program> OtherFactorSize(const Program& program, const Site& site) {
  std::optional<Program> mutant = OtherLayout(program, site);
  if (!mutant) return std::nullopt;
  for (Factor& factor : mutant->factors) {
    if (factor.layout == Layout::kContiguous) continue;
    factor.layout = Layout::kContiguous;
    factor.size -= 1;
  }
  return mutant;
}

// The last number of an instruction, in arguments or attributes. Sizes and dims of views are not
// numbers of the computation: other mutations break those.
std::optional<Program> OtherNumber(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  const bool computes = call.kind == InstructionKind::kCall ||
                        call.kind == InstructionKind::kRecord ||
                        call.kind == InstructionKind::kUpdate;
  if (!computes) return std::nullopt;
  Program mutant = program;
  Instruction& changed = At(mutant, site);
  const auto change = [](Argument& argument) {
    auto* number = std::get_if<double>(&argument);
    if (number != nullptr && std::isfinite(*number)) {
      *number = *number * 2 + 0.125;
      return true;
    }
    if (auto* integer = std::get_if<SymInt>(&argument)) {
      *integer = SymInt(integer->value + 1);
      return true;
    }
    return false;
  };
  for (size_t i = changed.args.size(); i-- > 0;) {
    if (change(changed.args[i])) return mutant;
  }
  for (auto& [key, argument] : changed.attributes) {
    if (change(argument)) return mutant;
  }
  return std::nullopt;
}

std::optional<Program> FlipFlag(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  const bool computes =
      call.kind == InstructionKind::kCall || call.kind == InstructionKind::kRecord;
  // Of constants and casts the flags say where they lie, not what they are.
  if (call.op.starts_with("aten.new_") || call.op == "aten.to.dtype") return std::nullopt;
  for (size_t i = 0; computes && i < call.args.size(); ++i) {
    if (std::get_if<bool>(&call.args[i]) == nullptr) continue;
    Program mutant = program;
    auto& flag = std::get<bool>(At(mutant, site).args[i]);
    flag = !flag;
    return mutant;
  }
  return std::nullopt;
}

// Padded targets count as class 0.
std::optional<Program> CountPadding(const Program& program, const Site& site) {
  const Instruction& feed = At(program, site);
  if (feed.kind != InstructionKind::kFeed || feed.attributes.at("pad") == Argument(SymInt(0))) {
    return std::nullopt;
  }
  for (const ProgramDim& dim : program.value(feed.results[0]).dims) {
    for (const DimFactor& factor : dim) {
      if (!factor.factor.valid() || factor.axes.empty()) continue;
      const int64_t size = program.factors[factor.factor.index].size;
      if (size % program.mesh.size(factor.axes) == 0) continue;
      Program mutant = program;
      At(mutant, site).attributes["pad"] = SymInt(0);
      return mutant;
    }
  }
  return std::nullopt;
}

// Two entries of one of the lists that go in step: another parameter's moments or gradient.
std::optional<Program> SwapListEntries(const Program& program, const Site& site) {
  const Instruction& update = At(program, site);
  for (size_t i = 0; i < update.args.size(); ++i) {
    const auto* list = std::get_if<ValueList>(&update.args[i]);
    if (list == nullptr || update.kind != InstructionKind::kUpdate || i == 0) continue;
    for (size_t j = 1; j < list->size(); ++j) {
      if (!SameType(program, (*list)[0], (*list)[j])) continue;
      Program mutant = program;
      auto& swapped = std::get<ValueList>(At(mutant, site).args[i]);
      std::swap(swapped[0], swapped[j]);
      return mutant;
    }
  }
  return std::nullopt;
}

std::optional<Program> DropUpdate(const Program& program, const Site& site) {
  const Instruction& update = At(program, site);
  if (update.kind != InstructionKind::kUpdate) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

// Two operands of one type, in an op for which their order matters.
std::optional<Program> SwapOperands(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  static const auto& kCommutes = *new std::set<std::string_view>{
      "aten.add.Tensor", "aten.mul.Tensor", "aten.__and__.Tensor",  "aten.__or__.Tensor",
      "aten.eq.Tensor",  "aten.ne.Tensor",  "aten.maximum.default", "aten.minimum.default"};
  const bool computes = call.kind == InstructionKind::kCall ||
                        call.kind == InstructionKind::kRecord ||
                        call.kind == InstructionKind::kUpdate;
  if (!computes || kCommutes.contains(call.op)) return std::nullopt;
  for (size_t i = 0; i < call.args.size(); ++i) {
    for (size_t j = i + 1; j < call.args.size(); ++j) {
      const auto* a = std::get_if<ValueId>(&call.args[i]);
      const auto* b = std::get_if<ValueId>(&call.args[j]);
      if (a == nullptr || b == nullptr || SameByConstruction(program, *a, *b)) continue;
      if (!SameType(program, *a, *b)) continue;
      Program mutant = program;
      std::swap(At(mutant, site).args[i], At(mutant, site).args[j]);
      return mutant;
    }
  }
  return std::nullopt;
}

// Another value of the same type that is live at the instruction.
std::optional<Program> OtherValue(const Program& program, const Site& site) {
  const Instruction& reader = At(program, site);
  if (reader.kind == InstructionKind::kFree || reader.kind == InstructionKind::kWait) {
    return std::nullopt;
  }
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  std::set<ValueId> live;
  for (size_t i = 0; i < site.index; ++i) {
    live.insert(body[i].results.begin(), body[i].results.end());
    if (body[i].kind != InstructionKind::kFree) continue;
    for (ValueId id : OperandsOf(body[i])) live.erase(id);
  }
  for (const Persistent& persistent : program.persistents) live.insert(persistent.value);
  for (Argument& argument : body[site.index].args) {
    auto* id = std::get_if<ValueId>(&argument);
    if (id == nullptr) continue;
    for (ValueId other : live) {
      if (!SameType(program, *id, other) || SameByConstruction(program, *id, other)) continue;
      *id = other;
      return mutant;
    }
  }
  return std::nullopt;
}

std::optional<Program> OtherPartialLabel(const Program& program, const Site& site) {
  const Instruction& instruction = At(program, site);
  if (instruction.results.empty() || program.value(instruction.results[0]).is_tape) {
    return std::nullopt;
  }
  if (program.mesh.ulysses < 2) return std::nullopt;
  Program mutant = program;
  AxisList& axes = mutant.value(instruction.results[0]).partial.axes;
  if (std::ranges::count(axes, Axis::kUlysses) > 0) {
    std::erase(axes, Axis::kUlysses);
  } else {
    axes.push_back(Axis::kUlysses);
  }
  return mutant;
}

// A shard is stated to be all that there is.
std::optional<Program> OtherPlacementLabel(const Program& program, const Site& site) {
  const Instruction& instruction = At(program, site);
  if (instruction.results.empty()) return std::nullopt;
  Program mutant = program;
  for (ProgramDim& dim : mutant.value(instruction.results[0]).dims) {
    for (DimFactor& factor : dim) {
      if (program.mesh.size(factor.axes) < 2) continue;
      factor = {.factor = {}, .size = program.LocalSize(factor)};
      return mutant;
    }
  }
  return std::nullopt;
}

// What a mean over ranks would be: a share without its factor.
std::optional<Program> DropScale(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  const bool scales = call.kind == InstructionKind::kCall && call.op == "aten.mul.Tensor" &&
                      OperandsOf(call).size() == 1;
  const double* factor = scales ? std::get_if<double>(&call.args[1]) : nullptr;
  if (factor == nullptr || *factor == 1.0) return std::nullopt;
  Program mutant = program;
  Instruction& copy = At(mutant, site);
  copy.kind = InstructionKind::kCopy;
  copy.op.clear();
  copy.args.resize(1);
  return mutant;
}

std::optional<Program> OtherCount(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kFor) return std::nullopt;
  Program mutant = program;
  At(mutant, site).attributes["count"] = SymInt(program.mesh.accum - 1);
  return mutant;
}

std::optional<Program> OtherFeed(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kFeed) return std::nullopt;
  Program mutant = program;
  At(mutant, site).op += "_other";
  return mutant;
}

}  // namespace

std::vector<Mutation> ValueMutations() {
  return {{"drop an addition", DropAddition},
          {"add twice", DoubleAddition},
          {"shift a rank's shard", ShiftShard},
          {"same shard on all ranks", SameShardOnAllRanks},
          {"shard by another axis", ShardOfAnotherAxis},
          {"shift a view", ShiftView},
          {"other layout of a factor", OtherLayout},
          {"other size of a factor", OtherFactorSize},
          {"other number", OtherNumber},
          {"flip a flag", FlipFlag},
          {"count padding", CountPadding},
          {"swap entries of a list", SwapListEntries},
          {"drop an update", DropUpdate},
          {"swap operands", SwapOperands},
          {"read another value", OtherValue},
          {"other partial label", OtherPartialLabel},
          {"other placement label", OtherPlacementLabel},
          {"drop a scale", DropScale},
          {"other number of micro-steps", OtherCount},
          {"other input", OtherFeed}};
}

}  // namespace autosp
