// Attention in the forms that exporters write, under masks made of index arithmetic.

#include <cmath>
#include <limits>
#include <optional>

#include "tests/random_graphs/graph_maker.h"

namespace autosp {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Boolean masks, true where a query may attend to a key: [S, S] or [B, S, S].
class MaskMaker {
 public:
  explicit MaskMaker(GraphMaker& maker) : m_(maker) {}

  // Every row sees a key.
  ValueId Make() {
    ValueId mask = Term();
    for (int64_t terms = m_.choices.Below(3); terms > 0; --terms) {
      mask = Both(mask, m_.choices.OneIn(4) ? Either(Term(), Causal()) : Term());
    }
    return mask;
  }

 private:
  ValueId Term() {
    switch (m_.choices.Below(12)) {
      case 0:
        return Window();
      case 1:
        return Documents();
      case 2:
        return Padding();
      case 3:
        return Either(Causal(), Prefix());
      case 4:
        return Chunks();
      case 5:
        return Either(Dilated(), Self());
      case 6:
        return Turned();
      case 7:
        return Offset();
      case 8:
        return CutOut();
      default:
        return Causal();
    }
  }

  // 0, 1, 2, ... as models write it.
  ValueId Places() {
    const int64_t s = m_.sizes.seq_len;
    switch (m_.choices.Below(8)) {
      case 0: {
        const ValueId ones = m_.sketch.Call("aten.ones.default", {Ints({s}), DType::kI64});
        const ValueId counts = m_.sketch.Call("aten.cumsum.default", {ones, Int(0)});
        return m_.sketch.Call("aten.sub.Tensor", {counts, Int(1)});
      }
      case 1: {
        const ValueId later = m_.sketch.Call("aten.arange.start", {Int(3), Int(s + 3)});
        return m_.sketch.Call("aten.sub.Tensor", {later, Int(3)});
      }
      case 2:
        return m_.sketch.Call(
            "aten.flip.default",
            {m_.sketch.Call("aten.rsub.Scalar", {m_.Range(s), Int(s - 1)}), Ints({0})});
      case 3:
        return m_.sketch.Call("aten.to.dtype", {m_.Range(s), DType::kI32});
      default:
        return m_.Range(s);
    }
  }

  ValueId Query() { return m_.Unsqueeze(Places(), 1); }
  ValueId Key() { return m_.Unsqueeze(Places(), 0); }
  ValueId Apart() { return m_.sketch.Call("aten.sub.Tensor", {Query(), Key()}); }
  ValueId Self() { return m_.sketch.Call("aten.eq.Tensor", {Query(), Key()}); }

  // Blocks of tokens that see each other.
  ValueId Chunks() {
    const int64_t size = m_.choices.Between(2, 5);
    const std::string op = "aten.floor_divide.default";
    return m_.sketch.Call("aten.eq.Tensor", {m_.sketch.Call(op, {Query(), Int(size)}),
                                             m_.sketch.Call(op, {Key(), Int(size)})});
  }

  ValueId Dilated() {
    const ValueId rest =
        m_.sketch.Call("aten.remainder.Scalar", {Apart(), Int(m_.choices.Between(2, 3))});
    return m_.sketch.Call("aten.eq.Scalar", {rest, Int(0)});
  }

  // Of later tokens.
  ValueId Turned() {
    if (m_.choices.OneIn(2)) return m_.Transpose(Causal(), 0, 1);
    return m_.sketch.Call("aten.le.Tensor", {Query(), Key()});
  }

  // Causal order that begins elsewhere; where it would leave rows without a key, with each its own.
  ValueId Offset() {
    const int64_t by = m_.choices.Between(-2, 3);
    ValueId mask;
    if (m_.choices.OneIn(2)) {
      mask = m_.sketch.Call("aten.ge.Scalar", {Apart(), Int(by)});
    } else {
      const ValueId moved = m_.sketch.Call("aten.add.Tensor", {Key(), Int(by)});
      mask = m_.sketch.Call("aten.ge.Tensor", {Query(), moved});
    }
    return by > 0 ? Either(mask, Self()) : mask;
  }

  // A corner of a triangle that is larger, as a buffer of the longest sequence is cut.
  ValueId CutOut() {
    const int64_t s = m_.sizes.seq_len;
    const int64_t more = m_.choices.Between(1, 4);
    const int64_t start = m_.choices.Below(more);
    const ValueId ones =
        m_.sketch.Call("aten.ones.default", {Ints({s + more, s + more}), DType::kBool});
    const ValueId whole = m_.sketch.Call("aten.tril.default", {ones, Int(0)});
    return m_.Slice(m_.Slice(whole, 0, start, start + s), 1, 0, s);
  }

  // Keys near the query: before it, or on both sides.
  ValueId Window() {
    const int64_t width = m_.choices.Between(1, m_.sizes.seq_len);
    if (m_.choices.OneIn(2)) {
      return Both(m_.sketch.Call("aten.lt.Scalar", {Apart(), Int(width)}), Causal());
    }
    const ValueId distance = m_.sketch.Call("aten.abs.default", {Apart()});
    return m_.sketch.Call("aten.le.Scalar", {distance, Int(width)});
  }

  ValueId Causal() {
    const int64_t s = m_.sizes.seq_len;
    switch (m_.choices.Below(5)) {
      case 0:
        return m_.sketch.Call("aten.ge.Tensor", {Query(), Key()});
      case 1:
        return m_.sketch.Call("aten.le.Tensor", {Key(), Query()});
      case 2:
        return m_.sketch.Call("aten.logical_not.default",
                              {m_.sketch.Call("aten.gt.Tensor", {Key(), Query()})});
      case 3: {
        const ValueId ones = m_.sketch.Call("aten.ones.default", {Ints({s, s}), DType::kBool});
        return m_.sketch.Call("aten.tril.default", {ones, Int(0)});
      }
      default: {
        return m_.sketch.Call("aten.ge.Scalar", {Apart(), Int(0)});
      }
    }
  }

  ValueId Documents() {
    ValueId documents = m_.Rows("documents");
    if (m_.choices.OneIn(3)) {
      // Numbered by where a token of one kind stands.
      const ValueId is_start = m_.sketch.Call("aten.eq.Scalar", {m_.Rows("ids"), Int(3)});
      documents = m_.sketch.Call("aten.cumsum.default", {is_start, Int(1)});
    }
    return m_.sketch.Call("aten.eq.Tensor",
                          {m_.Unsqueeze(documents, 2), m_.Unsqueeze(documents, 1)});
  }

  // Keys that are no padding, and each query's own, so that rows of padding see something.
  ValueId Padding() {
    const ValueId mask = m_.Unsqueeze(m_.Rows("mask"), 1);  // [B, 1, S]
    const ValueId is_key = m_.choices.OneIn(2)
                               ? m_.sketch.Call("aten.to.dtype", {mask, DType::kBool})
                               : m_.sketch.Call("aten.gt.Scalar", {mask, Int(0)});
    if (m_.choices.OneIn(2)) return is_key;
    return Either(is_key, Self());
  }

  ValueId Prefix() {
    return m_.sketch.Call("aten.lt.Scalar", {Key(), Int(m_.choices.Between(1, 4))});
  }

  // Terms of [S, S], [1, S] and [B, S, S] meet by broadcasting.
  ValueId Both(ValueId a, ValueId b) {
    return m_.sketch.Call(
        m_.choices.Of<std::string>(
            {"aten.__and__.Tensor", "aten.logical_and.default", "aten.bitwise_and.Tensor"}),
        {a, b});
  }
  ValueId Either(ValueId a, ValueId b) {
    return m_.sketch.Call(
        m_.choices.Of<std::string>({"aten.__or__.Tensor", "aten.logical_or.default"}), {a, b});
  }

  GraphMaker& m_;
};

struct Heads {
  ValueId query;  // [B, N, S, H]
  ValueId key;    // [B, kv heads, S, H]
  ValueId value;
};

ValueId SplitHeads(GraphMaker& m, ValueId x, int64_t heads) {
  const GraphSizes& sizes = m.sizes;
  ValueId split;
  switch (m.choices.Below(3)) {
    case 0:
      split = m.sketch.Call("aten.view.default",
                            {x, Ints({sizes.batch, sizes.seq_len, heads, sizes.head_dim})});
      break;
    case 1:
      split = m.sketch.Call("aten.view.default",
                            {x, Ints({sizes.batch, sizes.seq_len, -1, sizes.head_dim})});
      break;
    default:
      split = m.sketch.Call("aten.unflatten.int", {x, Int(-1), Ints({heads, -1})});
  }
  if (m.choices.OneIn(2)) return m.Transpose(split, 1, 2);
  return m.sketch.Call("aten.permute.default", {split, Ints({0, 2, 1, 3})});
}

Heads Project(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const int64_t kv = sizes.kv_heads * sizes.head_dim;
  if (m.choices.OneIn(3)) {
    const ValueId all = m.Linear(x, sizes.hidden() + 2 * kv, "qkv");
    const std::vector<ValueId> parts = m.sketch.CallForAll(
        "aten.split_with_sizes.default", {all, Ints({sizes.hidden(), kv, kv}), Int(-1)});
    return {SplitHeads(m, parts[0], sizes.heads), SplitHeads(m, parts[1], sizes.kv_heads),
            SplitHeads(m, parts[2], sizes.kv_heads)};
  }
  return {SplitHeads(m, m.Linear(x, sizes.hidden(), "q"), sizes.heads),
          SplitHeads(m, m.Linear(x, kv, "k"), sizes.kv_heads),
          SplitHeads(m, m.Linear(x, kv, "v"), sizes.kv_heads)};
}

ValueId RepeatHeads(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const int64_t times = sizes.heads / sizes.kv_heads;
  if (times == 1) return x;
  if (m.choices.OneIn(2)) {
    return m.sketch.Call("aten.repeat_interleave.self_int", {x, Int(times), Int(1)});
  }
  const ValueId wide =
      m.sketch.Call("aten.expand.default",
                    {m.Unsqueeze(x, 2),
                     Ints({sizes.batch, sizes.kv_heads, times, sizes.seq_len, sizes.head_dim})});
  return m.Reshape(wide, {sizes.batch, sizes.heads, sizes.seq_len, sizes.head_dim});
}

// [S, S] as it is, [B, S, S] with a dimension for heads; sometimes expanded.
ValueId ForHeads(GraphMaker& m, ValueId mask) {
  if (m.sketch.Rank(mask) == 3) mask = m.Unsqueeze(mask, 1);
  const GraphSizes& sizes = m.sizes;
  const bool is_square = m.sketch.Size(mask, -2) == sizes.seq_len;
  if (!m.choices.OneIn(3) && is_square) return mask;
  return m.sketch.Call("aten.expand.default",
                       {mask, Ints({sizes.batch, m.choices.OneIn(2) ? 1 : sizes.heads,
                                    sizes.seq_len, sizes.seq_len})});
}

ValueId ZeroOrLess(GraphMaker& m, ValueId mask, double less) {
  if (m.choices.OneIn(2)) {
    const ValueId zero = m.sketch.Call("aten.scalar_tensor.default", {0.0, DType::kF32});
    return m.sketch.Call("aten.where.ScalarOther", {mask, zero, less});
  }
  return m.sketch.Call("aten.mul.Tensor",
                       {m.sketch.Call("aten.rsub.Scalar", {m.Float(mask), 1.0}), -1e9});
}

ValueId JoinHeads(GraphMaker& m, ValueId x, ValueId attended) {
  const GraphSizes& sizes = m.sizes;
  const ValueId turned = m.Transpose(attended, 1, 2);
  const ValueId joined = m.choices.OneIn(2)
                             ? m.sketch.Call("aten.flatten.using_ints", {turned, Int(2), Int(3)})
                             : m.Reshape(turned, {sizes.batch, sizes.seq_len, -1});
  return m.Add(x, m.Linear(joined, sizes.hidden(), "o"));
}

Argument Scale(GraphMaker& m) { return m.choices.OneIn(3) ? Argument(0.3) : Argument(None{}); }

ValueId FusedAttention(GraphMaker& m, ValueId x) {
  Heads heads = Project(m, m.Norm(x));
  const bool is_grouped = m.sizes.kv_heads < m.sizes.heads && m.choices.OneIn(2);
  if (!is_grouped) {
    heads.key = RepeatHeads(m, heads.key);
    heads.value = RepeatHeads(m, heads.value);
  }
  Argument mask = None{};
  bool is_causal = false;
  switch (m.choices.Below(6)) {
    case 0:
      break;
    case 1:
      is_causal = true;
      break;
    case 2:
      mask = ForHeads(m, ZeroOrLess(m, MaskMaker(m).Make(), kMinusInfinity));
      break;
    default:
      mask = ForHeads(m, MaskMaker(m).Make());
  }
  const ValueId attended = m.sketch.Call(
      "aten.scaled_dot_product_attention.default",
      {heads.query, heads.key, heads.value, mask, 0.0, is_causal, Scale(m), is_grouped});
  return JoinHeads(m, x, attended);
}

ValueId SpelledAttention(GraphMaker& m, ValueId x) {
  const Heads heads = Project(m, m.Norm(x));
  const ValueId key = RepeatHeads(m, heads.key);
  ValueId scores = m.sketch.Call("aten.matmul.default", {heads.query, m.Transpose(key, 2, 3)});
  scores =
      m.choices.OneIn(2) ? m.Mul(scores, 0.5) : m.sketch.Call("aten.div.Tensor", {scores, 1.5});
  if (m.choices.OneIn(4)) scores = m.sketch.Call("aten.tanh.default", {scores});
  if (!m.choices.OneIn(4)) {
    const ValueId mask = ForHeads(m, MaskMaker(m).Make());
    switch (m.choices.Below(3)) {
      case 0:
        scores = m.sketch.Call("aten.where.ScalarOther", {mask, scores, -1e9});
        break;
      case 1:
        scores = m.sketch.Call("aten.masked_fill.Scalar",
                               {scores, m.sketch.Call("aten.logical_not.default", {mask}), -1e9});
        break;
      default:
        scores = m.Add(scores, ZeroOrLess(m, mask, -1e9));
    }
  }
  const ValueId weights = m.sketch.Call("aten.softmax.int", {scores, Int(-1)});
  const ValueId value = RepeatHeads(m, heads.value);
  return JoinHeads(m, x, m.sketch.Call("aten.matmul.default", {weights, value}));
}

// [B * N, S, H], as bmm wants it.
ValueId MergedAttention(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const Heads heads = Project(m, m.Norm(x));
  const std::vector<int64_t> merged = {sizes.batch * sizes.heads, sizes.seq_len, sizes.head_dim};
  const ValueId query = m.Reshape(heads.query, merged);
  const ValueId key = m.Reshape(RepeatHeads(m, heads.key), merged);
  const ValueId value = m.Reshape(RepeatHeads(m, heads.value), merged);
  ValueId attended;
  if (m.choices.OneIn(2)) {
    attended = m.sketch.Call("aten.scaled_dot_product_attention.default",
                             {query, key, value, None{}, 0.0, m.choices.OneIn(2)});
  } else {
    ValueId scores = m.Mul(m.sketch.Call("aten.bmm.default", {query, m.Transpose(key, 1, 2)}), 0.4);
    const std::vector<int64_t> square = {sizes.seq_len, sizes.seq_len};
    const ValueId full = m.sketch.Call("aten.full.default", {Ints(square), -1e9});
    scores = m.Add(scores, m.sketch.Call("aten.triu.default", {full, Int(1)}));
    attended = m.sketch.Call("aten.bmm.default",
                             {m.sketch.Call("aten.softmax.int", {scores, Int(-1)}), value});
  }
  return JoinHeads(
      m, x,
      m.sketch.Call("aten.view.default",
                    {attended, Ints({sizes.batch, sizes.heads, sizes.seq_len, sizes.head_dim})}));
}

// Biases by distance, with a slope for each head that is trained or given.
ValueId BiasedAttention(GraphMaker& m, ValueId x) {
  const GraphSizes& sizes = m.sizes;
  const Heads heads = Project(m, m.Norm(x));
  const ValueId places = m.Range(sizes.seq_len);
  const ValueId apart =
      m.Float(m.sketch.Call("aten.sub.Tensor", {m.Unsqueeze(places, 0), m.Unsqueeze(places, 1)}));
  const ValueId slopes = m.choices.OneIn(2)
                             ? m.Weight("slopes.weight", {sizes.heads, 1, 1})
                             : m.Unsqueeze(m.Unsqueeze(m.Float(m.Range(sizes.heads)), 1), 2);
  ValueId bias = m.Mul(m.Mul(slopes, apart), 0.1);  // [N, S, S]
  if (m.choices.OneIn(2)) {
    const ValueId is_later =
        m.sketch.Call("aten.gt.Tensor", {m.Unsqueeze(places, 0), m.Unsqueeze(places, 1)});
    bias = m.sketch.Call("aten.masked_fill.Scalar", {bias, is_later, kMinusInfinity});
  }
  const ValueId attended = m.sketch.Call(
      "aten.scaled_dot_product_attention.default",
      {heads.query, RepeatHeads(m, heads.key), RepeatHeads(m, heads.value), m.Unsqueeze(bias, 0)});
  return JoinHeads(m, x, attended);
}

}  // namespace

const std::vector<NamedBlock>& AttentionBlocks() {
  static const auto& blocks = *new std::vector<NamedBlock>{
      {"fused_attention", FusedAttention},
      {"spelled_attention", SpelledAttention},
      {"merged_attention", MergedAttention},
      {"biased_attention", BiasedAttention},
  };
  return blocks;
}

}  // namespace autosp
