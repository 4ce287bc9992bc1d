#include "compiler/passes/counted_rows.h"

#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// A dimension of a tensor that is written to, and the places that are named.
struct Written {
  ValueId table;
  int64_t dim = 0;
  ValueId index;
};

std::vector<Written> WrittenBy(const Graph& graph, const Node& node) {
  const OpContext context(graph, node);
  std::vector<Written> written;
  if (node.op == "aten.index_put.default") {
    const std::vector<ValueId> slots = context.Tensors(1);
    for (size_t i = 0; i < slots.size(); ++i) {
      written.push_back({context.Tensor(0), static_cast<int64_t>(i), slots[i]});
    }
  } else if (node.op == "aten.index_add.default" || node.op == "aten.index_copy.default" ||
             node.op == "aten.index_fill.int_Scalar" || node.op.starts_with("aten.scatter")) {
    const int64_t rank = context.Rank(context.Tensor(0));
    if (rank > 0) written.push_back({context.Tensor(0), context.Dim(1, rank), context.Tensor(2)});
  }
  return written;
}

class CountedRows {
 public:
  CountedRows(const Graph& graph, GraphFactors& factors)
      : graph_(graph), factors_(factors), definer_(DefiningNodes(graph)) {}

  void Run() {
    for (const Node& node : graph_.nodes) {
      for (const Written& written : WrittenBy(graph_, node)) Follow(written);
    }
  }

 private:
  // The range 0, 1, 2, ... that counts, and how many rows there are for each place of it.
  struct Range {
    ValueId places;
    int64_t rows = 1;
  };

  void Follow(const Written& written) {
    if (!written.index.valid() || !IsMade(written.table)) return;
    const std::optional<Range> range = FindRange(written.index);
    if (!range) return;
    const FactorDim& rows = factors_.values[written.table.index][written.dim];
    FactorDim counted = factors_.values[range->places.index][0];
    FactorTable& table = factors_.table;
    if (table.FollowsRoot(rows) || !table.FollowsRoot(counted)) return;
    if (table.Size(rows) != table.Size(counted) * range->rows) return;
    if (range->rows > 1) counted.push_back(table.NewFactor(range->rows));
    // Rows that another op says something else of stay what they are.
    table.Unify(rows, counted).IgnoreError();
  }

  const Node* Definer(ValueId value) const {
    const int32_t node = definer_[value.index];
    return node < 0 ? nullptr : &graph_.nodes[node];
  }

  bool IsMade(ValueId value) const {
    static const auto& makers = *new std::set<std::string_view>{
        "aten.empty.memory_format", "aten.full.default",     "aten.new_empty.default",
        "aten.new_full.default",    "aten.new_ones.default", "aten.new_zeros.default",
        "aten.ones.default",        "aten.zeros.default"};
    const Node* node = Definer(value);
    return node != nullptr && makers.contains(node->op);
  }

  // Of an index that has all elements of a range, moved and repeated, or the first rows of blocks
  // with a number added that says which row of a block.
  std::optional<Range> FindRange(ValueId index) const {
    const Node* node = Definer(index);
    while (node != nullptr && KeepsElements(*node)) {
      index = TensorArgument(node->args, 0);
      node = Definer(index);
    }
    if (node == nullptr) return std::nullopt;
    if (node->op.starts_with("aten.arange.")) return RangeOf(*node);
    const ValueId added = TensorArgument(node->args, 1);
    if (node->op == "aten.add.Tensor" && added.valid()) {
      for (const ValueId part : {TensorArgument(node->args, 0), added}) {
        const std::optional<Range> range = FindRange(part);
        if (range && range->rows > 1) return range;
      }
    }
    if (node->op != "aten.mul.Tensor" || added.valid()) return std::nullopt;
    std::optional<Range> range = FindRange(TensorArgument(node->args, 0));
    if (range) range->rows *= IntegerArgument(node->args, 1).value_or(0);
    return range && range->rows > 0 ? range : std::nullopt;
  }

  static std::optional<Range> RangeOf(const Node& node) {
    const bool has_start = node.op != "aten.arange.default";
    if (has_start && IntegerArgument(node.args, 0) != 0) return std::nullopt;
    const bool has_step = node.op == "aten.arange.start_step";
    const int64_t step = has_step ? IntegerArgument(node.args, 2).value_or(0) : 1;
    return step > 0 ? std::optional(Range{node.outputs[0], step}) : std::nullopt;
  }

  const Graph& graph_;
  GraphFactors& factors_;
  const std::vector<int32_t> definer_;
};

}  // namespace

void FollowCountedRows(const Graph& graph, GraphFactors& factors) {
  CountedRows(graph, factors).Run();
}

}  // namespace autosp
