// Shifts and convolutions over tokens with the borders of other tokens, of another width, or none.
#include <algorithm>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

bool IsEdges(const Program& program, const Site& site) {
  return At(program, site).op == "autosp.shard_edges";
}

bool IsShift(const Program& program, const Site& site) {
  return At(program, site).op == "autosp.token_shift";
}

bool IsConv(const Program& program, const Site& site) {
  return At(program, site).op.starts_with("autosp.token_conv");
}

// Which argument names the edges.
size_t EdgesArg(const Instruction& window) {
  if (window.op == "autosp.token_shift") return 1;
  return window.op == "autosp.token_conv" ? 3 : 2;
}

bool HasEdges(const Program& program, const Site& site) {
  if (!IsShift(program, site) && !IsConv(program, site)) return false;
  const Instruction& window = At(program, site);
  return !IsNone(window.args[EdgesArg(window)]);
}

// Adds to an integer among the arguments.
std::optional<Program> Add(const Program& program, const Site& site, size_t arg, int64_t number) {
  Program mutant = program;
  auto& integer = std::get<SymInt>(At(mutant, site).args[arg]);
  integer = SymInt(integer.value + number);
  return mutant;
}

// As many tokens, but of the other side of a border.
std::optional<Program> OtherSide(const Program& program, const Site& site) {
  if (!IsEdges(program, site)) return std::nullopt;
  const Instruction& edges = At(program, site);
  if (edges.args[2] == edges.args[3]) return std::nullopt;
  Program mutant = program;
  std::swap(At(mutant, site).args[2], At(mutant, site).args[3]);
  return mutant;
}

std::optional<Program> MovedEdges(const Program& program, const Site& site) {
  if (!IsEdges(program, site)) return std::nullopt;
  const int64_t before = std::get<SymInt>(At(program, site).args[2]).value;
  const int64_t step = before > 0 ? -1 : 1;
  std::optional<Program> mutant = Add(program, site, 2, step);
  return Add(*mutant, site, 3, -step);
}

std::optional<Program> EdgesOfOtherDim(const Program& program, const Site& site) {
  if (!IsEdges(program, site)) return std::nullopt;
  const int64_t dim = std::get<SymInt>(At(program, site).args[1]).value;
  return Add(program, site, 1, dim > 0 ? -1 : 1);
}

// Those of other tokens of one type, as both ops at once could read them.
std::optional<Program> EdgesOfOtherTokens(const Program& program, const Site& site) {
  if (!IsEdges(program, site)) return std::nullopt;
  const ValueId tokens = OperandsOf(At(program, site))[0];
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  for (size_t i = 0; i < site.index; ++i) {
    for (ValueId id : body[i].results) {
      const bool is_other =
          SameType(program, tokens, id) && !SameByConstruction(program, tokens, id);
      if (!is_other) continue;
      Program mutant = program;
      At(mutant, site).args[0] = id;
      return mutant;
    }
  }
  return std::nullopt;
}

// The op reads what another exchange brought.
std::optional<Program> OtherExchange(const Program& program, const Site& site) {
  if (!HasEdges(program, site)) return std::nullopt;
  const size_t arg = EdgesArg(At(program, site));
  const ValueId edges = std::get<ValueId>(At(program, site).args[arg]);
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  for (size_t i = 0; i < site.index; ++i) {
    if (body[i].kind != InstructionKind::kStart || body[i].op != "all_gather") continue;
    const ValueId other = body[i].results[0];
    if (!SameType(program, edges, other) || SameByConstruction(program, edges, other)) continue;
    Program mutant = program;
    At(mutant, site).args[arg] = other;
    return mutant;
  }
  return std::nullopt;
}

std::optional<Program> NoEdges(const Program& program, const Site& site) {
  if (!HasEdges(program, site)) return std::nullopt;
  Program mutant = program;
  Instruction& window = At(mutant, site);
  window.args[EdgesArg(window)] = None{};
  return mutant;
}

// Each rank with its own edges alone.
std::optional<Program> OwnEdges(const Program& program, const Site& site) {
  if (!HasEdges(program, site)) return std::nullopt;
  Program mutant = program;
  Instruction& window = At(mutant, site);
  auto& edges = std::get<ValueId>(window.args[EdgesArg(window)]);
  for (const Instruction& start : BodyOf(mutant, site)) {
    const bool is_exchange =
        start.kind == InstructionKind::kStart && start.results == std::vector<ValueId>{edges};
    if (!is_exchange) continue;
    edges = OperandsOf(start)[0];
    return mutant;
  }
  return std::nullopt;
}

std::optional<Program> OtherWay(const Program& program, const Site& site) {
  if (!IsShift(program, site)) return std::nullopt;
  return Add(program, site, 3, -2 * std::get<SymInt>(At(program, site).args[3]).value);
}

std::optional<Program> NoShift(const Program& program, const Site& site) {
  if (!IsShift(program, site)) return std::nullopt;
  Program mutant = program;
  Instruction& shift = At(mutant, site);
  shift.kind = InstructionKind::kCopy;
  shift.op.clear();
  shift.args.resize(1);
  shift.attributes.clear();
  return mutant;
}

std::optional<Program> OtherWindow(const Program& program, const Site& site) {
  if (!IsConv(program, site)) return std::nullopt;
  const size_t arg = EdgesArg(At(program, site)) + 1;
  const int64_t before = std::get<SymInt>(At(program, site).args[arg]).value;
  return Add(program, site, arg, before > 0 ? -1 : 1);
}

std::optional<Program> OtherDilation(const Program& program, const Site& site) {
  if (!IsConv(program, site)) return std::nullopt;
  return Add(program, site, EdgesArg(At(program, site)) + 2, 1);
}

std::optional<Program> NoBias(const Program& program, const Site& site) {
  const Instruction& conv = At(program, site);
  if (conv.op != "autosp.token_conv" || IsNone(conv.args[2])) return std::nullopt;
  Program mutant = program;
  At(mutant, site).args[2] = None{};
  return mutant;
}

// A gradient whose padding counts as much as its tokens.
std::optional<Program> PadGradient(const Program& program, const Site& site) {
  const Instruction& shift = At(program, site);
  const bool is_gradient = IsShift(program, site) && shift.phase == Phase::kBackward;
  if (!is_gradient || !HasEdges(program, site)) return std::nullopt;
  const ProgramDim& tokens =
      program.value(shift.results[0]).dims[std::get<SymInt>(shift.args[2]).value];
  if (program.PaddedSize(tokens[0]) == program.factors[tokens[0].factor.index].size) {
    return std::nullopt;
  }
  Program mutant = program;
  At(mutant, site).attributes["pad"] = SymInt(1);
  return mutant;
}

}  // namespace

std::vector<Mutation> WindowMutations() {
  return {{"edges of the other side", OtherSide},
          {"edges of other tokens", EdgesOfOtherTokens},
          {"edges one token away", MovedEdges},
          {"edges of another dimension", EdgesOfOtherDim},
          {"edges of another exchange", OtherExchange},
          {"no edges", NoEdges},
          {"edges of the rank itself", OwnEdges},
          {"shift the other way", OtherWay},
          {"lose a shift", NoShift},
          {"pad the gradient of a shift", PadGradient},
          {"other window of a convolution", OtherWindow},
          {"other dilation", OtherDilation},
          {"convolution without its bias", NoBias}};
}

}  // namespace autosp
