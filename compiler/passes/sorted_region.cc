#include "compiler/passes/sorted_region.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/rules/expert_products.h"
#include "compiler/rules/factor_roles.h"

namespace autosp {
namespace {

struct Sort {
  ValueId rows;    // numbers of groups, [R]
  ValueId order;   // which row comes where
  ValueId sorted;  // invalid: none, as of argsort
};

// All that is computed between a sort of rows and the places where they are put back.
class SortedRegion {
 public:
  SortedRegion(const Graph& graph, const GraphFactors& factors, const std::vector<int32_t>& definer,
               IndexEvaluator& evaluator)
      : graph_(graph), factors_(factors), definer_(definer), evaluator_(evaluator) {}

  // nullopt: the node is no such sort, or something sees the order of the rows.
  std::optional<SortedSteps> Find(size_t node_index) {
    const std::optional<Sort> sort = SortOf(graph_.nodes[node_index]);
    if (!sort) return std::nullopt;
    sort_ = *sort;
    steps_ = {{node_index, {.kind = SortedStep::Kind::kSort, .operand = sort_.rows}}};
    row_dim_ = {{sort_.order, 0}};
    if (sort_.sorted.valid()) row_dim_[sort_.sorted] = 0;
    const auto is_inside = [this](ValueId id) { return IsSorted(id) || inverses_.contains(id); };
    for (size_t i = node_index + 1; i < graph_.nodes.size(); ++i) {
      const std::vector<ValueId> operands = OperandsOf(graph_.nodes[i]);
      if (std::ranges::none_of(operands, is_inside)) continue;
      const std::optional<SortedStep> step = StepOf(i);
      if (!step || LosesStop(graph_.nodes[i], *step)) return std::nullopt;
      steps_[i] = *step;
    }
    const auto is_product = [](const auto& entry) {
      return entry.second.kind == SortedStep::Kind::kProduct;
    };
    if (std::ranges::any_of(graph_.outputs, is_inside)) return std::nullopt;
    return std::ranges::any_of(steps_, is_product) ? std::optional(steps_) : std::nullopt;
  }

 private:
  bool IsSorted(ValueId id) const { return row_dim_.contains(id); }
  bool IsRows(ValueId id, int64_t dim) const {
    const auto found = row_dim_.find(id);
    return found != row_dim_.end() && found->second == dim;
  }
  int64_t NumRows() const { return graph_.type(sort_.rows).sizes[0].value; }
  const Node* NodeOf(ValueId id) const {
    return definer_[id.index] < 0 ? nullptr : &graph_.nodes[definer_[id.index]];
  }

  // In ascending order, of integers in one dimension.
  std::optional<Sort> SortOf(const Node& node) const {
    const bool is_argsort = node.op.starts_with("aten.argsort.");
    if (!is_argsort && !node.op.starts_with("aten.sort.")) return std::nullopt;
    const ValueId rows = TensorArgument(node.args, 0);
    const bool is_stable_form = node.op.ends_with(".stable");
    const bool descends = FlagArgument(node.args, is_stable_form ? 3 : 2).value_or(false);
    const DType dtype = graph_.type(rows).dtype;
    const bool is_integer = dtype == DType::kI64 || dtype == DType::kI32;
    if (graph_.type(rows).rank() != 1 || descends || !is_integer) return std::nullopt;
    if (is_argsort) return Sort{.rows = rows, .order = node.outputs[0], .sorted = {}};
    return Sort{.rows = rows, .order = node.outputs[1], .sorted = node.outputs[0]};
  }

  // Whether a gradient would flow that ends at the node.
  bool LosesStop(const Node& node, const SortedStep& step) const {
    return step.kind == SortedStep::Kind::kIs && node.no_grad &&
           IsFloating(graph_.type(node.outputs[0]).dtype);
  }

  std::optional<SortedStep> StepOf(size_t index) {
    const Node& node = graph_.nodes[index];
    if (node.op == kGroupedMm) return Product(node);
    if (const std::optional<SortedStep> step = PutBack(node)) return step;
    if (IsInverse(node)) {
      inverses_.insert(node.outputs.back());
      return Is(sort_.order);
    }
    if (const std::optional<SortedStep> step = LookUp(node)) return step;
    if (const std::optional<SortedStep> step = Sum(node)) return step;
    return RowByRow(index);
  }

  // Of a node that gives, in order, what is there by now.
  static SortedStep Is(ValueId operand) {
    return {.kind = SortedStep::Kind::kIs, .operand = operand};
  }

  // (rows, matrices, ends) where the ends are those of the groups that the rows were sorted by.
  std::optional<SortedStep> Product(const Node& node) {
    const ValueId rows = TensorArgument(node.args, 0);
    const ValueId matrices = TensorArgument(node.args, 1);
    const ValueId ends = TensorArgument(node.args, 2);
    if (!IsRows(rows, 0) || IsSorted(matrices) || !ends.valid()) return std::nullopt;
    const TensorType& type = graph_.type(rows);
    const TensorType& weight = graph_.type(matrices);
    const bool has_form = type.rank() == 2 && weight.rank() == 3 && IsFloating(type.dtype) &&
                          type.dtype == weight.dtype && IsNone(ArgumentAt(node.args, 3)) &&
                          graph_.type(node.outputs[0]).dtype == type.dtype;
    if (!has_form || !AreEnds(ends, weight.sizes[0].value)) return std::nullopt;
    row_dim_[node.outputs[0]] = 0;
    return SortedStep{.kind = SortedStep::Kind::kProduct, .operand = sort_.rows};
  }

  // Through changes of type that keep numbers of groups and of rows, and of shape. Counts are whole
  // in any type; of other fractions a cast to integers would leave a part.
  ValueId Stripped(ValueId id, bool are_counts = false) const {
    for (const Node* node = NodeOf(id); node != nullptr; node = NodeOf(id)) {
      const bool is_cast =
          node->op == "aten.to.dtype" && !IsHalf(graph_.type(id).dtype) &&
          SizeOf(graph_.type(id).dtype) >= 4 &&
          (are_counts || !IsFloating(graph_.type(TensorArgument(node->args, 0)).dtype));
      const bool is_view = node->op == "aten.view.default" || node->op == "aten.reshape.default" ||
                           node->op == "aten.alias.default" || node->op == "aten.clone.default" ||
                           node->op == "aten.detach.default";
      if (!is_cast && !is_view) return id;
      id = TensorArgument(node->args, 0);
    }
    return id;
  }

  // Whether a value holds the rows' groups, in whatever order.
  bool AreGroups(ValueId id) const {
    id = Stripped(id);
    if (id == sort_.sorted || id == Stripped(sort_.rows)) return true;
    const Node* node = NodeOf(id);
    const bool is_look_up = node != nullptr && node->op == "aten.index.Tensor" && IsSorted(id);
    return is_look_up && SlotOf(*node).second == sort_.order &&
           Stripped(TensorArgument(node->args, 0)) == Stripped(sort_.rows);
  }

  // cumsum(histc(groups, bins=E, min=0, max=E-1)): how many rows have each group or one before it.
  // A bin is 1 wide, or a little less, so that each number up to E - 1 has its own.
  bool AreEnds(ValueId ends, int64_t num_groups) const {
    const Node* sum = NodeOf(Stripped(ends, /*are_counts=*/true));
    if (sum == nullptr || sum->op != "aten.cumsum.default") return false;
    if (SizeOf(graph_.type(sum->outputs[0]).dtype) < 4) return false;  // rounds counts, or wraps
    const ValueId counts = TensorArgument(sum->args, 0);
    const Node* histogram = NodeOf(Stripped(counts, /*are_counts=*/true));
    const bool counts_all = histogram != nullptr && histogram->op == "aten.histc.default" &&
                            graph_.type(counts).rank() == 1;
    if (!counts_all || !AreGroups(TensorArgument(histogram->args, 0))) return false;
    const double max = NumberArgument(histogram->args, 3).value_or(0);
    const auto last = static_cast<double>(num_groups - 1);
    return IntegerArgument(histogram->args, 1).value_or(0) == num_groups &&
           NumberArgument(histogram->args, 2).value_or(0) == 0 && (max == last || max == last + 1);
  }

  // The dimension that an index reads, and the index; invalid where more than one is read.
  std::pair<int64_t, ValueId> SlotOf(const Node& node) const {
    if (node.op == "aten.index_select.default") {
      const int64_t dim = IntegerArgument(node.args, 1).value_or(0);
      const int64_t rank = graph_.type(TensorArgument(node.args, 0)).rank();
      return {dim < 0 ? dim + rank : dim, TensorArgument(node.args, 2)};
    }
    const auto* slots = ArgumentAs<ValueList>(node.args, 1);
    std::pair<int64_t, ValueId> slot;
    for (size_t i = 0; slots != nullptr && i < slots->size(); ++i) {
      if (!(*slots)[i].valid()) continue;
      if (slot.second.valid()) return {};
      slot = {static_cast<int64_t>(i), (*slots)[i]};
    }
    return slot;
  }

  // y[inverse] of sorted rows, and writes of sorted row i to place order[i]: rows in their order.
  std::optional<SortedStep> PutBack(const Node& node) const {
    const ValueId self = TensorArgument(node.args, 0);
    if (node.op == "aten.index.Tensor" || node.op == "aten.index_select.default") {
      const auto [dim, index] = SlotOf(node);
      if (!index.valid() || !inverses_.contains(index) || !IsRows(self, dim)) return std::nullopt;
      return Is(self);
    }
    const auto [index, source] = WrittenRows(node);
    const bool is_all = index == sort_.order && source.valid() && IsRows(source, 0) &&
                        SameType(graph_, source, node.outputs[0]);
    if (!is_all) return std::nullopt;
    return Is(source);
  }

  // (index, source) where rows of the source replace those that the index names.
  std::pair<ValueId, ValueId> WrittenRows(const Node& node) const {
    if (node.op == "aten.index_put.default") {
      const auto [dim, index] = SlotOf(node);
      const bool replaces = dim == 0 && !FlagArgument(node.args, 3).value_or(false);
      return replaces ? std::pair{index, TensorArgument(node.args, 2)}
                      : std::pair<ValueId, ValueId>();
    }
    const bool is_write = node.op == "aten.index_copy.default" || node.op == "aten.scatter.src";
    const bool is_first = IntegerArgument(node.args, 1).value_or(0) == 0;
    if (!is_write || !is_first) return {};
    return {TensorArgument(node.args, 2), TensorArgument(node.args, 3)};
  }

  // The place of each row among the sorted: 0, 1, 2, ... written in the order of the sort, or what
  // sorts that order.
  bool IsInverse(const Node& node) {
    const auto [index, source] = WrittenRows(node);
    if (index.valid() && index == sort_.order && source.valid()) {
      const TensorType& type = graph_.type(source);
      const bool is_list = type.rank() == 1 && type.sizes[0].value == NumRows() &&
                           graph_.type(node.outputs[0]).rank() == 1 &&
                           graph_.type(node.outputs[0]).sizes[0].value == NumRows();
      return is_list && IsRange(*evaluator_.Element(source));
    }
    const std::optional<Sort> sort = SortOf(node);
    return sort && sort->rows == sort_.order && (!sort->sorted.valid() || IsUnused(sort->sorted));
  }

  // 0, 1, 2, ...
  static bool IsRange(const IndexExpr& element) {
    return element.kind == IndexExpr::Kind::kAffine && element.affine.constant == 0 &&
           element.affine.terms == std::map<std::string, int64_t>{{"i0", 1}};
  }

  bool IsUnused(ValueId id) const {
    return std::ranges::count(graph_.outputs, id) == 0 &&
           std::ranges::none_of(graph_.nodes, [&](const Node& node) {
             return std::ranges::count(OperandsOf(node), id) > 0;
           });
  }

  // What the sorted rows look up in what is not sorted, as the tokens and their weights.
  std::optional<SortedStep> LookUp(const Node& node) {
    if (node.op == "aten.gather.default") return Gather(node);
    if (node.op != "aten.index.Tensor" && node.op != "aten.index_select.default") return {};
    const ValueId self = TensorArgument(node.args, 0);
    const auto [dim, index] = SlotOf(node);
    if (!index.valid() || IsSorted(self) || !IsRows(index, 0)) return std::nullopt;
    if (graph_.type(index).rank() != 1 || graph_.type(index).dtype == DType::kBool) return {};
    row_dim_[node.outputs[0]] = dim;
    if (index == sort_.order && graph_.type(self).sizes[dim].value == NumRows()) return Is(self);
    const int64_t copies = dim == 0 ? CopiesOf(index, graph_.type(self).sizes[0].value) : 1;
    return SortedStep{.kind = copies > 1 ? SortedStep::Kind::kCopies : SortedStep::Kind::kKeep,
                      .copies = copies};
  }

  // The same with an index for each element of a row, where it is the same for all of them.
  std::optional<SortedStep> Gather(const Node& node) {
    const ValueId self = TensorArgument(node.args, 0);
    const ValueId index = TensorArgument(node.args, 2);
    const bool is_first = IntegerArgument(node.args, 1).value_or(0) == 0;
    if (!is_first || IsSorted(self) || !IsRows(index, 0)) return std::nullopt;
    std::vector<int64_t> rows = Values(graph_.type(self).sizes);
    const ValueId of_row = Unstretched(index);
    const int64_t copies = CopiesOf(of_row, rows[0]);
    rows[0] *= copies;
    row_dim_[node.outputs[0]] = 0;
    if (rows != Values(graph_.type(index).sizes)) return SortedStep{};
    if (of_row == sort_.order) return Is(self);
    if (copies == 1) return SortedStep{};
    return SortedStep{.kind = SortedStep::Kind::kCopies, .copies = copies};
  }

  // k where the index is order // k, so that in order it names each of `size` rows k times; else 1.
  int64_t CopiesOf(ValueId index, int64_t size) const {
    const Node* node = NodeOf(index);
    const bool divides =
        node != nullptr && TensorArgument(node->args, 0) == sort_.order &&
        (node->op == "aten.floor_divide.default" || node->op == "aten.div.Tensor_mode");
    const int64_t copies = divides ? IntegerArgument(node->args, 1).value_or(1) : 1;
    return copies > 1 && copies * size == NumRows() ? copies : 1;
  }

  // Sorted rows that are added to what is not sorted: no order is seen.
  std::optional<SortedStep> Sum(const Node& node) const {
    const ValueId self = TensorArgument(node.args, 0);
    ValueId index = TensorArgument(node.args, 2);
    ValueId source = TensorArgument(node.args, 3);
    const bool is_first = IntegerArgument(node.args, 1).value_or(0) == 0;
    if (node.op == "aten.index_put.default") {
      index = SlotOf(node).second;
      source = TensorArgument(node.args, 2);
      const bool adds = SlotOf(node).first == 0 && FlagArgument(node.args, 3).value_or(false);
      if (!adds) return std::nullopt;
    } else if (node.op == "aten.index_add.default") {
      if (!is_first || NumberArgument(node.args, 4).value_or(1) != 1) return std::nullopt;
    } else if (node.op != "aten.scatter_add.default" || !is_first) {
      return std::nullopt;
    }
    const bool has_form = index.valid() && source.valid() && IsRows(index, 0) &&
                          IsRows(source, 0) && !IsSorted(self) &&
                          graph_.type(source).rank() == graph_.type(self).rank();
    if (!has_form) return std::nullopt;
    const int64_t copies = CopiesOf(Unstretched(index), graph_.type(self).sizes[0].value);
    std::vector<int64_t> sums = Values(graph_.type(source).sizes);
    sums[0] /= copies;
    // scatter_add adds only what the index names.
    const bool adds_all = node.op != "aten.scatter_add.default" ||
                          Values(graph_.type(index).sizes) == Values(graph_.type(source).sizes);
    const bool is_local = copies > 1 && adds_all && sums == Values(graph_.type(self).sizes) &&
                          graph_.type(self).dtype == graph_.type(source).dtype;
    if (!is_local) return SortedStep{};
    return SortedStep{.kind = SortedStep::Kind::kSum, .copies = copies, .operand = source};
  }

  // Of an index for each element of a row, that of the row.
  ValueId Unstretched(ValueId index) const {
    static const auto& kViews =
        *new std::set<std::string_view>{"aten.expand.default", "aten.unsqueeze.default",
                                        "aten.view.default", "aten.reshape.default"};
    while (graph_.type(index).rank() > 1) {
      const Node* node = NodeOf(index);
      if (node == nullptr || !kViews.contains(node->op)) break;
      const ValueId self = TensorArgument(node->args, 0);
      const bool keeps_rows = graph_.type(self).rank() > 0 && IsRows(self, 0) &&
                              graph_.type(self).sizes[0].value == NumRows();
      if (!keeps_rows) break;
      index = self;
    }
    return index;
  }

  // What works on each row by itself, or sums over all of them, whatever their order. All that has
  // these rows is sorted.
  std::optional<SortedStep> RowByRow(size_t index) {
    const Node& node = graph_.nodes[index];
    if (DrawsRandomNumbers(node.op) || FindOpRule(node.op) == nullptr) return std::nullopt;
    FactorDim rows;
    for (ValueId operand : OperandsOf(node)) {
      if (inverses_.contains(operand)) return std::nullopt;
      if (!IsSorted(operand)) continue;
      const FactorDim dim = factors_.Of(operand)[row_dim_.at(operand)];
      if (!rows.empty() && dim != rows) return std::nullopt;
      rows = dim;
    }
    const auto holds_rows = [&](const FactorDim& dim) {
      return std::ranges::any_of(
          dim, [&](FactorVar factor) { return std::ranges::count(rows, factor) > 0; });
    };
    for (ValueId operand : OperandsOf(node)) {
      FactorDims others = factors_.Of(operand);
      if (IsSorted(operand)) others[row_dim_.at(operand)].clear();
      if (std::ranges::any_of(others, holds_rows)) return std::nullopt;
    }
    const FactorRoles roles = FactorRolesOf(graph_, factors_, index);
    const auto is_reduced = [&](FactorVar factor) {
      return roles.sum.contains(factor) || roles.max.contains(factor);
    };
    const bool reduces = std::ranges::all_of(rows, is_reduced);
    const bool is_apart = roles.Allows(rows) && std::ranges::none_of(rows, is_reduced);
    // Of several results one may be where the other was found.
    if (rows.empty() || (!reduces && !is_apart)) return std::nullopt;
    if (reduces && node.outputs.size() > 1) return std::nullopt;
    for (ValueId output : node.outputs) {
      const FactorDims dims = factors_.Of(output);
      const auto dim = std::ranges::find(dims, rows);
      if (std::ranges::count_if(dims, holds_rows) != (reduces ? 0 : 1)) return std::nullopt;
      if (reduces) continue;
      if (dim == dims.end()) return std::nullopt;
      row_dim_[output] = dim - dims.begin();
    }
    return SortedStep{};
  }

  const Graph& graph_;
  const GraphFactors& factors_;
  const std::vector<int32_t>& definer_;
  IndexEvaluator& evaluator_;
  Sort sort_;
  SortedSteps steps_;
  std::map<ValueId, int64_t> row_dim_;  // of what is sorted: the dimension of its rows
  std::set<ValueId> inverses_;
};

}  // namespace

std::optional<SortedSteps> FindSortedRegion(const Graph& graph, const GraphFactors& factors,
                                            const std::vector<int32_t>& definer,
                                            IndexEvaluator& evaluator, size_t node_index) {
  return SortedRegion(graph, factors, definer, evaluator).Find(node_index);
}

}  // namespace autosp
