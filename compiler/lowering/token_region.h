// Part of a program that may run on a part of the tokens at a time.
#pragma once

#include <set>
#include <vector>

#include "compiler/lowering/tile_body.h"

namespace autosp {

class TokenRegion {
 public:
  TokenRegion(const Program& program, const TiledFactor& factor)
      : program_(program), factor_(factor) {}

  // Takes the instruction in; its results are then inside. Call it in program order. False where it
  // cannot run on tiles: a result for a token depends on others, it writes to what is outside
  // and not a sum over tokens, it needs a sum over all tokens, or it uses a tape from outside.
  bool Enter(const Instruction& instruction);
  bool Reads(const Instruction& instruction) const;  // something that is inside
  bool Has(ValueId id) const { return inside_.contains(id); }
  // From here on a value from outside is one of the inside.
  void TakeIn(ValueId id) { inside_.insert(id); }
  // Whether it adds to what lies outside for each token: another gradient of an input. That is done
  // after the tiles, since they may read the same memory.
  bool AddsToTokensOutside(const Instruction& instruction) const;
  // Notes what an instruction outside reads of the inside. False where that is nothing that tiles
  // can put together: a number for each token, or, with `sums`, a sum over them.
  bool Leave(const Instruction& outside, bool sums = false);

  const TiledFactor& factor() const { return factor_; }
  const std::vector<ValueId>& exits() const { return exits_; }

 private:
  bool MayWrite(const Instruction& instruction) const;
  bool IsLinearInSums(const Instruction& instruction) const;
  void NoteSums(const Instruction& instruction);
  bool IsStretched(const ProgramValue& value) const;
  bool KeepsTokens(const Instruction& instruction) const;
  bool HasTokens(ValueId id) const;
  bool MayHaveTokens(ValueId id) const;  // or is a tape, of which that is not known
  bool IsDense(const ProgramValue& value) const;
  bool MayLeave(ValueId id, bool sums) const;

  const Program& program_;
  const TiledFactor factor_;
  std::set<ValueId> inside_;
  std::set<ValueId> sums_;      // of those, parts of sums over tokens
  std::vector<ValueId> exits_;  // in the order in which they were noted
};

// Zeros for each exit of a region, into which tiles add their parts.
std::map<ValueId, ValueId> MakeExits(ProgramBuilder& builder, const std::vector<ValueId>& exits);

// The loop over all tiles, with an empty body.
Instruction TileLoop(const Program& program);

}  // namespace autosp
