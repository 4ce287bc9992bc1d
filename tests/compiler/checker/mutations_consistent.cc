// Mistakes that are consistent in themselves: types, strides and arguments fit, the meaning does
// not.
#include <algorithm>
#include <set>
#include <utility>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

std::optional<Program> UnwrapLoop(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kFor) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const std::vector<Instruction> inner = body[site.index].body;
  const auto place = body.begin() + static_cast<std::ptrdiff_t>(site.index);
  body.insert(body.erase(place), inner.begin(), inner.end());
  return mutant;
}

// Two dimensions of one size change places, in the order and in the strides.
std::optional<Program> OtherPermutation(const Program& program, const Site& site) {
  const Instruction& alias = At(program, site);
  if (alias.op != "aten.permute.default") return std::nullopt;
  const ProgramValue& value = program.value(alias.results[0]);
  for (size_t i = 0; i < value.dims.size(); ++i) {
    for (size_t j = i + 1; j < value.dims.size(); ++j) {
      if (value.dims[i] != value.dims[j] || program.LocalSize(value.dims[i]) == 1) continue;
      Program mutant = program;
      ProgramValue& changed = mutant.value(alias.results[0]);
      changed.strides = program.LocalStrides(value);
      std::swap(changed.strides[i], changed.strides[j]);
      auto& order = std::get<IntList>(At(mutant, site).args[1]);
      std::swap(order[i], order[j]);
      return mutant;
    }
  }
  return std::nullopt;
}

// The part beside it, in the arguments and in the offset.
std::optional<Program> OtherPart(const Program& program, const Site& site) {
  const Instruction& alias = At(program, site);
  if (alias.kind != InstructionKind::kAlias || alias.op != "aten.slice.Tensor") return std::nullopt;
  const ValueId operand = OperandsOf(alias)[0];
  const auto number = [&](size_t arg) { return std::get<SymInt>(alias.args[arg]).value; };
  const int64_t dim = number(1);
  const int64_t size = number(3) - number(2);
  const int64_t room = program.LocalSizes(program.value(operand))[dim];
  const int64_t start = number(2) + 2 * size <= room ? number(2) + size : number(2) - size;
  if (start < 0 || number(4) != 1 || program.value(alias.results[0]).offset.terms.size() > 0) {
    return std::nullopt;
  }
  Program mutant = program;
  const int64_t stride = program.LocalStrides(program.value(operand))[dim];
  mutant.value(alias.results[0]).offset.base += (start - number(2)) * stride;
  At(mutant, site).args[2] = SymInt(start);
  At(mutant, site).args[3] = SymInt(start + size);
  return mutant;
}

// The derivative reads another value of the type of what was saved.
std::optional<Program> OtherSaved(const Program& program, const Site& site) {
  const Instruction& vjp = At(program, site);
  const ValueList saved = ValuesAttribute(vjp, "saved");
  if (vjp.kind != InstructionKind::kVjp || saved.empty()) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  std::set<ValueId> live;
  for (size_t i = 0; i < site.index; ++i) {
    live.insert(body[i].results.begin(), body[i].results.end());
    if (body[i].kind != InstructionKind::kFree) continue;
    for (ValueId id : OperandsOf(body[i])) live.erase(id);
  }
  for (ValueId other : live) {
    if (!SameType(program, saved[0], other)) continue;
    if (SameByConstruction(program, saved[0], other)) continue;
    std::get<ValueList>(body[site.index].attributes.at("saved"))[0] = other;
    return mutant;
  }
  return std::nullopt;
}

// Two results of one type change names.
std::optional<Program> SwapResults(const Program& program, const Site& site) {
  const std::vector<ValueId>& results = At(program, site).results;
  for (size_t i = 0; i < results.size(); ++i) {
    for (size_t j = i + 1; j < results.size(); ++j) {
      if (!SameType(program, results[i], results[j])) continue;
      Program mutant = program;
      std::swap(At(mutant, site).results[i], At(mutant, site).results[j]);
      return mutant;
    }
  }
  return std::nullopt;
}

std::optional<Program> SwapSumAndTerm(const Program& program, const Site& site) {
  const Instruction& add = At(program, site);
  if (add.kind != InstructionKind::kAccumulate) return std::nullopt;
  Program mutant = program;
  std::swap(At(mutant, site).args[0], At(mutant, site).args[1]);
  return mutant;
}

// Into the gradient of another parameter of the same shape.
std::optional<Program> AddToOtherGradient(const Program& program, const Site& site) {
  const Instruction& add = At(program, site);
  if (add.kind != InstructionKind::kAccumulate && add.op != "autosp.matmul_accumulate_") {
    return std::nullopt;
  }
  const ValueId to = OperandsOf(add)[0];
  for (const Persistent& persistent : program.persistents) {
    const bool is_gradient = persistent.name.starts_with("grad:");
    if (!is_gradient || persistent.value == to || !SameType(program, to, persistent.value))
      continue;
    Program mutant = program;
    At(mutant, site).args[0] = persistent.value;
    return mutant;
  }
  return std::nullopt;
}

// An argument too few, or a dimension: texts that no lowering writes, but a reader must survive.
std::optional<Program> DropArgument(const Program& program, const Site& site) {
  const Instruction& instruction = At(program, site);
  const auto is_tensor = [](const Argument& argument) {
    return std::holds_alternative<ValueId>(argument) || std::holds_alternative<ValueList>(argument);
  };
  const auto found = std::ranges::find_if(instruction.args, is_tensor);
  if (found == instruction.args.end()) return std::nullopt;
  Program mutant = program;
  std::vector<Argument>& args = At(mutant, site).args;
  args.erase(args.begin() + (found - instruction.args.begin()));
  return mutant;
}

std::optional<Program> DropDim(const Program& program, const Site& site) {
  const Instruction& instruction = At(program, site);
  if (instruction.results.empty()) return std::nullopt;
  Program mutant = program;
  ProgramValue& value = mutant.value(instruction.results[0]);
  if (value.dims.empty()) return std::nullopt;
  value.dims.erase(value.dims.begin());
  if (!value.strides.empty()) value.strides.erase(value.strides.begin());
  return mutant;
}

// The learning rate of one of n ranks: its share, where all of them together have it.
std::optional<Program> ShareOfLearningRate(const Program& program, const Site& site) {
  const Instruction& step = At(program, site);
  if (step.op != "autosp.adamw_" && step.op != "autosp.sgd_") return std::nullopt;
  const size_t rate_arg = step.op == "autosp.adamw_" ? 4 : 3;
  const auto* rate = std::get_if<ValueId>(&step.args[rate_arg]);
  const auto axis = std::ranges::find_if(kAllAxes, [&](Axis each) {
    return std::ranges::count(kLoopAxes, each) == 0 && program.mesh.size(each) > 1;
  });
  if (rate == nullptr || axis == kAllAxes.end()) return std::nullopt;
  Program mutant = program;
  ProgramValue share = program.value(*rate);
  share.name += "_share";
  share.partial.axes = {*axis};
  const ValueId id = mutant.AddValue(std::move(share));
  Instruction scale;
  scale.kind = InstructionKind::kCall;
  scale.op = "aten.mul.Tensor";
  scale.args = {*rate, 1.0 / static_cast<double>(program.mesh.size(*axis))};
  scale.results = {id};
  Instruction freed;
  freed.kind = InstructionKind::kFree;
  freed.args = {id};
  At(mutant, site).args[rate_arg] = id;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const auto place = body.begin() + static_cast<std::ptrdiff_t>(site.index);
  body.insert(body.insert(place, scale) + 2, freed);
  return mutant;
}

// What a tape keeps by itself is not named where it is kept, nor where it is read.
std::optional<Program> ForgetSaved(const Program& program, const Site& site) {
  const Instruction& record = At(program, site);
  if (record.kind != InstructionKind::kRecord || !record.attributes.contains("opaque")) {
    return std::nullopt;
  }
  Program mutant = program;
  At(mutant, site).attributes["saves"] = ValueList();
  for (const Site& other : SitesOf(program)) {
    Instruction& vjp = At(mutant, other);
    const bool is_it = vjp.kind == InstructionKind::kVjp &&
                       std::get<ValueId>(vjp.args[0]) == record.results.back();
    if (is_it) vjp.attributes["saved"] = ValueList();
  }
  return mutant;
}

}  // namespace

std::vector<Mutation> ConsistentMutations() {
  return {{"unwrap a loop", UnwrapLoop},
          {"another permutation", OtherPermutation},
          {"the part beside it", OtherPart},
          {"another saved value", OtherSaved},
          {"swap results", SwapResults},
          {"swap sum and term", SwapSumAndTerm},
          {"add to another gradient", AddToOtherGradient},
          {"drop an argument", DropArgument},
          {"drop a dimension", DropDim},
          {"a share of the learning rate", ShareOfLearningRate},
          {"forget what an opaque tape keeps", ForgetSaved}};
}

}  // namespace autosp
