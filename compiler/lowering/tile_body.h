// Instructions as they run on one tile of the sequence.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "compiler/lowering/program_builder.h"

namespace autosp {

// The factor that tiles split, and how it is split already.
struct TiledFactor {
  FactorId factor;
  AxisList axes;
  int64_t local_size = 0;  // of a rank, all tiles together
};

// Whether tiles may split a value: it has the factor once, split as it is everywhere, without
// padding that was gathered; or not at all.
bool IsTileable(const ProgramValue& value, const TiledFactor& factor);
bool HasFactor(const ProgramValue& value, FactorId factor);

// The sequence as `value` has it; nullopt where it has none.
std::optional<TiledFactor> SequenceOf(const Program& program, ValueId value);

// Whether an instruction gives the same on a part of the tokens: elementwise ops, norms, views,
// products, and sums, which give a part of the sum. A derivative does where its op does.
bool IsOfTokens(const Instruction& instruction);
// Whether it may give a sum over tokens; all others must give something for each token.
bool MayReduceTokens(const Instruction& instruction);
bool IsProduct(const Instruction& instruction);  // of matrices
// The operand of a product whose rows are tokens.
ValueId RowsOf(const Instruction& product);

// How many tiles to make where `wanted` are: a divisor of the tokens of a rank that is at least
// that, and at most twice; more where tiles would have over 2048 tokens, which are no faster. 1
// where there is none, or where tiles of that length would not lie in the factor's layout as its
// shards do.
int64_t ChooseTiles(const Program& program, const TiledFactor& factor, int64_t wanted);

// Appends the instructions of a loop's body to `builder.body()`. The mesh of the program must have
// its number of tiles.
class TileBody {
 public:
  TileBody(ProgramBuilder& builder, const TiledFactor& factor)
      : builder_(builder), factor_(factor) {}

  // Appends `instruction` on one tile. Operands that no earlier call made come from outside: of
  // those with the factor the tile is taken, all others are as they are.
  void Add(const Instruction& instruction);

  // The tile's part of a value from outside, in memory of its own, which later calls may add to.
  void AddCopy(ValueId value);

  // `whole` is what all tiles of `value` make up; where this tile's is here, it need not be read.
  void Know(ValueId whole, ValueId value);

  // Adds what the tile holds of `value`, which an earlier call made, into its place in `whole`, or
  // to the sum that `whole` is.
  void AddInto(ValueId whole, ValueId value);

 private:
  ValueId OnTile(ValueId value);
  // Dims in which the factor begins a dimension, so that a part of it is a slice.
  std::vector<ProgramDim> Isolated(const std::vector<ProgramDim>& dims, size_t* dim) const;
  std::vector<ProgramDim> TileDims(std::vector<ProgramDim> dims) const;
  ValueId SliceOfWhole(ValueId whole);
  void AddAlias(const Instruction& alias);
  void AddClone(const Instruction& instruction);
  ProgramValue TileType(const ProgramValue& value, bool sums) const;

  ProgramBuilder& builder_;
  const TiledFactor factor_;
  std::map<ValueId, ValueId> tiles_;
};

}  // namespace autosp
