#include "compiler/passes/spell_out_attention.h"

#include <cmath>
#include <limits>

#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

class AttentionSpeller {
 public:
  AttentionSpeller(GraphRewriter& rewriter, const Node& node) : rewriter_(rewriter), node_(node) {}

  SpelledAttention Weights() {
    const ValueId query = std::get<ValueId>(node_.args[0]);
    ValueId key = std::get<ValueId>(node_.args[1]);
    ValueId value = std::get<ValueId>(node_.args[2]);
    const int64_t heads_dim = Type(query).rank() - 3;
    const int64_t heads = heads_dim < 0 ? 1 : Type(query).sizes[heads_dim].value;
    const int64_t kv_heads = heads_dim < 0 ? 1 : Type(key).sizes[heads_dim].value;
    if (heads != kv_heads) {
      key = RepeatAlong(rewriter_, node_, key, heads_dim, heads / kv_heads);
      value = RepeatAlong(rewriter_, node_, value, heads_dim, heads / kv_heads);
    }
    return {.weights = Softmax(Masked(Scores(query, key))), .value = value};
  }

 private:
  const TensorType& Type(ValueId value) const { return rewriter_.graph().type(value); }

  ValueId Scores(ValueId query, ValueId key) {
    TensorType transposed = Type(key);
    const int64_t rank = transposed.rank();
    std::swap(transposed.sizes[rank - 1], transposed.sizes[rank - 2]);
    const ValueId key_t =
        rewriter_.EmitOne(node_, "aten.transpose.int", {key, SymInt(rank - 2), SymInt(rank - 1)},
                          Contiguous(transposed));
    const double head_dim = static_cast<double>(Type(query).sizes.back().value);
    const double scale = NumberArgument(node_.args, 6).value_or(1 / std::sqrt(head_dim));
    const ValueId scaled = rewriter_.EmitOne(node_, "aten.mul.Tensor", {query, scale}, Type(query));
    TensorType scores = Type(query);
    scores.sizes.back() = transposed.sizes.back();
    return rewriter_.EmitOne(node_, "aten.matmul.default", {scaled, key_t}, Contiguous(scores));
  }

  // A query that may attend to nothing has weights of 0, as ATen's kernels have it, and not of
  // 0 / 0. Causal order alone leaves each query itself.
  ValueId Softmax(ValueId scores) {
    const TensorType type = Type(scores);
    const auto softmax = [&](ValueId of) {
      return rewriter_.EmitOne(node_, "aten._softmax.default", {of, SymInt(-1), false}, type);
    };
    if (IsNone(node_.args[3])) return softmax(scores);
    constexpr double kLow = -1e30;  // whose exponential is 0 beside any score
    TensorType is_open_type = type;
    is_open_type.dtype = DType::kBool;
    const ValueId is_open = rewriter_.EmitOne(
        node_, "aten.ne.Scalar", {scores, -std::numeric_limits<double>::infinity()}, is_open_type);
    const auto where = [&](ValueId value, double other) {
      return rewriter_.EmitOne(node_, "aten.where.ScalarOther", {is_open, value, other}, type);
    };
    return where(softmax(where(scores, kLow)), 0.0);
  }

  ValueId Masked(ValueId scores) {
    const auto* mask = std::get_if<ValueId>(&node_.args[3]);
    const bool* is_causal = std::get_if<bool>(&node_.args[5]);
    if (mask != nullptr && Type(*mask).dtype != DType::kBool) {
      return rewriter_.EmitOne(node_, "aten.add.Tensor", {scores, *mask, SymInt(1)}, Type(scores));
    }
    ValueId allowed = mask != nullptr ? *mask : ValueId{};
    if (is_causal != nullptr && *is_causal) allowed = CausalMask(Type(scores));
    if (!allowed.valid()) return scores;
    return rewriter_.EmitOne(node_, "aten.where.ScalarOther",
                             {allowed, scores, -std::numeric_limits<double>::infinity()},
                             Type(scores));
  }

  ValueId CausalMask(const TensorType& scores) {
    const auto range = [&](const SymInt& size) {
      return EmitRange(rewriter_, node_, 0, size.value);
    };
    const SymInt& queries = scores.sizes[scores.sizes.size() - 2];
    const SymInt& keys = scores.sizes.back();
    TensorType column{.dtype = DType::kI64, .sizes = {queries, SymInt(1)}, .strides = {}};
    const ValueId row = rewriter_.EmitOne(node_, "aten.unsqueeze.default",
                                          {range(queries), SymInt(1)}, Contiguous(column));
    const TensorType mask{.dtype = DType::kBool, .sizes = {queries, keys}, .strides = {}};
    return rewriter_.EmitOne(node_, "aten.le.Tensor", {range(keys), row}, Contiguous(mask));
  }

  GraphRewriter& rewriter_;
  const Node& node_;
};

}  // namespace

SpelledAttention SpellOutWeights(GraphRewriter& rewriter, const Node& node) {
  return AttentionSpeller(rewriter, node).Weights();
}

ValueId EmitWeighted(GraphRewriter& rewriter, const Node& node, ValueId weights, ValueId value) {
  return rewriter.EmitOne(node, "aten.matmul.default", {weights, value},
                          Contiguous(rewriter.graph().type(node.outputs[0])));
}

}  // namespace autosp
