// Blocks that work token by token, and those that only lay tokens out differently.

#include "tests/random_graphs/graph_maker.h"

namespace autosp {
namespace {

ValueId Activation(GraphMaker& m, ValueId x) {
  const std::string op = m.choices.Of<std::string>({"aten.gelu.default", "aten.silu.default",
                                                    "aten.tanh.default", "aten.sigmoid.default",
                                                    "aten.softplus.default", "aten.relu.default"});
  return m.sketch.Call(op, {x});
}

ValueId Mlp(GraphMaker& m, ValueId x) {
  const int64_t inner = m.choices.Between(1, 3) * m.sizes.hidden();
  const ValueId wide = Activation(m, m.Linear(m.Norm(x), inner, "up"));
  return m.Add(x, m.Linear(wide, m.sizes.hidden(), "down"));
}

ValueId GatedMlp(GraphMaker& m, ValueId x) {
  const ValueId normed = m.Norm(x);
  const int64_t inner = 2 * m.sizes.hidden();
  const ValueId gate = Activation(m, m.Linear(normed, inner, "gate"));
  return m.Add(x, m.Linear(m.Mul(gate, m.Linear(normed, inner, "up")), m.sizes.hidden(), "down"));
}

// Two halves of one product.
ValueId SplitMlp(GraphMaker& m, ValueId x) {
  const ValueId both = m.Linear(m.Norm(x), 2 * m.sizes.hidden(), "both");
  const std::vector<ValueId> halves =
      m.choices.OneIn(2)
          ? m.sketch.CallForAll("aten.chunk.default", {both, Int(2), Int(-1)})
          : m.sketch.CallForAll("aten.split.Tensor", {both, Int(m.sizes.hidden()), Int(2)});
  return m.Add(x, m.Mul(Activation(m, halves[0]), halves[1]));
}

ValueId Broadcast(GraphMaker& m, ValueId x) {
  const int64_t hidden = m.sizes.hidden();
  const ValueId scaled = m.Mul(x, m.Weight("scale.weight", {hidden}));
  switch (m.choices.Below(4)) {
    case 0:
      return m.Add(scaled, m.Weight("shift.bias", {1, 1, hidden}));
    case 1:
      return m.Mul(scaled, 0.5);
    case 2: {
      const ValueId mean = m.sketch.Call("aten.mean.dim", {x, Ints({2}), true});
      return m.sketch.Call("aten.sub.Tensor", {scaled, mean});
    }
    default:
      return m.sketch.Call("aten.rsub.Scalar", {scaled, Int(1)});
  }
}

ValueId Residual(GraphMaker& m, ValueId x) {
  return m.Add(m.Mul(x, 0.5), m.Linear(m.Norm(x), m.sizes.hidden(), "residual"));
}

ValueId Casts(GraphMaker& m, ValueId x) {
  const ValueId wide = m.sketch.Call("aten.to.dtype", {x, DType::kF64});
  const ValueId shifted = m.sketch.Call("aten.tanh.default", {wide});
  return m.Add(x, m.Float(shifted));
}

ValueId Softmax(GraphMaker& m, ValueId x) {
  const std::string op = m.choices.OneIn(2) ? "aten.softmax.int" : "aten.log_softmax.int";
  return m.Add(x, m.sketch.Call(op, {m.Norm(x), Int(-1)}));
}

// A choice between two by the tokens themselves.
ValueId WhereTokens(GraphMaker& m, ValueId x) {
  const ValueId is_even = m.sketch.Call(
      "aten.eq.Scalar", {m.sketch.Call("aten.remainder.Scalar", {m.Rows("ids"), Int(2)}), Int(0)});
  const ValueId other = m.Linear(x, m.sizes.hidden(), "other");
  return m.sketch.Call("aten.where.self", {m.Unsqueeze(is_even, 2), x, other});
}

ValueId MaskTokens(GraphMaker& m, ValueId x) {
  const ValueId mask = m.Unsqueeze(m.Rows("mask"), -1);
  if (m.choices.OneIn(2)) return m.Mul(x, m.Float(mask));
  const ValueId is_padding = m.sketch.Call("aten.eq.Scalar", {mask, Int(0)});
  return m.sketch.Call("aten.masked_fill.Scalar", {x, is_padding, 0.0});
}

ValueId SecondEmbedding(GraphMaker& m, ValueId x) {
  const ValueId table = m.Weight("types_embed.weight", {20, m.sizes.hidden()});
  const ValueId ids = m.choices.OneIn(2) ? m.Rows("ids") : m.Rows("documents");
  return m.Add(x, m.sketch.Call("aten.embedding.default", {table, ids}));
}

ValueId Positions(GraphMaker& m, ValueId x) {
  // Rows for the longest job and for what is added to its places, as what is counted from data has
  // no bound that is known.
  const int64_t rows = 26;
  const ValueId table = m.Weight("positions_embed.weight", {rows, m.sizes.hidden()});
  ValueId places = m.Range(m.sizes.seq_len);
  if (m.choices.OneIn(2)) places = m.sketch.Call("aten.add.Tensor", {places, Int(2)});
  if (m.choices.OneIn(3)) {
    // As models count positions with padding: cumsum of the mask.
    const ValueId mask = m.Rows("mask");
    places = m.sketch.Call("aten.cumsum.default", {mask, Int(1)});
  } else {
    places = m.Unsqueeze(places, 0);
  }
  return m.Add(x, m.sketch.Call("aten.embedding.default", {table, places}));
}

// Rotary positions over a part of the heads.
ValueId Rotary(GraphMaker& m, ValueId x) {
  const int64_t half = m.sizes.head_dim / 2;
  const GraphSizes& sizes = m.sizes;
  const ValueId places = m.Float(m.Range(sizes.seq_len));
  const ValueId angles = m.Mul(m.Unsqueeze(places, 1), m.Float(m.Range(half)));  // [S, H/2]
  const ValueId both = m.sketch.Call("aten.cat.default", {ValueList{angles, angles}, Int(-1)});
  const ValueId cosine = m.Unsqueeze(m.sketch.Call("aten.cos.default", {both}), 1);
  const ValueId sine = m.Unsqueeze(m.sketch.Call("aten.sin.default", {both}), 1);
  const ValueId heads = m.sketch.Call(
      "aten.view.default", {x, Ints({sizes.batch, sizes.seq_len, sizes.heads, sizes.head_dim})});
  const ValueId first = m.Slice(heads, 3, 0, half);
  const ValueId second = m.Slice(heads, 3, half, INT64_MAX);
  const ValueId turned = m.sketch.Call(
      "aten.cat.default", {ValueList{m.sketch.Call("aten.neg.default", {second}), first}, Int(-1)});
  const ValueId result = m.Add(m.Mul(heads, cosine), m.Mul(turned, sine));
  return m.sketch.Call("aten.flatten.using_ints", {result, Int(2), Int(3)});
}

ValueId SequenceFirst(GraphMaker& m, ValueId x) {
  const ValueId turned = m.choices.OneIn(2)
                             ? m.sketch.Call("aten.permute.default", {x, Ints({1, 0, 2})})
                             : m.Transpose(x, 0, 1);
  return m.Transpose(m.Add(turned, m.Linear(m.Norm(turned), m.sizes.hidden(), "turned")), 0, 1);
}

ValueId MergedBatch(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const ValueId flat = m.Reshape(x, {sizes.batch * sizes.seq_len, sizes.hidden()});
  const ValueId done = Activation(m, m.Linear(flat, sizes.hidden(), "flat"));
  return m.Add(x, m.Reshape(done, {sizes.batch, sizes.seq_len, sizes.hidden()}));
}

ValueId ChannelsFirst(GraphMaker& m, ValueId x) {
  const ValueId turned =
      m.sketch.Call("aten.contiguous.default", {m.Transpose(x, 1, 2)});  // [B, D, S]
  const ValueId scaled = m.Mul(turned, m.Weight("channel.weight", {m.sizes.hidden(), 1}));
  return m.Transpose(Activation(m, scaled), 1, 2);
}

// [S * B, D], as models of old had it.
ValueId MergedSequenceFirst(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const ValueId flat =
      m.Reshape(m.Transpose(x, 0, 1), {sizes.seq_len * sizes.batch, sizes.hidden()});
  const ValueId done = m.Linear(flat, sizes.hidden(), "old");
  return m.Transpose(m.sketch.Call("aten.view.default",
                                   {done, Ints({sizes.seq_len, sizes.batch, sizes.hidden()})}),
                     0, 1);
}

ValueId HeadsApart(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const ValueId heads =
      m.sketch.Call("aten.unflatten.int", {x, Int(-1), Ints({sizes.heads, sizes.head_dim})});
  const ValueId turned = m.Transpose(heads, 1, 2);  // [B, N, S, H]
  const ValueId scaled = m.Mul(turned, m.Weight("heads.weight", {sizes.heads, 1, 1}));
  return m.Add(
      x, m.sketch.Call("aten.flatten.using_ints", {m.Transpose(scaled, 1, 2), Int(2), Int(-1)}));
}

}  // namespace

const std::vector<NamedBlock>& TokenBlocks() {
  static const auto& blocks = *new std::vector<NamedBlock>{
      {"mlp", Mlp},
      {"gated_mlp", GatedMlp},
      {"split_mlp", SplitMlp},
      {"broadcast", Broadcast},
      {"residual", Residual},
      {"casts", Casts},
      {"softmax", Softmax},
      {"where_tokens", WhereTokens},
      {"mask_tokens", MaskTokens},
      {"second_embedding", SecondEmbedding},
      {"positions", Positions},
      {"rotary", Rotary},
  };
  return blocks;
}

const std::vector<NamedBlock>& LayoutBlocks() {
  static const auto& blocks = *new std::vector<NamedBlock>{
      {"sequence_first", SequenceFirst}, {"merged_batch", MergedBatch},
      {"channels_first", ChannelsFirst}, {"merged_sequence_first", MergedSequenceFirst},
      {"heads_apart", HeadsApart},
  };
  return blocks;
}

}  // namespace autosp
