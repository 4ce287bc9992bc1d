// What the blocks of a random graph share: sizes, choices, parameters and inputs.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/random_graphs/graph_sketch.h"

namespace autosp {

// The same choices on every machine, unlike the distributions of the standard library.
class Choices {
 public:
  explicit Choices(uint64_t seed) : engine_(seed) {}

  int64_t Below(int64_t limit) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(limit));
  }
  int64_t Between(int64_t least, int64_t most) { return least + Below(most - least + 1); }
  bool OneIn(int64_t count) { return Below(count) == 0; }
  template <typename T>
  T Of(const std::vector<T>& options) {
    return options[Below(static_cast<int64_t>(options.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

struct GraphSizes {
  int64_t batch = 2;  // as exported
  int64_t seq_len = 8;
  int64_t heads = 2;
  int64_t kv_heads = 1;
  int64_t head_dim = 2;

  int64_t hidden() const { return heads * head_dim; }
};

// Legend: B batch, S tokens, D hidden, N heads, H head_dim.
class GraphMaker {
 public:
  GraphMaker(const GraphSizes& sizes, uint64_t seed) : sizes(sizes), choices(seed) {}

  // [B, S] integers
  ValueId Rows(const std::string& name);

  // A weight, new or one of those of the same sizes that there are; `name` ends in ".weight" or
  // ".bias".
  ValueId Weight(const std::string& name, const std::vector<int64_t>& sizes);

  ValueId Linear(ValueId x, int64_t out, const std::string& name);
  ValueId Norm(ValueId x);
  ValueId Add(ValueId a, ValueId b) { return sketch.Call("aten.add.Tensor", {a, b}); }
  ValueId Mul(ValueId a, Argument b) { return sketch.Call("aten.mul.Tensor", {a, std::move(b)}); }
  ValueId Transpose(ValueId x, int64_t a, int64_t b) {
    return sketch.Call("aten.transpose.int", {x, Int(a), Int(b)});
  }
  ValueId Reshape(ValueId x, const std::vector<int64_t>& sizes) {
    return sketch.Call("aten.reshape.default", {x, Ints(sizes)});
  }
  ValueId Unsqueeze(ValueId x, int64_t dim) {
    return sketch.Call("aten.unsqueeze.default", {x, Int(dim)});
  }
  ValueId Slice(ValueId x, int64_t dim, int64_t start, int64_t end) {
    return sketch.Call("aten.slice.Tensor", {x, Int(dim), Int(start), Int(end)});
  }
  ValueId Range(int64_t size) { return sketch.Call("aten.arange.default", {Int(size)}); }
  ValueId Float(ValueId x) { return sketch.Call("aten.to.dtype", {x, DType::kF32}); }

  const GraphSizes sizes;
  Choices choices;
  GraphSketch sketch;

 private:
  struct Named {
    ValueId value;
    std::vector<int64_t> sizes;
    std::string ending;
  };
  std::vector<Named> weights_;
};

// Each takes and gives [B, S, D].
using Block = ValueId (*)(GraphMaker& maker, ValueId x);
struct NamedBlock {
  const char* name;
  Block block;
};

const std::vector<NamedBlock>& TokenBlocks();      // token by token
const std::vector<NamedBlock>& LayoutBlocks();     // other orders of dimensions
const std::vector<NamedBlock>& MixingBlocks();     // across tokens
const std::vector<NamedBlock>& AttentionBlocks();  // masks and heads

// From [B, S, D] to a scalar.
const std::vector<NamedBlock>& Losses();

}  // namespace autosp
