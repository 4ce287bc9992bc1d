#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <vector>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

int64_t Product(std::vector<int64_t>::const_iterator begin,
                std::vector<int64_t>::const_iterator end) {
  return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
}

// How the dimensions in front of tokens and features become two, batch and heads.
struct Folding {
  size_t rank = 0;          // of queries
  size_t num_of_batch = 0;  // of five or more dimensions: those in front that are the batch
  int64_t batch = 1;        // of three: the part of the first that is the batch

  std::vector<int64_t> operator()(const std::vector<int64_t>& sizes) const {
    const int64_t rows = sizes.end()[-2];
    if (rank == 2) return {1, 1, rows, sizes.back()};
    if (rank == 3) return {batch, sizes[0] / batch, rows, sizes.back()};
    const auto split = sizes.begin() + static_cast<std::ptrdiff_t>(num_of_batch);
    return {Product(sizes.begin(), split), Product(split, sizes.end() - 2), rows, sizes.back()};
  }
};

// The sizes that stand before heads, where queries, keys and values broadcast there, and with heads
// where queries have one of them and keys more; else empty.
std::vector<int64_t> StretchedFront(const Graph& graph, const Node& node) {
  std::vector<std::vector<int64_t>> sizes;
  for (size_t arg : {0, 1, 2}) {
    sizes.push_back(Values(graph.type(TensorArgument(node.args, arg)).sizes));
    if (sizes[arg].size() < 3 || sizes[arg].size() != sizes[0].size()) return {};
  }
  size_t length = std::max<size_t>(sizes[0].size() - 3, 1);
  const bool has_one_head = sizes[0].size() > 3 && sizes[0][length] == 1 && sizes[1][length] > 1;
  if (has_one_head) ++length;
  std::vector<int64_t> front(length, 1);
  for (const std::vector<int64_t>& own : sizes) {
    for (size_t i = 0; i < length; ++i) front[i] = std::max(front[i], own[i]);
  }
  bool stretches = false;
  for (const std::vector<int64_t>& own : sizes) {
    for (size_t i = 0; i < length; ++i) {
      if (own[i] != 1 && own[i] != front[i]) return {};
      stretches = stretches || own[i] != front[i];
    }
  }
  return stretches ? front : std::vector<int64_t>{};
}

class AttentionShaper {
 public:
  AttentionShaper(Graph& graph, const GraphFactors& factors)
      : graph_(graph), factors_(factors), rewriter_(graph) {
    if (factors.batch >= 0) batch_ = factors.table.Resolve(FactorDim{factors.batch});
    if (factors.seq >= 0) seq_ = factors.table.Resolve(FactorDim{factors.seq});
  }

  bool Run() {
    for (const Node& node : rewriter_.nodes()) {
      if (node.op != kSdpa) {
        rewriter_.Keep(node);
        continue;
      }
      const Node whole = Stretched(node);
      if (IsShapeable(whole)) {
        Shape(whole);
      } else {
        rewriter_.Keep(whole);
      }
    }
    return rewriter_.Finish();
  }

 private:
  std::vector<int64_t> SizesOf(ValueId value) const { return Values(graph_.type(value).sizes); }

  static bool Shares(const FactorDim& a, const FactorDim& b) {
    return std::ranges::any_of(a, [&](FactorVar each) { return std::ranges::count(b, each) > 0; });
  }

  // Queries, keys and values that go for all sequences, repeated for each.
  Node Stretched(const Node& node) {
    Node result = node;
    const std::vector<int64_t> sizes = StretchedFront(graph_, node);
    for (size_t arg = 0; arg < 3 && !sizes.empty(); ++arg) {
      const ValueId value = TensorArgument(node.args, arg);
      std::vector<int64_t> own = SizesOf(value);
      std::ranges::copy(sizes, own.begin());
      if (own == SizesOf(value)) continue;
      const std::vector<SymInt> to(own.begin(), own.end());
      result.args[arg] = rewriter_.EmitOne(node, "aten.expand.default", {value, IntList(to), false},
                                           ContiguousOf(graph_.type(value).dtype, to));
    }
    return result;
  }

  // Whether there are not two dimensions in front, and keys and values have those of queries, but
  // for grouped heads.
  bool IsShapeable(const Node& node) const {
    const std::vector<int64_t> query = SizesOf(TensorArgument(node.args, 0));
    if (query.size() == 4 || query.size() < 2) return false;
    const std::ptrdiff_t num_behind = query.size() < 4 ? 2 : 3;
    return std::ranges::all_of(std::initializer_list<size_t>{1, 2}, [&](size_t arg) {
      const std::vector<int64_t> own = SizesOf(TensorArgument(node.args, arg));
      return own.size() == query.size() &&
             std::equal(own.begin(), own.end() - num_behind, query.begin());
    });
  }

  // Of a dimension that batch and heads share, the part at the front that is the batch. Where the
  // batch is not in front, each place is a sequence of its own.
  int64_t BatchOf(const FactorDim& dim) const {
    int64_t size = 1;
    for (FactorVar factor : dim) {
      if (std::ranges::count(batch_, factor) == 0) break;
      size *= factors_.table.Size(factor);
    }
    return size == 1 && Shares(dim, batch_) ? factors_.table.Size(dim) : size;
  }

  // Of several dimensions, those before the blocks of a sequence that attend within themselves go
  // with the batch, so that ranks can share the blocks; else the first does.
  Folding FoldingOf(ValueId result) const {
    const FactorDims dims = factors_.Of(result);
    Folding folding{.rank = dims.size(), .num_of_batch = 1};
    if (dims.size() == 3) folding.batch = BatchOf(dims[0]);
    for (size_t i = 1; i + 2 < dims.size(); ++i) {
      if (!Shares(dims[i], seq_)) continue;
      folding.num_of_batch = i;
      break;
    }
    return folding;
  }

  void Shape(const Node& node) {
    const ValueId query = TensorArgument(node.args, 0);
    const Folding fold = FoldingOf(node.outputs[0]);
    std::vector<Argument> args = node.args;
    for (size_t arg : {0, 1, 2}) {
      const ValueId value = TensorArgument(node.args, arg);
      args[arg] = Reshape(node, value, fold(SizesOf(value)));
    }
    if (const ValueId mask = TensorArgument(node.args, 3); mask.valid()) {
      args[3] = FoldMask(node, mask, SizesOf(query), fold);
    }
    const ValueId result = node.outputs[0];
    const std::vector<int64_t> folded = fold(SizesOf(result));
    const ValueId attended = rewriter_.EmitOne(
        node, node.op, std::move(args),
        ContiguousOf(graph_.type(result).dtype, std::vector<SymInt>(folded.begin(), folded.end())));
    rewriter_.Replace(result, Reshape(node, attended, SizesOf(result)));
  }

  // A mask of two dimensions goes for all. Of dimensions that become one, those of size 1 are
  // repeated where others are not of size 1.
  ValueId FoldMask(const Node& node, ValueId mask, const std::vector<int64_t>& query,
                   const Folding& fold) {
    std::vector<int64_t> sizes = SizesOf(mask);
    if (sizes.size() <= 2) return mask;
    if (fold.rank == 3 && sizes[0] == 1) return Reshape(node, mask, {1, 1, sizes[1], sizes[2]});
    if (fold.rank == 3) return Reshape(node, mask, fold(sizes));
    sizes.insert(sizes.begin(), query.size() - sizes.size(), 1);
    std::vector<int64_t> repeated = sizes;
    for (size_t begin : {size_t{0}, fold.num_of_batch}) {
      const size_t end = begin == 0 ? fold.num_of_batch : query.size() - 2;
      const bool is_one = std::all_of(sizes.begin() + static_cast<std::ptrdiff_t>(begin),
                                      sizes.begin() + static_cast<std::ptrdiff_t>(end),
                                      [](int64_t size) { return size == 1; });
      for (size_t i = begin; i < end && !is_one; ++i) repeated[i] = query[i];
    }
    if (repeated != sizes) {
      const std::vector<SymInt> to(repeated.begin(), repeated.end());
      mask = rewriter_.EmitOne(node, "aten.expand.default", {mask, IntList(to), false},
                               ContiguousOf(graph_.type(mask).dtype, to));
    }
    return Reshape(node, mask, fold(repeated));
  }

  ValueId Reshape(const Node& node, ValueId value, const std::vector<int64_t>& sizes) {
    if (SizesOf(value) == sizes) return value;
    return ReshapeTo(node, value, {sizes.begin(), sizes.end()}, rewriter_);
  }

  Graph& graph_;
  const GraphFactors& factors_;
  GraphRewriter rewriter_;
  FactorDim batch_;
  FactorDim seq_;
};

}  // namespace

// Attention in the form that all that follows knows, [batch, heads, tokens, head_dim], by views:
//
//   [tokens, head_dim], [heads, tokens, head_dim] of one sequence, [batch, tokens, head_dim] of one
//   head, [batch * heads, tokens, head_dim] as nn.MultiheadAttention has it, and more dimensions in
//   front: rows of an image, blocks of a sequence, groups of heads.
//
//   before  %o = aten.scaled_dot_product_attention.default(%q, %k, %v, ...)    [B, 2, 2, S, H]
//   after   %o = aten.reshape(aten.scaled_dot_product_attention.default(aten.reshape(%q, ...),
//   ...))
//
// What is batch and what is heads, factors know. Keys that go for all sequences are expanded.
absl::StatusOr<bool> ShapeAttention(Graph& graph, const PassContext& context) {
  const bool has_other = std::ranges::any_of(graph.nodes, [&](const Node& node) {
    return node.op == kSdpa && (graph.type(TensorArgument(node.args, 0)).rank() != 4 ||
                                !StretchedFront(graph, node).empty());
  });
  if (!has_other) return false;
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  return AttentionShaper(graph, factors).Run();
}

}  // namespace autosp
