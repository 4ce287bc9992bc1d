// Rings whose hops are missing, doubled or out of step; dropout and orders of shards that differ.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

bool IsHop(const Instruction& instruction) {
  return instruction.op == "autosp.attend_block_" ||
         instruction.op == "autosp.attend_block_backward_";
}

bool IsRingHop(const Program& program, const Site& site) {
  return IsHop(At(program, site)) && program.mesh.ring > 1;
}

bool IsTravel(const Program& program, const Site& site) {
  return At(program, site).op == "send_recv";
}

// Of the keys; the values follow them, and after these come out and logsumexp, or documents.
size_t KeyArg(const Instruction& hop) { return hop.op == "autosp.attend_block_" ? 3 : 5; }
size_t DocsArg(const Instruction& hop) { return hop.args.size() - 3; }

// The hop before the one at `site`, of the same attention or another.
const Instruction* HopBefore(const Program& program, const Site& site) {
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  for (size_t i = site.index; i-- > 0;) {
    if (body[i].op == body[site.index].op) return &body[i];
  }
  return nullptr;
}

std::optional<Program> DropHop(const Program& program, const Site& site) {
  if (!IsHop(At(program, site))) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> RepeatHop(const Program& program, const Site& site) {
  if (!IsHop(At(program, site))) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), At(program, site));
  return mutant;
}

std::optional<Program> OtherHop(const Program& program, const Site& site) {
  if (!IsRingHop(program, site)) return std::nullopt;
  Program mutant = program;
  auto& hop = std::get<SymInt>(At(mutant, site).args.back());
  hop = SymInt((hop.value + 1) % program.mesh.ring);
  return mutant;
}

// With the hop before, so that each number is there once.
std::optional<Program> SwapHops(const Program& program, const Site& site) {
  if (!IsRingHop(program, site)) return std::nullopt;
  const Instruction* before = HopBefore(program, site);
  if (before == nullptr || before->args.back() == At(program, site).args.back()) {
    return std::nullopt;
  }
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const size_t index =
      static_cast<size_t>(before - BodyOf(const_cast<Program&>(program), site).data());
  std::swap(body[index].args.back(), body[site.index].args.back());
  return mutant;
}

std::optional<Program> KeysOfAnotherHop(const Program& program, const Site& site) {
  if (!IsRingHop(program, site)) return std::nullopt;
  const Instruction* before = HopBefore(program, site);
  if (before == nullptr) return std::nullopt;
  Program mutant = program;
  Instruction& hop = At(mutant, site);
  for (size_t arg : {KeyArg(hop), KeyArg(hop) + 1}) hop.args[arg] = before->args[arg];
  return mutant;
}

std::optional<Program> ValuesOfAnotherHop(const Program& program, const Site& site) {
  if (!IsRingHop(program, site)) return std::nullopt;
  const Instruction* before = HopBefore(program, site);
  if (before == nullptr) return std::nullopt;
  Program mutant = program;
  Instruction& hop = At(mutant, site);
  hop.args[KeyArg(hop) + 1] = before->args[KeyArg(hop) + 1];
  return mutant;
}

// Keys where values belong.
std::optional<Program> SwapKeysAndValues(const Program& program, const Site& site) {
  if (!IsHop(At(program, site))) return std::nullopt;
  Program mutant = program;
  Instruction& hop = At(mutant, site);
  std::swap(hop.args[KeyArg(hop)], hop.args[KeyArg(hop) + 1]);
  return mutant;
}

std::optional<Program> OtherShift(const Program& program, const Site& site) {
  if (!IsTravel(program, site)) return std::nullopt;
  Program mutant = program;
  auto& shift = std::get<SymInt>(At(mutant, site).attributes.at("shift"));
  shift = SymInt(shift.value + 1);
  return mutant;
}

// Everyone keeps what it has.
std::optional<Program> StayAtPlace(const Program& program, const Site& site) {
  if (!IsTravel(program, site)) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const Instruction start = body[site.index];
  std::erase_if(body, [&](const Instruction& each) {
    return each.kind == InstructionKind::kWait && OperandsOf(each)[0] == start.results[0];
  });
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  for (size_t i = 0; i < start.results.size(); ++i) {
    Instruction copy;
    copy.kind = InstructionKind::kCopy;
    copy.args = {start.args[i]};
    copy.results = {start.results[i]};
    copy.phase = start.phase;
    body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), copy);
  }
  return mutant;
}

// The gradients of keys and values have all hops, and are one member short of home.
std::optional<Program> SkipLastTravel(const Program& program, const Site& site) {
  if (!IsTravel(program, site)) return std::nullopt;
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  for (size_t i = site.index + 1; i < body.size(); ++i) {
    const std::vector<ValueId> reads = ReadsOf(body[i]);
    const bool is_read = std::ranges::count(reads, At(program, site).results[0]) > 0;
    if (is_read && IsHop(body[i])) return std::nullopt;
  }
  return StayAtPlace(program, site);
}

// In one hop, or in all of the program alike.
template <typename Change>
std::optional<Program> ChangeHops(const Program& program, const Site& site, bool all,
                                  Change change) {
  if (!IsHop(At(program, site))) return std::nullopt;
  Program mutant = program;
  if (!all) {
    change(At(mutant, site));
    return mutant;
  }
  for (const Site& each : SitesOf(program)) {
    if (IsHop(At(program, each))) change(At(mutant, each));
  }
  return mutant;
}

void FlipCausal(Instruction& hop) {
  bool& causal = std::get<bool>(hop.attributes.at("causal"));
  causal = !causal;
}
void WidenWindow(Instruction& hop) {
  auto& window = std::get<SymInt>(hop.attributes.at("window"));
  window = SymInt(window.value + 3);
}
void DoubleScale(Instruction& hop) { std::get<double>(hop.attributes.at("scale")) *= 2; }

// Keys of one member as if they were those of all, and the other way round.
std::optional<Program> OtherGathering(const Program& program, const Site& site) {
  if (!IsRingHop(program, site)) return std::nullopt;
  return ChangeHops(program, site, /*all=*/false, [](Instruction& hop) {
    if (hop.attributes.erase("gathered") == 0) hop.attributes["gathered"] = true;
  });
}

bool HasDocs(const Instruction& hop) {
  return IsHop(hop) && !(IsNone(hop.args[DocsArg(hop)]) && IsNone(hop.args[DocsArg(hop) + 1]));
}
void DropDocs(Instruction& hop) { hop.args[DocsArg(hop)] = hop.args[DocsArg(hop) + 1] = None{}; }
// Documents of the queries are those of the keys, and the other way round.
void SwapDocs(Instruction& hop) { std::swap(hop.args[DocsArg(hop)], hop.args[DocsArg(hop) + 1]); }

std::optional<Program> Causal(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/false, FlipCausal);
}
std::optional<Program> CausalEverywhere(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/true, FlipCausal);
}
std::optional<Program> Window(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/false, WidenWindow);
}
std::optional<Program> WindowEverywhere(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/true, WidenWindow);
}
std::optional<Program> Scale(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/false, DoubleScale);
}
std::optional<Program> ScaleEverywhere(const Program& program, const Site& site) {
  return ChangeHops(program, site, /*all=*/true, DoubleScale);
}
std::optional<Program> NoDocs(const Program& program, const Site& site) {
  if (!HasDocs(At(program, site))) return std::nullopt;
  return ChangeHops(program, site, /*all=*/false, DropDocs);
}
std::optional<Program> NoDocsAnywhere(const Program& program, const Site& site) {
  if (!HasDocs(At(program, site))) return std::nullopt;
  return ChangeHops(program, site, /*all=*/true, DropDocs);
}
std::optional<Program> OtherDocs(const Program& program, const Site& site) {
  const Instruction& hop = At(program, site);
  if (!HasDocs(hop) || hop.args[DocsArg(hop)] == hop.args[DocsArg(hop) + 1]) return std::nullopt;
  return ChangeHops(program, site, /*all=*/true, SwapDocs);
}

bool IsDropout(const Program& program, const Site& site) {
  return At(program, site).op == "autosp.dropout";
}

std::optional<Program> OtherNode(const Program& program, const Site& site) {
  if (!IsDropout(program, site)) return std::nullopt;
  Program mutant = program;
  auto& node = std::get<SymInt>(At(mutant, site).attributes.at("node"));
  node = SymInt(node.value + 1);
  return mutant;
}

std::optional<Program> OtherSeed(const Program& program, const Site& site) {
  if (!IsDropout(program, site)) return std::nullopt;
  Program mutant = program;
  auto& seed = std::get<SymInt>(At(mutant, site).attributes.at("seed"));
  seed = SymInt(seed.value + 1);
  return mutant;
}

std::optional<Program> OtherProbability(const Program& program, const Site& site) {
  if (!IsDropout(program, site)) return std::nullopt;
  Program mutant = program;
  std::get<double>(At(mutant, site).attributes.at("p")) /= 2;
  return mutant;
}

// What it drops passes: in the forward, or the gradient in the backward.
std::optional<Program> LoseDropout(const Program& program, const Site& site) {
  if (!IsDropout(program, site)) return std::nullopt;
  Program mutant = program;
  Instruction& dropout = At(mutant, site);
  dropout.kind = InstructionKind::kCopy;
  dropout.op.clear();
  dropout.args.resize(1);
  dropout.attributes.clear();
  return mutant;
}

bool IsShardOrder(const Instruction& instruction) {
  return instruction.op == "autosp.to_shards" || instruction.op == "autosp.from_shards";
}

std::optional<Program> LoseShardOrder(const Program& program, const Site& site) {
  if (!IsShardOrder(At(program, site))) return std::nullopt;
  Program mutant = program;
  Instruction& order = At(mutant, site);
  order.kind = InstructionKind::kCopy;
  order.op.clear();
  order.args.resize(1);
  order.attributes.clear();
  return mutant;
}

std::optional<Program> OrderOtherDim(const Program& program, const Site& site) {
  if (!IsShardOrder(At(program, site))) return std::nullopt;
  Program mutant = program;
  auto& dim = std::get<SymInt>(At(mutant, site).attributes.at("dim"));
  dim = SymInt(dim.value + 1);
  return mutant;
}

}  // namespace

std::vector<Mutation> RingMutations() {
  return {{"drop a hop", DropHop},
          {"repeat a hop", RepeatHop},
          {"number of another hop", OtherHop},
          {"swap the numbers of two hops", SwapHops},
          {"keys of another hop", KeysOfAnotherHop},
          {"values of another hop", ValuesOfAnotherHop},
          {"swap keys and values", SwapKeysAndValues},
          {"travel too far", OtherShift},
          {"stay at place", StayAtPlace},
          {"gradients stay one short of home", SkipLastTravel},
          {"flip causal in a hop", Causal},
          {"flip causal everywhere", CausalEverywhere},
          {"other window in a hop", Window},
          {"other window everywhere", WindowEverywhere},
          {"other scale in a hop", Scale},
          {"other scale everywhere", ScaleEverywhere},
          {"gathered keys as those of one, or the other way round", OtherGathering},
          {"a hop without documents", NoDocs},
          {"no documents", NoDocsAnywhere},
          {"swap documents", OtherDocs},
          {"dropout of another node", OtherNode},
          {"dropout of another seed", OtherSeed},
          {"dropout of another probability", OtherProbability},
          {"lose a dropout", LoseDropout},
          {"lose an order of shards", LoseShardOrder},
          {"order another dim", OrderOtherDim}};
}

}  // namespace autosp
