#include <cmath>
#include <limits>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

class DropoutExpander {
 public:
  explicit DropoutExpander(Graph& graph) : graph_(graph), rewriter_(graph) {}

  absl::StatusOr<bool> Run() {
    for (const Node& node : rewriter_.nodes()) {
      const bool is_dropout = node.op == "aten.dropout.default";
      const double probability = NumberArgument(node.args, is_dropout ? 1 : 4).value_or(0);
      if (!(is_dropout || node.op == kSdpa) || probability == 0) {
        rewriter_.Keep(node);
        continue;
      }
      if (!(probability > 0 && probability < 1)) {
        return InvalidArgument(Describe(graph_, node), ": dropout with probability ", probability,
                               " is not between 0 and 1");
      }
      const ValueId result = is_dropout
                                 ? Dropout(node, std::get<ValueId>(node.args[0]), probability)
                                 : Attention(node, probability);
      rewriter_.Replace(node.outputs[0], result);
    }
    return rewriter_.Finish();
  }

 private:
  const TensorType& Type(ValueId value) const { return graph_.type(value); }

  // Counted in the order of the graph, so that each has a mask of its own.
  ValueId Dropout(const Node& node, ValueId value, double probability) {
    return rewriter_.EmitOne(node, kDropout, {value, probability, SymInt(next_++)},
                             Contiguous(Type(rewriter_.Current(value))));
  }

  // softmax(q k^T * scale + mask), dropped out, times v: what the kernels without dropout fuse.
  ValueId Attention(const Node& node, double probability) {
    const ValueId query = std::get<ValueId>(node.args[0]);
    ValueId key = std::get<ValueId>(node.args[1]);
    ValueId value = std::get<ValueId>(node.args[2]);
    const int64_t heads = Type(query).sizes[Type(query).rank() - 3].value;
    const int64_t kv_heads = Type(key).sizes[Type(key).rank() - 3].value;
    if (heads != kv_heads) {
      key = RepeatHeads(rewriter_, node, key, heads / kv_heads);
      value = RepeatHeads(rewriter_, node, value, heads / kv_heads);
    }
    const ValueId scores = Masked(node, Scores(node, query, key));
    const ValueId weights =
        rewriter_.EmitOne(node, "aten._softmax.default", {scores, SymInt(-1), false}, Type(scores));
    const ValueId kept = Dropout(node, weights, probability);
    return rewriter_.EmitOne(node, "aten.matmul.default", {kept, value},
                             Contiguous(Type(node.outputs[0])));
  }

  ValueId Scores(const Node& node, ValueId query, ValueId key) {
    TensorType transposed = Type(key);
    const int64_t rank = transposed.rank();
    std::swap(transposed.sizes[rank - 1], transposed.sizes[rank - 2]);
    const ValueId key_t =
        rewriter_.EmitOne(node, "aten.transpose.int", {key, SymInt(rank - 2), SymInt(rank - 1)},
                          Contiguous(transposed));
    const double head_dim = static_cast<double>(Type(query).sizes.back().value);
    const double scale = NumberArgument(node.args, 6).value_or(1 / std::sqrt(head_dim));
    const ValueId scaled = rewriter_.EmitOne(node, "aten.mul.Tensor", {query, scale}, Type(query));
    TensorType scores = Type(query);
    scores.sizes.back() = transposed.sizes.back();
    return rewriter_.EmitOne(node, "aten.matmul.default", {scaled, key_t}, Contiguous(scores));
  }

  ValueId Masked(const Node& node, ValueId scores) {
    const auto* mask = std::get_if<ValueId>(&node.args[3]);
    const bool* is_causal = std::get_if<bool>(&node.args[5]);
    if (mask != nullptr && Type(*mask).dtype != DType::kBool) {
      return rewriter_.EmitOne(node, "aten.add.Tensor", {scores, *mask, SymInt(1)}, Type(scores));
    }
    ValueId allowed = mask != nullptr ? *mask : ValueId{};
    if (is_causal != nullptr && *is_causal) allowed = CausalMask(node, Type(scores));
    if (!allowed.valid()) return scores;
    return rewriter_.EmitOne(node, "aten.where.ScalarOther",
                             {allowed, scores, -std::numeric_limits<double>::infinity()},
                             Type(scores));
  }

  ValueId CausalMask(const Node& node, const TensorType& scores) {
    const auto range = [&](const SymInt& size) {
      const TensorType type{.dtype = DType::kI64, .sizes = {size}, .strides = {1}};
      return rewriter_.EmitOne(node, "aten.arange.default", {size, None{}, None{}, None{}, None{}},
                               type);
    };
    const SymInt& queries = scores.sizes[scores.sizes.size() - 2];
    const SymInt& keys = scores.sizes.back();
    TensorType column{.dtype = DType::kI64, .sizes = {queries, SymInt(1)}, .strides = {}};
    const ValueId row = rewriter_.EmitOne(node, "aten.unsqueeze.default",
                                          {range(queries), SymInt(1)}, Contiguous(column));
    const TensorType mask{.dtype = DType::kBool, .sizes = {queries, keys}, .strides = {}};
    return rewriter_.EmitOne(node, "aten.le.Tensor", {range(keys), row}, Contiguous(mask));
  }

  Graph& graph_;
  GraphRewriter rewriter_;
  int64_t next_ = 0;
};

}  // namespace

// Dropout becomes an op whose mask is a function of (seed, step, number of the dropout, element),
// so that it is the same for any number of ranks. Attention with dropout is spelled out: its
// weights are dropped out between the softmax and the second product.
//
//   before  %y = aten.dropout.default(%x, 0.1, true)
//   after   %y = autosp.dropout(%x, 0.1, 0)
//
// Requires: dropouts that do nothing are gone (import).
absl::StatusOr<bool> ExpandDropout(Graph& graph, const PassContext& /*context*/) {
  return DropoutExpander(graph).Run();
}

}  // namespace autosp
