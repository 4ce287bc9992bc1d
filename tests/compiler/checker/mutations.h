// Wrong programs, made from right ones: each mutation breaks one instruction in a way in which a
// pass or the lowering could have got it wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/program/program.h"

namespace autosp {

// An instruction, in a section or in the loop at `loop` of its body (-1: not in a loop).
struct Site {
  size_t section = 0;
  std::vector<size_t> loops = {};  // the places of the loops around it, outermost first
  size_t index = 0;
};
std::vector<Site> SitesOf(const Program& program);
std::vector<Instruction>& BodyOf(Program& program, const Site& site);
Instruction& At(Program& program, const Site& site);
const Instruction& At(const Program& program, const Site& site);

struct Mutation {
  std::string_view name;
  // nullopt: the instruction is not of the kind that this mutation breaks.
  std::optional<Program> (*apply)(const Program& program, const Site& site);
};
const std::vector<Mutation>& AllMutations();

// The families.
std::vector<Mutation> BufferMutations();
std::vector<Mutation> CollectiveMutations();
std::vector<Mutation> LifetimeMutations();
std::vector<Mutation> RingMutations();
std::vector<Mutation> TileMutations();
std::vector<Mutation> ValueMutations();
std::vector<Mutation> ConsistentMutations();
std::vector<Mutation> ZeroMutations();
std::vector<Mutation> WindowMutations();

// Values of one type: dtype, dims, strides and partial sums.
bool SameType(const Program& program, ValueId a, ValueId b);
// The instruction that makes the value; nullptr: none does.
const Instruction* DefinerOf(const Program& program, ValueId id);
// Whether both names hold the same numbers, as the text shows by itself: they are the same place in
// memory, or made by the same op from operands of which that holds.
bool SameByConstruction(const Program& program, ValueId a, ValueId b);

}  // namespace autosp
