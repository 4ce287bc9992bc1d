// The tokens of a rank as stretches of consecutive tokens: one, or the two halves of a zigzag
// shard, between which the tokens of other ranks lie.
#pragma once

#include <cstdint>
#include <optional>

#include "compiler/program/program.h"

namespace autosp {

struct TokenStretches {
  int64_t num_shards = 1;
  int64_t per_shard = 1;
  int64_t length = 0;     // of a stretch, in tokens
  int64_t num_valid = 0;  // tokens of all stretches; what is behind them is padding
  AxisList axes;          // that split the tokens, outermost first; empty: one stretch is all
  bool is_split() const { return !axes.empty(); }
  int64_t num_stretches() const { return num_shards * per_shard; }
};

// nullopt: the dimension is split in another way than by whole tokens of its major factor.
std::optional<TokenStretches> TokenStretchesOf(const Program& program, const ProgramDim& dim);

}  // namespace autosp
