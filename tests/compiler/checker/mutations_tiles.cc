// Tiles at wrong places, added up wrongly, or in loops that run another number of times.
#include <algorithm>
#include <string>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

constexpr char kTile[] = "tile";

bool IsTileSlice(const Program& program, const Site& site) {
  const Instruction& alias = At(program, site);
  if (alias.kind != InstructionKind::kAlias || alias.op != "aten.slice.Tensor") return false;
  return std::ranges::any_of(program.value(alias.results[0]).offset.terms,
                             [](const auto& term) { return term.first == kTile; });
}

// Changes the term of a slice's offset that counts tiles.
template <typename Change>
std::optional<Program> ChangeTerm(const Program& program, const Site& site, Change change) {
  if (!IsTileSlice(program, site)) return std::nullopt;
  Program mutant = program;
  LinearExpr& offset = mutant.value(At(mutant, site).results[0]).offset;
  for (auto& term : offset.terms) {
    if (term.first == kTile) change(term);
  }
  return mutant;
}

std::optional<Program> SameTileEachTime(const Program& program, const Site& site) {
  if (!IsTileSlice(program, site)) return std::nullopt;
  Program mutant = program;
  std::erase_if(mutant.value(At(mutant, site).results[0]).offset.terms,
                [](const auto& term) { return term.first == kTile; });
  return mutant;
}

std::optional<Program> TilesApart(const Program& program, const Site& site) {
  return ChangeTerm(program, site, [](auto& term) { term.second += 1; });
}

std::optional<Program> TileOfRank(const Program& program, const Site& site) {
  return ChangeTerm(program, site, [](auto& term) { term.first = "rank.ulysses"; });
}

std::optional<Program> OneTileLess(const Program& program, const Site& site) {
  if (At(program, site).op != kTile) return std::nullopt;
  Program mutant = program;
  auto& count = std::get<SymInt>(At(mutant, site).attributes.at("count"));
  count = SymInt(count.value - 1);
  return mutant;
}

std::optional<Program> OtherNumberOfTiles(const Program& program, const Site& site) {
  if (At(program, site).op != kTile) return std::nullopt;
  Program mutant = program;
  mutant.mesh.tile *= 2;
  return mutant;
}

std::optional<Program> DropLoop(const Program& program, const Site& site) {
  if (At(program, site).op != kTile) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> RepeatLoopBody(const Program& program, const Site& site) {
  if (At(program, site).op != kTile) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const Instruction loop = body[site.index];
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), loop);
  return mutant;
}

// What each tile makes, taken for the whole after the loop.
std::optional<Program> LastTileForAll(const Program& program, const Site& site) {
  const Instruction& loop = At(program, site);
  if (loop.op != kTile) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  std::vector<Instruction> inner = body[site.index].body;
  const auto at = body.begin() + static_cast<std::ptrdiff_t>(site.index);
  body.insert(body.erase(at), inner.begin(), inner.end());
  return mutant;
}

}  // namespace

std::vector<Mutation> TileMutations() {
  return {{"the same tile each time", SameTileEachTime}, {"tiles apart", TilesApart},
          {"the tile of the rank", TileOfRank},          {"one tile less", OneTileLess},
          {"other number of tiles", OtherNumberOfTiles}, {"drop a loop over tiles", DropLoop},
          {"repeat a loop over tiles", RepeatLoopBody},  {"no loop over tiles", LastTileForAll}};
}

}  // namespace autosp
