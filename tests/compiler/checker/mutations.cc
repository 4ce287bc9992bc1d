#include "tests/compiler/checker/mutations.h"

#include <algorithm>

namespace autosp {

namespace {

void AddSites(const std::vector<Instruction>& body, Site place, std::vector<Site>* sites) {
  for (size_t i = 0; i < body.size(); ++i) {
    place.index = i;
    sites->push_back(place);
    if (body[i].body.empty()) continue;
    Site inner = place;
    inner.loops.push_back(i);
    AddSites(body[i].body, inner, sites);
  }
}

}  // namespace

std::vector<Site> SitesOf(const Program& program) {
  std::vector<Site> sites;
  for (size_t i = 0; i < program.sections.size(); ++i) {
    AddSites(program.sections[i].body, {.section = i}, &sites);
  }
  return sites;
}

std::vector<Instruction>& BodyOf(Program& program, const Site& site) {
  std::vector<Instruction>* body = &program.sections[site.section].body;
  for (size_t loop : site.loops) body = &(*body)[loop].body;
  return *body;
}

Instruction& At(Program& program, const Site& site) { return BodyOf(program, site)[site.index]; }

const Instruction& At(const Program& program, const Site& site) {
  return At(const_cast<Program&>(program), site);
}

const std::vector<Mutation>& AllMutations() {
  static const auto& mutations = *new std::vector<Mutation>([] {
    std::vector<Mutation> all;
    for (const auto& family : {CollectiveMutations(), LifetimeMutations(), ValueMutations(),
                               ConsistentMutations(), RingMutations(), TileMutations(),
                               ZeroMutations(), WindowMutations(), BufferMutations()}) {
      all.insert(all.end(), family.begin(), family.end());
    }
    return all;
  }());
  return mutations;
}

bool SameType(const Program& program, ValueId a, ValueId b) {
  const ProgramValue& x = program.value(a);
  const ProgramValue& y = program.value(b);
  return x.is_tape == y.is_tape && x.dtype == y.dtype && x.dims == y.dims &&
         x.partial == y.partial && program.LocalStrides(x) == program.LocalStrides(y);
}

const Instruction* DefinerOf(const Program& program, ValueId id) {
  for (const Site& site : SitesOf(program)) {
    const Instruction& instruction = At(program, site);
    if (std::ranges::count(instruction.results, id) > 0) return &instruction;
  }
  return nullptr;
}

bool SameByConstruction(const Program& program, ValueId a, ValueId b) {
  if (a == b) return true;
  const ProgramValue& x = program.value(a);
  const ProgramValue& y = program.value(b);
  if (x.dims != y.dims || x.dtype != y.dtype) return false;
  const bool same_place = x.storage == y.storage && x.offset == y.offset &&
                          program.LocalStrides(x) == program.LocalStrides(y);
  if (same_place) return true;
  const Instruction* first = DefinerOf(program, a);
  const Instruction* second = DefinerOf(program, b);
  if (first == nullptr || second == nullptr) return false;
  const auto is_copy = [](const Instruction& made) {
    return made.kind == InstructionKind::kCopy || made.op == "aten.detach.default" ||
           made.op == "aten.clone.default" ||
           (made.op == "aten.mul.Tensor" && made.args[1] == Argument(1.0));
  };
  if (is_copy(*first)) return SameByConstruction(program, OperandsOf(*first)[0], b);
  if (is_copy(*second)) return SameByConstruction(program, a, OperandsOf(*second)[0]);
  const bool both_feeds = first->kind == InstructionKind::kFeed &&
                          second->kind == InstructionKind::kFeed && first->op == second->op;
  if (both_feeds) return true;
  // An op writes nothing to its operands, so the same op on the same operands gives the same.
  const bool is_pure = first->kind != InstructionKind::kVjp && first->op == second->op &&
                       first->args.size() == second->args.size() &&
                       first->attributes.contains("axes") == second->attributes.contains("axes");
  if (!is_pure || first->results.size() != 1) return false;
  for (size_t i = 0; i < first->args.size(); ++i) {
    const auto* p = std::get_if<ValueId>(&first->args[i]);
    const auto* q = std::get_if<ValueId>(&second->args[i]);
    const bool same = p != nullptr && q != nullptr ? SameByConstruction(program, *p, *q)
                                                   : first->args[i] == second->args[i];
    if (!same) return false;
  }
  return true;
}

}  // namespace autosp
