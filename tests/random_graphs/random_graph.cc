#include "tests/random_graphs/random_graph.h"

#include <ATen/ops/ones.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/random_graphs/example_values.h"

namespace autosp {
namespace {

constexpr int64_t kMaxRanks = 4;

GraphSizes RandomSizes(Choices& choices) {
  GraphSizes sizes;
  sizes.heads = choices.Of<int64_t>({1, 2, 2, 3, 4, 4, 6});
  // A layer norm over two features is a sign: its gradient is rounding alone.
  sizes.head_dim = sizes.heads == 1 ? 4 : choices.Of<int64_t>({2, 4});
  std::vector<int64_t> groups;
  for (int64_t count = 1; count <= sizes.heads; ++count) {
    if (sizes.heads % count == 0) groups.push_back(count);
  }
  sizes.kv_heads = choices.OneIn(2) ? sizes.heads : choices.Of(groups);
  // Sizes that coincide with others must not be taken for them.
  sizes.seq_len = choices.OneIn(4) ? std::max<int64_t>(4, sizes.hidden()) : choices.Between(4, 17);
  return sizes;
}

Mesh RandomMesh(Choices& choices) {
  Mesh mesh;
  do {
    mesh.dp = choices.Of<int64_t>({1, 1, 1, 2});
    mesh.ulysses = choices.Of<int64_t>({1, 2, 2, 3, 4});
    mesh.ring = choices.Of<int64_t>({1, 1, 2, 3, 4});
  } while (mesh.world_size() > kMaxRanks);
  mesh.accum = choices.Of<int64_t>({1, 1, 2});
  return mesh;
}

NamedBlock RandomBlock(Choices& choices) {
  switch (choices.Below(5)) {
    case 0:
      return choices.Of(LayoutBlocks());
    case 1:
      return choices.Of(AttentionBlocks());
    case 2:
    case 3:
      return choices.OneIn(3) ? choices.Of(AttentionBlocks()) : choices.Of(MixingBlocks());
    default:
      return choices.Of(TokenBlocks());
  }
}

// [B, S, D]
ValueId Embed(GraphMaker& maker, const GraphRecipe& recipe) {
  const GraphSizes& sizes = maker.sizes;
  const ValueId table = maker.Weight("embed.weight", {kVocabulary, sizes.hidden()});
  if (!recipe.is_sequence_first) {
    return maker.sketch.Call("aten.embedding.default", {table, maker.Rows("ids")});
  }
  const ValueId ids =
      maker.sketch.Input("ids_sb", at::ones({sizes.seq_len, sizes.batch}, at::kLong));
  return maker.Transpose(maker.sketch.Call("aten.embedding.default", {table, ids}), 0, 1);
}

}  // namespace

std::string GraphRecipe::ToString() const {
  std::string text = absl::StrCat("B", sizes.batch, " S", sizes.seq_len, " heads ", sizes.heads,
                                  "/", sizes.kv_heads, "x", sizes.head_dim, ":");
  for (const Part& part : blocks) absl::StrAppend(&text, " ", part.block.name);
  return absl::StrCat(text, " -> ", loss.block.name);
}

GraphRecipe RandomRecipe(uint64_t seed) {
  Choices choices(seed);
  GraphRecipe recipe;
  recipe.seed = seed;
  recipe.sizes = RandomSizes(choices);
  recipe.mesh = RandomMesh(choices);
  const int64_t places = recipe.mesh.dp * recipe.mesh.accum;
  recipe.sizes.batch = places * choices.Between(1, places > 2 ? 1 : 2);
  recipe.job_batch = recipe.sizes.batch;
  recipe.job_seq_len = recipe.sizes.seq_len;
  if (choices.OneIn(4)) {
    recipe.job_seq_len = choices.Between(4, 17);
    recipe.job_batch = places * choices.Between(1, 2);
  }
  recipe.is_sequence_first = choices.OneIn(6);
  for (int64_t count = choices.Between(1, 4); count > 0; --count) {
    const NamedBlock block = RandomBlock(choices);
    recipe.blocks.push_back({block, static_cast<uint64_t>(choices.Below(INT64_MAX))});
  }
  const NamedBlock loss = choices.Of(Losses());
  recipe.loss = {loss, static_cast<uint64_t>(choices.Below(INT64_MAX))};
  recipe.recompute = choices.Of<Recompute>(
      {Recompute::kNone, Recompute::kNone, Recompute::kSelective, Recompute::kFull});
  recipe.tiling = choices.Of<Tiling>({Tiling::kNone, Tiling::kLoss, Tiling::kAll, Tiling::kAll});
  return recipe;
}

RandomCase MakeCase(const GraphRecipe& recipe) {
  GraphMaker maker(recipe.sizes, recipe.seed);
  ValueId x = Embed(maker, recipe);
  for (const GraphRecipe::Part& part : recipe.blocks) {
    maker.choices = Choices(part.seed);
    x = part.block.block(maker, x);
  }
  maker.choices = Choices(recipe.loss.seed);
  const ValueId loss = recipe.loss.block.block(maker, x);
  return {.graph = maker.sketch.Finish(loss),
          .mesh = recipe.mesh,
          .recompute = recipe.recompute,
          .tiling = recipe.tiling,
          .batch_size = recipe.job_batch,
          .seq_len = recipe.job_seq_len,
          .seed = recipe.seed};
}

}  // namespace autosp
