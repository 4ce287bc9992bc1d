#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/trained_values.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool IsMatmul(const Node& node) { return node.op == "aten.matmul.default"; }

// What spelled-out attention computes: softmax(scale * query x key^T, masked) x value.
struct Attention {
  ValueId query = {};
  ValueId key = {};  // or its transpose
  ValueId value = {};
  bool key_is_turned = false;
  double scale = 1;
  ValueId mask = {};       // invalid: none
  bool is_added = false;   // to scaled scores; else it says where a query may attend
  bool is_turned = false;  // or where it may not
};

class AttentionFinder {
 public:
  explicit AttentionFinder(const Graph& graph)
      : graph_(graph),
        definer_(DefiningNodes(graph)),
        num_uses_(graph.values.size(), 0),
        is_trained_(DependsOnParameters(graph)) {
    CountUses();
  }

  // `product` is the last node of attention; nullopt: of something else.
  std::optional<Attention> Find(const Node& product) const {
    if (!IsMatmul(product) || product.no_grad) return std::nullopt;
    Attention found{.value = TensorArgument(product.args, 1)};
    const Node* softmax = Behind(TensorArgument(product.args, 0));
    if (softmax != nullptr && softmax->op == "aten.to.dtype") {
      softmax = Behind(TensorArgument(softmax->args, 0));
    }
    if (softmax == nullptr || softmax->op != "aten._softmax.default") return std::nullopt;
    const int64_t rank = graph_.type(softmax->outputs[0]).rank();
    const auto dim = IntegerArgument(softmax->args, 1);
    if (rank < 3 || !dim || (*dim != -1 && *dim != rank - 1)) return std::nullopt;
    const Node* scores = ReadScores(TensorArgument(softmax->args, 0), &found);
    if (scores == nullptr) return std::nullopt;
    found.query = Unscaled(TensorArgument(scores->args, 0), &found.scale);
    ReadKey(TensorArgument(scores->args, 1), &found);
    if (!HasForm(found, scores->outputs[0], product.outputs[0])) return std::nullopt;
    return found;
  }

 private:
  // Of nodes that an output needs.
  void CountUses() {
    for (ValueId output : graph_.outputs) ++num_uses_[output.index];
    for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
      const bool is_live = std::ranges::any_of(
          node->outputs, [&](ValueId output) { return num_uses_[output.index] > 0; });
      if (!is_live) continue;
      for (ValueId operand : OperandsOf(*node)) ++num_uses_[operand.index];
    }
  }

  const Node* Definer(ValueId value) const {
    if (!value.valid() || definer_[value.index] < 0) return nullptr;
    const Node& node = graph_.nodes[definer_[value.index]];
    return node.no_grad ? nullptr : &node;
  }

  // The node that makes a value that nothing else reads.
  const Node* Behind(ValueId value) const {
    return value.valid() && num_uses_[value.index] == 1 ? Definer(value) : nullptr;
  }

  bool KeepsSizes(const Node& node, ValueId from) const {
    return from.valid() &&
           Values(graph_.type(from).sizes) == Values(graph_.type(node.outputs[0]).sizes);
  }

  // A cast that rounds nothing.
  bool IsWidening(const Node& node) const {
    if (node.op != "aten.to.dtype") return false;
    const DType from = graph_.type(TensorArgument(node.args, 0)).dtype;
    const DType to = graph_.type(node.outputs[0]).dtype;
    return IsFloating(from) && IsFloating(to) && (from == to || SizeOf(from) < SizeOf(to));
  }

  // The number that a node multiplies its first operand with.
  std::optional<double> FactorOf(const Node& node) const {
    const ValueId from = TensorArgument(node.args, 0);
    const auto number = NumberArgument(node.args, 1);
    if (!number || !from.valid() || !SameType(graph_, from, node.outputs[0])) return std::nullopt;
    if (node.op == "aten.mul.Tensor") return *number;
    if (node.op == "aten.div.Tensor" && node.args.size() < 3 && *number != 0) return 1 / *number;
    return std::nullopt;
  }

  ValueId Unscaled(ValueId value, double* scale) const {
    while (const Node* node = Definer(value)) {
      const std::optional<double> factor = FactorOf(*node);
      if (!factor) break;
      *scale *= *factor;
      value = TensorArgument(node->args, 0);
    }
    return value;
  }

  // Reads masks and scales back to the product of queries and keys; null: there is something else.
  const Node* ReadScores(ValueId scores, Attention* found) const {
    while (const Node* node = Behind(scores)) {
      if (IsMatmul(*node)) return node;
      ValueId next = TensorArgument(node->args, 0);
      if (const std::optional<double> factor = FactorOf(*node)) {
        // A number times what hides keys still hides them; a bias would be scaled as well.
        if (found->mask.valid() && (found->is_added || *factor <= 0)) return nullptr;
        found->scale *= *factor;
      } else if (!IsWidening(*node)) {
        if (found->mask.valid()) return nullptr;
        next = ReadMask(*node, found);
        if (!next.valid()) return nullptr;
      }
      scores = next;
    }
    return nullptr;
  }

  // The scores below a mask; invalid: the node is of another form.
  ValueId ReadMask(const Node& node, Attention* found) const {
    const auto hides = [&](size_t arg) { return NumberArgument(node.args, arg) == -kInfinity; };
    ValueId scores;
    if (node.op == "aten.masked_fill.Scalar" && hides(2)) {
      scores = TensorArgument(node.args, 0);
      found->mask = TensorArgument(node.args, 1);
      found->is_turned = true;
    } else if (node.op == "aten.where.ScalarOther" && hides(2)) {
      found->mask = TensorArgument(node.args, 0);
      scores = TensorArgument(node.args, 1);
    } else if (node.op == "aten.add.Tensor" && NumberArgument(node.args, 2).value_or(1) == 1) {
      scores = TensorArgument(node.args, 0);
      found->mask = TensorArgument(node.args, 1);
      found->is_added = true;
      if (!LeadsToProduct(scores)) std::swap(scores, found->mask);
    }
    return KeepsSizes(node, scores) ? scores : ValueId{};
  }

  bool LeadsToProduct(ValueId value) const {
    const Node* node = Behind(value);
    while (node != nullptr && !IsMatmul(*node)) {
      if (!FactorOf(*node) && node->op != "aten.to.dtype") return false;
      node = Behind(TensorArgument(node->args, 0));
    }
    return node != nullptr;
  }

  void ReadKey(ValueId key, Attention* found) const {
    key = Unscaled(key, &found->scale);
    const Node* turn = Definer(key);
    found->key_is_turned = turn == nullptr || !SwapsLastTwo(*turn);
    found->key =
        found->key_is_turned ? key : Unscaled(TensorArgument(turn->args, 0), &found->scale);
  }

  bool SwapsLastTwo(const Node& node) const {
    if (node.op != "aten.transpose.int") return false;
    const OpContext context(graph_, node);
    const int64_t rank = graph_.type(node.outputs[0]).rank();
    return std::set<int64_t>{context.Dim(1, rank), context.Dim(2, rank)} ==
           std::set<int64_t>{rank - 2, rank - 1};
  }

  // All of one type, and as many heads of each.
  bool HasForm(const Attention& found, ValueId scores, ValueId result) const {
    const TensorType& query = graph_.type(found.query);
    const TensorType& value = graph_.type(found.value);
    const std::vector<int64_t> sizes = Values(graph_.type(scores).sizes);
    const auto heads = [](const TensorType& type) {
      std::vector<int64_t> all = Values(type.sizes);
      all.resize(all.size() < 2 ? 0 : all.size() - 2);
      return all;
    };
    const std::vector<int64_t> all(sizes.begin(), sizes.end() - 2);
    for (ValueId each : {found.query, found.key, found.value, result}) {
      const TensorType& type = graph_.type(each);
      if (heads(type) != all || type.dtype != query.dtype || !IsFloating(type.dtype)) return false;
    }
    if (value.sizes[value.sizes.size() - 2].value != sizes.back()) return false;
    return !found.mask.valid() || TakesMask(found, query.dtype, sizes.size());
  }

  // Whether kernels take the mask, and nobody trains it.
  bool TakesMask(const Attention& found, DType dtype, size_t rank) const {
    const TensorType& mask = graph_.type(found.mask);
    if (is_trained_[found.mask.index] || mask.rank() < 2 || mask.sizes.size() > rank) return false;
    return mask.dtype == (found.is_added ? dtype : DType::kBool);
  }

  const Graph& graph_;
  const std::vector<int32_t> definer_;
  std::vector<int32_t> num_uses_;
  const std::vector<bool> is_trained_;
};

// Features, as linear layers and convolutions make and read them.
class Features {
 public:
  Features(const Graph& graph, const GraphFactors& factors) : factors_(factors) {
    std::vector<bool> is_parameter(graph.values.size(), false);
    for (const GraphInput& input : graph.inputs) {
      is_parameter[input.value.index] = input.kind == InputKind::kParameter;
    }
    for (const Node& node : graph.nodes) {
      const bool mixes = node.op == "aten.linear.default" || IsMatmul(node) ||
                         node.op.starts_with("aten.conv") || node.op == "aten.addmm.default";
      if (!mixes) continue;
      for (ValueId operand : OperandsOf(node)) {
        if (!is_parameter[operand.index]) continue;
        for (const FactorDim& dim : factors.Of(operand)) found_.insert(dim.begin(), dim.end());
      }
    }
  }

  // Whether queries and keys are tokens, and what scores sum over is not: attention of channels to
  // channels, and to sums of tokens, is better shared as products.
  bool AreSummed(const Attention& attention) const {
    const FactorDims query = factors_.Of(attention.query);
    const FactorDims key = factors_.Of(attention.key);
    const FactorDim& rows = query[query.size() - 2];
    const FactorDim& columns = key[key.size() - (attention.key_is_turned ? 1 : 2)];
    const auto is_feature = [&](FactorVar factor) { return found_.contains(factor); };
    if (std::ranges::any_of(rows, is_feature) || std::ranges::any_of(columns, is_feature)) {
      return false;
    }
    const FactorDim tokens =
        factors_.seq < 0 ? FactorDim{} : factors_.table.Resolve(FactorDim{factors_.seq});
    return std::ranges::none_of(query.back(), [&](FactorVar factor) {
      return std::ranges::count(tokens, factor) > 0 || std::ranges::count(rows, factor) > 0;
    });
  }

 private:
  const GraphFactors& factors_;
  std::set<FactorVar> found_;
};

ValueId EmitNot(GraphRewriter& rewriter, const Node& like, ValueId mask) {
  return rewriter.EmitOne(like, "aten.logical_not.default", {mask},
                          Contiguous(rewriter.graph().type(mask)));
}

void EmitAttention(GraphRewriter& rewriter, const Node& product, const Attention& attention) {
  ValueId key = attention.key;
  if (attention.key_is_turned) {
    TensorType turned = rewriter.graph().type(key);
    const int64_t rank = turned.rank();
    std::swap(turned.sizes[rank - 1], turned.sizes[rank - 2]);
    key = rewriter.EmitOne(product, "aten.transpose.int", {key, SymInt(rank - 2), SymInt(rank - 1)},
                           Contiguous(turned));
  }
  Argument mask = None{};
  if (attention.mask.valid()) {
    mask = attention.is_turned ? EmitNot(rewriter, product, attention.mask) : attention.mask;
  }
  const ValueId result = rewriter.EmitOne(
      product, kSdpa,
      {attention.query, key, attention.value, mask, 0.0, false, attention.scale, false},
      Contiguous(rewriter.graph().type(product.outputs[0])));
  rewriter.Replace(product.outputs[0], result);
}

}  // namespace

// Attention that is spelled out, and whose weights nothing else reads, is attention: no rank holds
// a matrix of all pairs, and rings and heads share it. (nn.MultiheadAttention spells it out unless
// it is told that nobody needs the weights.) A query that may attend to nothing gets 0, as
// PyTorch's attention has it, where the softmax gives no number.
//
//   before  %s = aten.add.Tensor(aten.matmul(aten.mul(%q, 0.25), aten.transpose(%k, -2, -1)), %m)
//           %o = aten.matmul(aten._softmax(%s, -1, false), %v)
//   after   %o = aten.scaled_dot_product_attention.default(%q, %k, %v, %m, 0.0, false, 0.25, false)
//
// Kept as it is: attention with dropout or with a mask that is trained, which would be spelled out
// again.
absl::StatusOr<bool> RecognizeAttention(Graph& graph, const PassContext& context) {
  std::vector<std::optional<Attention>> found;
  const AttentionFinder finder(graph);
  for (const Node& node : graph.nodes) found.push_back(finder.Find(node));
  if (std::ranges::none_of(found, [](const auto& each) { return each.has_value(); })) return false;
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  const Features features(graph, factors);
  GraphRewriter rewriter(graph);
  for (size_t i = 0; i < rewriter.nodes().size(); ++i) {
    const Node& node = rewriter.nodes()[i];
    if (found[i] && features.AreSummed(*found[i])) {
      EmitAttention(rewriter, node, *found[i]);
    } else {
      rewriter.Keep(node);
    }
  }
  return rewriter.Finish();
}

}  // namespace autosp
