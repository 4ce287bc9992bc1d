// What is split over ranks, in a part that is missing, another one, or summed over the wrong ranks.
#include <algorithm>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

bool IsUpdate(const Program& program, const Site& site, std::string_view op) {
  const Instruction& instruction = At(program, site);
  return instruction.kind == InstructionKind::kUpdate && instruction.op == op;
}

// Axes that split a dim of the value.
AxisList SplitAxes(const ProgramValue& value) {
  AxisList axes;
  for (const ProgramDim& dim : value.dims) {
    for (const DimFactor& factor : dim)
      axes.insert(axes.end(), factor.axes.begin(), factor.axes.end());
  }
  return axes;
}

bool IsPersistent(const Program& program, ValueId id) {
  return std::ranges::any_of(program.persistents,
                             [&](const Persistent& each) { return each.value == id; });
}

// The parts that ranks updated stay where they are.
std::optional<Program> DropGather(const Program& program, const Site& site) {
  if (!IsUpdate(program, site, "autosp.all_gather_")) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> GatherOneLess(const Program& program, const Site& site) {
  if (!IsUpdate(program, site, "autosp.all_gather_")) return std::nullopt;
  Program mutant = program;
  Instruction& gather = At(mutant, site);
  for (size_t arg : {0, 1}) std::get<ValueList>(gather.args[arg]).pop_back();
  std::get<IntList>(gather.attributes.at("dim")).pop_back();
  return mutant;
}

std::optional<Program> GatherOtherDim(const Program& program, const Site& site) {
  if (!IsUpdate(program, site, "autosp.all_gather_")) return std::nullopt;
  Program mutant = program;
  auto& dims = std::get<IntList>(At(mutant, site).attributes.at("dim"));
  const auto& wholes = std::get<ValueList>(At(program, site).args[0]);
  for (size_t i = 0; i < dims.size(); ++i) {
    const auto rank = static_cast<int64_t>(program.value(wholes[i]).dims.size());
    if (rank < 2) continue;
    dims[i] = SymInt((dims[i].value + 1) % rank);
    return mutant;
  }
  return std::nullopt;
}

// Two parameters get each other's parts.
std::optional<Program> SwapParts(const Program& program, const Site& site) {
  if (!IsUpdate(program, site, "autosp.all_gather_")) return std::nullopt;
  Program mutant = program;
  auto& parts = std::get<ValueList>(At(mutant, site).args[1]);
  for (size_t i = 1; i < parts.size(); ++i) {
    if (!SameType(program, parts[0], parts[i])) continue;
    std::swap(parts[0], parts[i]);
    return mutant;
  }
  return std::nullopt;
}

// Every rank updates the first part.
std::optional<Program> SliceWithoutRank(const Program& program, const Site& site) {
  const Instruction& slice = At(program, site);
  if (slice.op != "aten.slice.Tensor" || slice.phase != Phase::kOptimizer) return std::nullopt;
  Program mutant = program;
  mutant.value(slice.results[0]).offset.terms.clear();
  return mutant;
}

// The part of the rank beside it: ranks in another order.
std::optional<Program> SliceOfOtherStride(const Program& program, const Site& site) {
  const Instruction& slice = At(program, site);
  if (slice.op != "aten.slice.Tensor" || slice.phase != Phase::kOptimizer) return std::nullopt;
  Program mutant = program;
  auto& terms = mutant.value(slice.results[0]).offset.terms;
  if (terms.size() < 2) return std::nullopt;
  std::swap(terms[0].second, terms[1].second);
  return mutant;
}

// The norm of the rank's own parts.
std::optional<Program> NormOfOwnParts(const Program& program, const Site& site) {
  const Instruction& sum = At(program, site);
  if (sum.op != "autosp.sum_of_squares") return std::nullopt;
  if (program.value(sum.results[0]).partial.axes.empty()) return std::nullopt;
  Program mutant = program;
  mutant.value(sum.results[0]).partial.axes.clear();
  return mutant;
}

// One sum of what is split and of what every rank has whole.
std::optional<Program> SumWholeWithParts(const Program& program, const Site& site) {
  const Instruction& sum = At(program, site);
  if (sum.op != "autosp.sum_of_squares") return std::nullopt;
  for (const Persistent& each : program.persistents) {
    const bool is_whole =
        each.kind == PersistentKind::kParam && SplitAxes(program.value(each.value)).empty();
    if (!is_whole) continue;
    Program mutant = program;
    std::get<ValueList>(At(mutant, site).args[0]).push_back(each.value);
    return mutant;
  }
  return std::nullopt;
}

// A state that is kept whole where all else is in parts.
std::optional<Program> WholeState(const Program& program, const Site& site) {
  if (!IsUpdate(program, site, "autosp.adamw_")) return std::nullopt;
  Program mutant = program;
  for (ValueId id : std::get<ValueList>(At(program, site).args[2])) {
    if (SplitAxes(program.value(id)).empty()) continue;
    for (ProgramDim& dim : mutant.value(id).dims) {
      for (DimFactor& factor : dim) factor.axes.clear();
    }
    return mutant;
  }
  return std::nullopt;
}

// A part is used as if it were the whole.
std::optional<Program> UsePart(const Program& program, const Site& site) {
  const Instruction& gather = At(program, site);
  const bool gathers = gather.kind == InstructionKind::kStart && gather.op == "all_gather";
  if (!gathers || !IsPersistent(program, OperandsOf(gather)[0])) return std::nullopt;
  Program mutant = program;
  const ValueId part = OperandsOf(gather)[0];
  const ValueId whole = gather.results[0];
  std::vector<Instruction>& body = BodyOf(mutant, site);
  for (size_t i = site.index + 1; i < body.size(); ++i) {
    const bool ends =
        body[i].kind == InstructionKind::kWait || body[i].kind == InstructionKind::kFree;
    if (ends) continue;
    bool changed = false;
    const auto rename = [&](ValueId& id) {
      changed = changed || id == whole;
      id = id == whole ? part : id;
    };
    for (Argument& argument : body[i].args) ForEachValue(argument, rename);
    for (auto& [key, argument] : body[i].attributes) ForEachValue(argument, rename);
    if (changed) return mutant;
  }
  return std::nullopt;
}

// Another parameter of the same type is gathered.
std::optional<Program> GatherOther(const Program& program, const Site& site) {
  const Instruction& gather = At(program, site);
  const bool gathers = gather.kind == InstructionKind::kStart && gather.op == "all_gather";
  if (!gathers || !IsPersistent(program, OperandsOf(gather)[0])) return std::nullopt;
  const ValueId part = OperandsOf(gather)[0];
  for (const Persistent& each : program.persistents) {
    const bool is_other = each.kind == PersistentKind::kParam && each.value != part &&
                          SameType(program, each.value, part);
    if (!is_other) continue;
    Program mutant = program;
    At(mutant, site).args[0] = each.value;
    return mutant;
  }
  return std::nullopt;
}

// Each micro-step adds its whole gradient on every rank, without a reduction between them.
std::optional<Program> AddUnreduced(const Program& program, const Site& site) {
  const Instruction& scatter = At(program, site);
  const bool scatters = scatter.kind == InstructionKind::kStart && scatter.op == "reduce_scatter";
  if (!scatters) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  for (size_t i = site.index + 1; i < body.size(); ++i) {
    if (body[i].kind != InstructionKind::kAccumulate) continue;
    if (OperandsOf(body[i])[1] != scatter.results[0]) continue;
    body[i].args[1] = OperandsOf(scatter)[0];
    return mutant;
  }
  return std::nullopt;
}

}  // namespace

std::vector<Mutation> ZeroMutations() {
  return {{"drop the gather of updated parts", DropGather},
          {"gather one parameter less", GatherOneLess},
          {"gather updated parts along another dim", GatherOtherDim},
          {"gather parts of another parameter", SwapParts},
          {"update the first part on every rank", SliceWithoutRank},
          {"update the part of another rank", SliceOfOtherStride},
          {"norm of the rank's own parts", NormOfOwnParts},
          {"sum squares of whole and of split", SumWholeWithParts},
          {"a whole state for a part", WholeState},
          {"use a part for the whole", UsePart},
          {"gather another parameter", GatherOther},
          {"add a gradient that is not scattered", AddUnreduced}};
}

}  // namespace autosp
