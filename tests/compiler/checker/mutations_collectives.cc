// Collectives that are missing, doubled, or move the wrong thing.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

constexpr InstructionKind kStart = InstructionKind::kStart;

bool IsStart(const Program& program, const Site& site, std::string_view op = "") {
  const Instruction& instruction = At(program, site);
  return instruction.kind == kStart && (op.empty() || instruction.op == op);
}

bool IsGradientReduction(const Program& program, const Site& site) {
  return At(program, site).op == "autosp.all_reduce_";
}

IntList Sizes(const Program& program, ValueId id) {
  const std::vector<int64_t> sizes = program.LocalSizes(program.value(id));
  return {sizes.begin(), sizes.end()};
}

// Removes the wait of the collective at `site`.
void RemoveWait(Program& program, const Site& site, ValueId result) {
  std::vector<Instruction>& body = BodyOf(program, site);
  std::erase_if(body, [&](const Instruction& each) {
    return each.kind == InstructionKind::kWait && OperandsOf(each)[0] == result;
  });
}

// In its place a local op with a result of the same type.
std::optional<Program> DropCollective(const Program& program, const Site& site) {
  if (!IsStart(program, site)) return std::nullopt;
  Program mutant = program;
  Instruction& start = At(mutant, site);
  const ValueId operand = OperandsOf(start)[0];
  const ValueId result = start.results[0];
  const bool same_sizes = Sizes(program, operand) == Sizes(program, result);
  start.attributes.clear();
  if (same_sizes) {
    start.kind = InstructionKind::kCopy;
    start.op.clear();
  } else {
    start.kind = InstructionKind::kCall;
    start.op = "aten.zeros.default";
    start.args = {Sizes(program, result), program.value(result).dtype, None{}, None{}, None{}};
  }
  RemoveWait(mutant, site, result);
  return mutant;
}

// The result takes the label of the operand with it, so that only later uses can tell.
std::optional<Program> DropReductionAndLabel(const Program& program, const Site& site) {
  if (!IsStart(program, site, "all_reduce")) return std::nullopt;
  std::optional<Program> mutant = DropCollective(program, site);
  const Instruction& start = At(program, site);
  mutant->value(start.results[0]).partial = program.value(OperandsOf(start)[0]).partial;
  return mutant;
}

std::optional<Program> OtherAxis(const Program& program, const Site& site) {
  if (!IsStart(program, site) && !IsGradientReduction(program, site)) return std::nullopt;
  const Mesh& mesh = program.mesh;
  const auto axes = std::get<std::string>(At(program, site).attributes.at("axes"));
  std::string other = axes == "ulysses" ? "dp" : "ulysses";
  if (mesh.size(*AxisFromName(other)) < 2 || other == axes) return std::nullopt;
  Program mutant = program;
  At(mutant, site).attributes["axes"] = other;
  return mutant;
}

std::optional<Program> OtherDims(const Program& program, const Site& site) {
  if (!IsStart(program, site)) return std::nullopt;
  Program mutant = program;
  AttributeMap& attributes = At(mutant, site).attributes;
  if (!attributes.contains("split") && !attributes.contains("dim")) return std::nullopt;
  const auto rank = static_cast<int64_t>(program.value(At(program, site).results[0]).dims.size());
  if (attributes.contains("split")) {
    std::swap(attributes.at("split"), attributes.at("concat"));
  } else {
    auto& dim = std::get<IntList>(attributes.at("dim"))[0];
    dim = SymInt((dim.value + 1) % rank);
    if (rank == 1) return std::nullopt;
  }
  return mutant;
}

std::optional<Program> NextDim(const Program& program, const Site& site) {
  if (!IsStart(program, site, "all_to_all")) return std::nullopt;
  Program mutant = program;
  auto& split = std::get<IntList>(At(mutant, site).attributes.at("split"))[0];
  const auto rank = static_cast<int64_t>(program.value(At(program, site).results[0]).dims.size());
  split = SymInt((split.value + 1) % rank);
  return mutant;
}

std::optional<Program> OtherKind(const Program& program, const Site& site) {
  if (!IsStart(program, site, "reduce_scatter")) return std::nullopt;
  Program mutant = program;
  At(mutant, site).attributes["reduction"] = std::string("max");
  return mutant;
}

// Every later use reads what was reduced again.
std::optional<Program> DoubleReduction(const Program& program, const Site& site) {
  if (IsGradientReduction(program, site)) {
    Program mutant = program;
    std::vector<Instruction>& body = BodyOf(mutant, site);
    body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), At(program, site));
    return mutant;
  }
  if (!IsStart(program, site, "all_reduce")) return std::nullopt;
  Program mutant = program;
  const ValueId once = At(program, site).results[0];
  ProgramValue type = program.value(once);
  absl::StrAppend(&type.name, "_again");
  const ValueId twice = mutant.AddValue(std::move(type));
  std::vector<Instruction>& body = BodyOf(mutant, site);
  size_t wait = site.index;
  while (body[wait].kind != InstructionKind::kWait) ++wait;
  for (size_t i = wait + 1; i < body.size(); ++i) {
    const auto rename = [&](ValueId& id) { id = id == once ? twice : id; };
    for (Argument& argument : body[i].args) ForEachValue(argument, rename);
    for (auto& [key, argument] : body[i].attributes) ForEachValue(argument, rename);
  }
  Instruction again = At(program, site);
  again.args = {once};
  again.results = {twice};
  Instruction wait_again = body[wait];
  wait_again.args = {twice};
  Instruction free_once;
  free_once.kind = InstructionKind::kFree;
  free_once.args = {once};
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(wait) + 1, {again, wait_again, free_once});
  return mutant;
}

std::optional<Program> LoseGradientReduction(const Program& program, const Site& site) {
  if (!IsGradientReduction(program, site)) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> LoseOneGradient(const Program& program, const Site& site) {
  if (!IsGradientReduction(program, site)) return std::nullopt;
  Program mutant = program;
  auto& grads = std::get<ValueList>(At(mutant, site).args[0]);
  grads.erase(grads.begin());
  return mutant;
}

// The next collective of the same body comes first.
std::optional<Program> SwapCollectives(const Program& program, const Site& site) {
  if (!IsStart(program, site)) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  for (size_t next = site.index + 1; next < body.size(); ++next) {
    if (body[next].kind != kStart) continue;
    const Instruction second = body[next];
    body.erase(body.begin() + static_cast<std::ptrdiff_t>(next));
    body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), second);
    return mutant;
  }
  return std::nullopt;
}

// Past the first instruction that reads the result.
std::optional<Program> ReadBeforeWait(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kWait) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const ValueId awaited = OperandsOf(At(program, site))[0];
  size_t to = site.index + 1;
  while (to < body.size() && std::ranges::count(ReadsOf(body[to]), awaited) == 0) ++to;
  if (to == body.size()) return std::nullopt;
  const Instruction wait = body[site.index];
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(to) + 1, wait);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> WaitTwice(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kWait) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), At(program, site));
  return mutant;
}

std::optional<Program> NeverWait(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kWait) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

}  // namespace

std::vector<Mutation> CollectiveMutations() {
  return {{"drop collective", DropCollective},
          {"drop reduction and its label", DropReductionAndLabel},
          {"collective over another axis", OtherAxis},
          {"swap split and concat, next dim", OtherDims},
          {"split the next dim", NextDim},
          {"scatter a maximum", OtherKind},
          {"reduce twice", DoubleReduction},
          {"lose the gradient reduction", LoseGradientReduction},
          {"lose one gradient's reduction", LoseOneGradient},
          {"swap two collectives", SwapCollectives},
          {"read before the wait", ReadBeforeWait},
          {"wait twice", WaitTwice},
          {"never wait", NeverWait}};
}

}  // namespace autosp
