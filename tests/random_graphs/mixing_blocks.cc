// Blocks that mix tokens without attention.

#include "compiler/ir/fourier.h"
#include "tests/random_graphs/graph_maker.h"

namespace autosp {
namespace {

ValueId Mixed(GraphMaker& m, ValueId x, ValueId mixed) {
  return m.Add(x, m.Linear(mixed, m.sizes.hidden(), "mixed"));
}

ValueId Cumsum(GraphMaker& m, ValueId x) {
  const ValueId sums = m.sketch.Call("aten.cumsum.default", {x, Int(1)});
  if (m.choices.OneIn(2)) {
    return Mixed(m, x, m.sketch.Call("aten.mul.Tensor", {sums, 0.2}));
  }
  const int64_t s = m.sizes.seq_len;
  const ValueId counts = m.sketch.Call("aten.arange.start", {Int(1), Int(s + 1)});
  return Mixed(m, x, m.sketch.Call("aten.div.Tensor", {sums, m.Unsqueeze(counts, 1)}));
}

ValueId MeanOfTokens(GraphMaker& m, ValueId x) {
  const bool keep = m.choices.OneIn(2);
  const std::string op =
      m.choices.Of<std::string>({"aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default"});
  ValueId pooled = m.sketch.Call(op, {x, Ints({1}), keep});
  if (!keep) pooled = m.Unsqueeze(pooled, 1);
  pooled = m.sketch.Call("aten.tanh.default", {m.Linear(pooled, m.sizes.hidden(), "pooled")});
  if (m.choices.OneIn(2)) {
    pooled = m.sketch.Call("aten.expand.default",
                           {pooled, Ints({m.sizes.batch, m.sizes.seq_len, m.sizes.hidden()})});
  }
  return m.Add(x, pooled);
}

ValueId MaskedMean(GraphMaker& m, ValueId x) {
  const ValueId mask = m.Float(m.Unsqueeze(m.Rows("mask"), 2));
  const ValueId sum = m.sketch.Call("aten.sum.dim_IntList", {m.Mul(x, mask), Ints({1}), true});
  const ValueId count = m.sketch.Call("aten.sum.dim_IntList", {mask, Ints({1}), true});
  const ValueId mean = m.sketch.Call("aten.div.Tensor", {sum, count});
  return m.Add(x, m.Linear(mean, m.sizes.hidden(), "masked_mean"));
}

ValueId Flip(GraphMaker& m, ValueId x) {
  return Mixed(m, x, m.sketch.Call("aten.flip.default", {x, Ints({1})}));
}

ValueId Roll(GraphMaker& m, ValueId x) {
  const int64_t by = m.choices.Between(-3, 3);
  return Mixed(m, x, m.sketch.Call("aten.roll.default", {x, Ints({by}), Ints({1})}));
}

// x[:, :-1] behind a token that is zero, or the like before it.
ValueId ShiftByPad(GraphMaker& m, ValueId x) {
  const int64_t by = m.choices.OneIn(2) ? 1 : -1;
  const ValueId shifted =
      m.sketch.Call("aten.pad.default", {x, Ints({0, 0, by, -by}), std::string("constant"), 0.0});
  return Mixed(m, x, shifted);
}

ValueId ShiftByCat(GraphMaker& m, ValueId x) {
  const ValueId rest = m.Slice(x, 1, 0, -1);
  const ValueId first = m.Slice(x, 1, 0, 1);
  const ValueId start = m.choices.OneIn(2) ? first : m.Mul(first, 0.0);
  return Mixed(m, x, m.sketch.Call("aten.cat.default", {ValueList{start, rest}, Int(1)}));
}

// A learned token in front, of which one at the end is cut off.
ValueId ClassToken(GraphMaker& m, ValueId x) {
  const ValueId token = m.Weight("class.weight", {1, 1, m.sizes.hidden()});
  const ValueId tokens =
      m.sketch.Call("aten.expand.default", {token, Ints({m.sizes.batch, -1, -1})});
  const ValueId longer = m.sketch.Call("aten.cat.default", {ValueList{tokens, x}, Int(1)});
  const ValueId mixed = m.sketch.Call("aten.cumsum.default", {m.Mul(longer, 0.2), Int(1)});
  return Mixed(m, x, m.Slice(mixed, 1, 1, INT64_MAX));
}

// The two parts of a sequence exchanged.
ValueId SwapParts(GraphMaker& m, ValueId x) {
  const int64_t cut = m.choices.Between(1, m.sizes.seq_len - 1);
  const ValueId first = m.Slice(x, 1, 0, cut);
  const ValueId second = m.Slice(x, 1, cut, INT64_MAX);
  return Mixed(m, x, m.sketch.Call("aten.cat.default", {ValueList{second, first}, Int(1)}));
}

ValueId FirstToken(GraphMaker& m, ValueId x) {
  const ValueId token = m.sketch.Call("aten.select.int", {x, Int(1), Int(-m.choices.Below(2))});
  return m.Add(x, m.Unsqueeze(m.Linear(token, m.sizes.hidden(), "token"), 1));
}

ValueId Conv(GraphMaker& m, ValueId x) {
  const int64_t width = m.choices.Between(2, 4);
  const int64_t hidden = m.sizes.hidden();
  const ValueId weight = m.Weight("conv.weight", {hidden, 1, width});
  Argument bias = None{};
  if (m.choices.OneIn(2)) bias = m.Weight("conv.bias", {hidden});
  ValueId turned = m.Transpose(x, 1, 2);
  if (m.choices.OneIn(2)) {
    turned = m.sketch.Call("aten.pad.default",
                           {turned, Ints({width - 1, 0}), std::string("constant"), None{}});
    turned = m.sketch.Call("aten.conv1d.default",
                           {turned, weight, bias, Ints({1}), Ints({0}), Ints({1}), Int(hidden)});
  } else {
    turned = m.sketch.Call("aten.conv1d.default", {turned, weight, bias, Ints({1}),
                                                   Ints({width - 1}), Ints({1}), Int(hidden)});
    turned = m.Slice(turned, 2, 0, m.sizes.seq_len);
  }
  return Mixed(m, x, m.Transpose(m.sketch.Call("aten.silu.default", {turned}), 1, 2));
}

ValueId Sort(GraphMaker& m, ValueId x) {
  const std::vector<ValueId> sorted =
      m.sketch.CallForAll("aten.sort.default", {x, Int(1), m.choices.OneIn(2)});
  return Mixed(m, x, sorted[0]);
}

ValueId TopTokens(GraphMaker& m, ValueId x) {
  const int64_t count = m.choices.Between(1, 3);
  const std::vector<ValueId> top =
      m.sketch.CallForAll("aten.topk.default", {x, Int(count), Int(1), true, true});
  const ValueId mean = m.sketch.Call("aten.mean.dim", {top[0], Ints({1}), true});
  return m.Add(x, m.Linear(mean, m.sizes.hidden(), "top"));
}

// Tokens in an order that is computed from their numbers.
ValueId IndexSelect(GraphMaker& m, ValueId x) {
  // Below the length of any job: a literal of the export does not follow it.
  const ValueId places =
      m.sketch.Call("aten.remainder.Scalar",
                    {m.Mul(m.Range(m.sizes.seq_len), Int(m.choices.Between(1, 3))), Int(4)});
  return Mixed(m, x, m.sketch.Call("aten.index_select.default", {x, Int(1), places}));
}

ValueId Gather(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  // From what the inputs say: ids are below the number of tokens only by chance.
  const ValueId places = m.sketch.Call("aten.remainder.Scalar", {m.Rows("ids"), Int(3)});
  const ValueId wide =
      m.sketch.Call("aten.expand.default",
                    {m.Unsqueeze(places, 2), Ints({sizes.batch, sizes.seq_len, sizes.hidden()})});
  return Mixed(m, x, m.sketch.Call("aten.gather.default", {x, Int(1), wide}));
}

// softmax(w) over tokens as weights of a sum.
ValueId TokenWeights(GraphMaker& m, ValueId x) {
  const ValueId scores = m.Linear(m.Norm(x), 1, "scores");
  const ValueId weights = m.sketch.Call("aten.softmax.int", {scores, Int(1)});
  const ValueId pooled =
      m.sketch.Call("aten.sum.dim_IntList", {m.Mul(x, weights), Ints({1}), true});
  return m.Add(x, pooled);
}

// Linear attention: (k^T v) summed over all tokens, or causally by a cumsum of outer products.
ValueId LinearAttention(GraphMaker& m, ValueId x) {
  const ValueId q = m.sketch.Call("aten.sigmoid.default", {m.Linear(x, m.sizes.hidden(), "q")});
  const ValueId k = m.sketch.Call("aten.sigmoid.default", {m.Linear(x, m.sizes.hidden(), "k")});
  const ValueId v = m.Linear(x, m.sizes.hidden(), "v");
  if (m.choices.OneIn(2)) {
    const ValueId state = m.sketch.Call("aten.matmul.default", {m.Transpose(k, 1, 2), v});
    return Mixed(m, x, m.Mul(m.sketch.Call("aten.matmul.default", {q, state}), 0.1));
  }
  const ValueId outer = m.Mul(m.Unsqueeze(k, 3), m.Unsqueeze(v, 2));  // [B, S, D, D]
  const ValueId states = m.sketch.Call("aten.cumsum.default", {m.Mul(outer, 0.1), Int(1)});
  const ValueId read = m.sketch.Call("aten.matmul.default", {m.Unsqueeze(q, 2), states});
  return Mixed(m, x, m.sketch.Call("aten.squeeze.dim", {read, Int(2)}));
}

// Statistics of groups of channels over all tokens.
ValueId NormOfGroups(GraphMaker& m, ValueId x) {
  const ValueId turned = m.Transpose(x, 1, 2);
  Argument weight = None{};
  if (m.choices.OneIn(2)) weight = m.Weight("group_norm.weight", {m.sizes.hidden()});
  const ValueId normed =
      m.choices.OneIn(2)
          ? m.sketch.Call("aten.group_norm.default",
                          {turned, Int(m.sizes.heads), weight, None{}, 1e-2})
          : m.sketch.Call("aten.instance_norm.default",
                          {turned, weight, None{}, None{}, None{}, true, 0.1, 1e-2, false});
  return Mixed(m, x, m.Transpose(normed, 1, 2));
}

ValueId Pool(GraphMaker& m, ValueId x) {
  const ValueId turned = m.Transpose(x, 1, 2);
  const std::string op =
      m.choices.Of<std::string>({"aten.avg_pool1d.default", "aten.max_pool1d.default"});
  if (m.choices.OneIn(3)) {
    // Blocks of tokens, of which the mean is taken.
    const ValueId blocks = m.sketch.Call(op, {turned, Ints({2}), Ints({2})});
    const ValueId mean = m.sketch.Call("aten.mean.dim", {blocks, Ints({2}), true});
    return Mixed(m, x, m.Transpose(m.Add(turned, mean), 1, 2));
  }
  return Mixed(m, x,
               m.Transpose(m.sketch.Call(op, {turned, Ints({3}), Ints({1}), Ints({1})}), 1, 2));
}

ValueId Unfold(GraphMaker& m, ValueId x) {
  const int64_t width = m.choices.Between(2, 4);
  const ValueId padded = m.sketch.Call(
      "aten.pad.default", {x, Ints({0, 0, width - 1, 0}), std::string("constant"), 0.0});
  const ValueId windows =
      m.sketch.Call("aten.unfold.default", {padded, Int(1), Int(width), Int(1)});
  const ValueId taps = m.Weight("taps.weight", {width});
  return Mixed(m, x, m.sketch.Call("aten.sum.dim_IntList", {m.Mul(windows, taps), Ints({3})}));
}

// Rows for the tokens that a mask names, in their order.
ValueId ScatterRows(GraphMaker& m, ValueId x) {
  const ValueId kinds = m.sketch.Call("aten.remainder.Scalar", {m.Rows("ids"), Int(3)});
  const ValueId mask = m.Unsqueeze(m.sketch.Call("aten.eq.Scalar", {kinds, Int(1)}), 2);
  const ValueId wide = m.sketch.Call(
      "aten.expand.default", {mask, Ints({m.sizes.batch, m.sizes.seq_len, m.sizes.hidden()})});
  const ValueId rows = m.Linear(x, m.sizes.hidden(), "rows");
  return m.sketch.Call("aten.masked_scatter.default", {x, m.choices.OneIn(2) ? wide : mask, rows});
}

// Frequencies of tokens or of features, which are weighed, and back: half of them, or all.
ValueId Frequencies(GraphMaker& m, ValueId x) {
  const int64_t dim = m.choices.Between(1, 2);
  const int64_t n = dim == 1 ? m.sizes.seq_len : m.sizes.hidden();
  const bool is_half = m.choices.OneIn(2);
  const ValueId spectrum = m.sketch.Call(
      std::string(kFftR2c), {x, Int(dim), Int(n), Int(is_half ? n / 2 + 1 : n), false, Int(1)});
  ValueId weighed = m.sketch.Call("aten.tanh.default", {spectrum});
  if (m.choices.OneIn(2)) weighed = m.Mul(spectrum, m.Weight("parts.weight", {1, 1, 1, 2}));
  if (is_half) {
    return Mixed(
        m, x,
        m.sketch.Call(std::string(kFftC2r), {weighed, Int(dim), Int(n), Int(n), true, Int(1)}));
  }
  const ValueId pairs =
      m.sketch.Call(std::string(kFftC2c), {weighed, Int(dim), Int(n), Int(n), true, Int(1)});
  return Mixed(m, x, m.sketch.Call("aten.select.int", {pairs, Int(-1), Int(0)}));
}

}  // namespace

const std::vector<NamedBlock>& MixingBlocks() {
  static const auto& blocks = *new std::vector<NamedBlock>{
      {"cumsum", Cumsum},
      {"mean_of_tokens", MeanOfTokens},
      {"masked_mean", MaskedMean},
      {"flip", Flip},
      {"roll", Roll},
      {"shift_by_pad", ShiftByPad},
      {"shift_by_cat", ShiftByCat},
      {"class_token", ClassToken},
      {"swap_parts", SwapParts},
      {"first_token", FirstToken},
      {"conv", Conv},
      {"sort", Sort},
      {"top_tokens", TopTokens},
      {"index_select", IndexSelect},
      {"gather", Gather},
      {"token_weights", TokenWeights},
      {"linear_attention", LinearAttention},
      {"norm_of_groups", NormOfGroups},
      {"pool", Pool},
      {"unfold", Unfold},
      {"scatter_rows", ScatterRows},
      {"frequencies", Frequencies},
  };
  return blocks;
}

}  // namespace autosp
