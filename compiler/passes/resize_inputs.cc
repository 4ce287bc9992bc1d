#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/passes/folded_sizes.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_ranges.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// Rewrites the size arguments of one node for the new factor sizes. Sizes that the archive computes
// from symbols are evaluated; literal sizes are read off the factors of the result.
class Resizer {
 public:
  // `old_types`: of all values, before the resize.
  Resizer(Graph& graph, GraphFactors& factors, SymBindings bindings,
          const std::vector<TensorType>& old_types)
      : graph_(graph), factors_(factors), bindings_(std::move(bindings)), old_types_(old_types) {}

  absl::Status Run() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      Node& node = graph_.nodes[i];
      RETURN_IF_ERROR(WithContext(Evaluate(node), Describe(graph_, node)));
      RETURN_IF_ERROR(WithContext(RewriteLiterals(node), Describe(graph_, node)));
      RETURN_IF_ERROR(WithContext(CheckDivisor(node), Describe(graph_, node)));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status EvaluateInt(SymInt& value) {
    if (value.expr.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int64_t evaluated, value.expr.Evaluate(bindings_));
    value = SymInt(evaluated);
    return absl::OkStatus();
  }

  absl::Status Evaluate(Node& node) {
    for (Argument& argument : node.args) {
      if (auto* value = std::get_if<SymInt>(&argument)) {
        RETURN_IF_ERROR(EvaluateInt(*value));
      } else if (auto* list = std::get_if<IntList>(&argument)) {
        for (SymInt& item : *list) RETURN_IF_ERROR(EvaluateInt(item));
      } else if (auto* number = std::get_if<SymFloat>(&argument)) {
        ASSIGN_OR_RETURN(const int64_t evaluated, number->expr.Evaluate(bindings_));
        argument = static_cast<double>(evaluated);
      }
    }
    return absl::OkStatus();
  }

  std::vector<int64_t> NewSizes(ValueId id) const { return Values(graph_.type(id).sizes); }
  std::vector<int64_t> OldSizes(ValueId id) const { return Values(old_types_[id.index].sizes); }
  bool Changed(ValueId id) const { return NewSizes(id) != OldSizes(id); }
  bool Changed(ValueId id, int64_t dim) const { return NewSizes(id)[dim] != OldSizes(id)[dim]; }
  // Whether the archive itself says how each size that changed depends on the symbols.
  bool IsSymbolic(ValueId id) const {
    const std::vector<int64_t> sizes = NewSizes(id);
    const TensorType& old_type = old_types_[id.index];
    for (size_t i = 0; i < sizes.size(); ++i) {
      const SymInt& old_size = old_type.sizes[i];
      if (sizes[i] != old_size.value && old_size.expr.empty()) return false;
    }
    return true;
  }

  void SetSizes(Node& node, size_t arg) {
    const std::vector<int64_t> sizes = NewSizes(node.outputs[0]);
    node.args[arg] = IntList(sizes.begin(), sizes.end());
  }

  absl::Status RewriteLiterals(Node& node) {
    if (node.op == "aten.slice.Tensor") return RewriteSlice(node);
    if (node.op == "aten.select.int") return RewriteSelect(node);
    bool any_changed = false;
    for (ValueId output : node.outputs) any_changed = any_changed || Changed(output);
    if (!any_changed) return CheckExplained(node);
    if (const std::optional<size_t> sizes = SizeArgument(node.op)) {
      SetSizes(node, *sizes);
      return absl::OkStatus();
    }
    if (node.op == "aten.arange.default") {
      node.args[0] = SymInt(NewSizes(node.outputs[0])[0]);
      return absl::OkStatus();
    }
    if (node.op == "aten.arange.start") {
      const OpContext context(graph_, node, factors_.table, factors_.values);
      if (!context.Int(0)) return CheckExplained(node);
      node.args[1] = SymInt(*context.Int(0) + NewSizes(node.outputs[0])[0]);
      return absl::OkStatus();
    }
    if (node.op == "aten.unflatten.int") return RewriteUnflatten(node);
    if (node.op == "aten.repeat.default" || node.op == "aten.tile.default") {
      return RewriteRepeat(node);
    }
    return CheckExplained(node);
  }

  static absl::Status Unexplained() {
    return InvalidArgument(
        "its sizes depend on the batch or sequence in a way that is not known; train with the "
        "exported sizes, or export with dynamic shapes");
  }

  absl::Status RewriteUnflatten(Node& node) {
    const OpContext context(graph_, node, factors_.table, factors_.values);
    const ValueId self = context.Tensor(0);
    const int64_t dim = context.Dim(1, context.Rank(self));
    const std::vector<int64_t> sizes = NewSizes(node.outputs[0]);
    const size_t count = sizes.size() - static_cast<size_t>(context.Rank(self)) + 1;
    node.args[2] = IntList(sizes.begin() + dim, sizes.begin() + dim + static_cast<int64_t>(count));
    return absl::OkStatus();
  }

  // How often, from what there is and what there must be.
  absl::Status RewriteRepeat(Node& node) {
    const std::vector<int64_t> from = NewSizes(std::get<ValueId>(node.args[0]));
    IntList repeats;
    const std::vector<int64_t> to = NewSizes(node.outputs[0]);
    for (size_t i = 0; i < to.size(); ++i) {
      const size_t added = to.size() - from.size();
      const int64_t size = i < added ? 1 : from[i - added];
      if (size == 0 || to[i] % size != 0) return Unexplained();
      repeats.emplace_back(to[i] / size);
    }
    node.args[1] = std::move(repeats);
    return absl::OkStatus();
  }

  absl::Status RewriteSelect(const Node& node) {
    const OpContext context(graph_, node, factors_.table, factors_.values);
    const ValueId self = context.Tensor(0);
    return CheckPlaces(node, self, context.Dim(1, context.Rank(self)));
  }

  // slice(self, dim, start, end, step): an end past the dimension, or counted from its end, stays
  // right by itself; a literal end inside it must be what the factor of the result says.
  absl::Status RewriteSlice(Node& node) {
    const OpContext context(graph_, node, factors_.table, factors_.values);
    const ValueId self = context.Tensor(0);
    const int64_t dim = context.Dim(1, context.Rank(self));
    const int64_t size = NewSizes(self)[dim];
    const int64_t wanted = NewSizes(node.outputs[0])[dim];
    const int64_t step = context.Int(4).value_or(1);
    int64_t start = context.Int(2).value_or(0);
    if (start < 0) start += size;
    if (start + (wanted - 1) * step >= size) {
      return InvalidArgument(
          "takes ", wanted, " of a dimension of ", size, "; the model is made for at most ", size,
          " there: choose a training.seq_len that fits, or a model with a larger table");
    }
    const int64_t stated_end = context.Int(3).value_or(std::numeric_limits<int64_t>::max());
    const int64_t end = std::min(stated_end < 0 ? stated_end + size : stated_end, size);
    const int64_t got = (end - start + step - 1) / step;
    if (got == wanted) return CheckPlaces(node, self, dim);
    // An end that moves with the dimension says itself how many it takes.
    if (stated_end < 0 || stated_end >= OldSizes(self)[dim]) return Unexplained();
    node.args[3] = SymInt(start + wanted * step);
    return absl::OkStatus();
  }

  // A constant place within a dimension that grows: the model may mean this place, or one that was
  // computed from the exported length (a half, the last but one). The first token and places that
  // are counted from the end mean one thing only.
  absl::Status CheckPlaces(const Node& node, ValueId self, int64_t dim) {
    if (NewSizes(self)[dim] == OldSizes(self)[dim]) return absl::OkStatus();
    if (!old_types_[self.index].sizes[dim].expr.empty()) return absl::OkStatus();
    const OpContext context(graph_, node, factors_.table, factors_.values);
    const int64_t size = OldSizes(self)[dim];
    const bool is_select = node.op == "aten.select.int";
    const int64_t place = context.Int(is_select ? 2 : 3).value_or(size);
    const bool is_constant = is_select ? place > 0 : place > 1 && place < size;
    if (!is_constant || (!is_select && Changed(node.outputs[0], dim))) return absl::OkStatus();
    return Unimplemented("place ", place, " of a dimension that was ", size, " at export and is ",
                         NewSizes(self)[dim],
                         " in the job: whether it moves with the length is not known; train with "
                         "the exported sizes, or export with dynamic shapes");
  }

  // sum / B as python wrote it: a sum over a dimension that changes, divided by the integer that
  // its size was, may be a mean.
  absl::Status CheckDivisor(const Node& node) {
    for (ValueId output : node.outputs) NoteSummed(node, output);
    const auto* divisor = ArgumentAs<SymInt>(node.args, 1);
    if (node.op != "aten.div.Tensor" || divisor == nullptr) return absl::OkStatus();
    const auto summed = summed_.find(std::get<ValueId>(node.args[0]));
    if (summed == summed_.end() || !summed->second.contains(divisor->value)) {
      return absl::OkStatus();
    }
    return Unimplemented("divides a sum by ", divisor->value,
                         ", the size at export of what it sums over: whether it follows the job's "
                         "size is not known; take the mean, or export with dynamic shapes");
  }

  // Sizes at export of constant dimensions that changed and that `output` has been summed over.
  void NoteSummed(const Node& node, ValueId output) {
    std::set<int64_t> sizes;
    int64_t product = 1;
    for (ValueId operand : OperandsOf(node)) {
      if (const auto known = summed_.find(operand); known != summed_.end()) {
        sizes.insert(known->second.begin(), known->second.end());
      }
      const std::vector<int64_t> from = OldSizes(operand);
      const bool is_sum = graph_.type(output).rank() == 0 || node.op == "aten.sum.dim_IntList";
      for (size_t d = 0; is_sum && d < from.size(); ++d) {
        const bool is_constant = old_types_[operand.index].sizes[d].expr.empty();
        if (!is_constant || !Changed(operand, static_cast<int64_t>(d))) continue;
        sizes.insert(from[d]);
        sizes.insert(product *= from[d]);
      }
    }
    if (!sizes.empty()) summed_[output] = std::move(sizes);
  }

  // Any other op gets its new sizes from its operands. What has constants of sizes in it, or is not
  // known, is explained only where the archive is symbolic.
  absl::Status CheckExplained(const Node& node) {
    bool is_explained = FindOpRule(node.op) != nullptr && node.op != "aten.arange.start_step";
    const OpContext context(graph_, node, factors_.table, factors_.values);
    if (node.op.starts_with("aten.split") || node.op.starts_with("aten.chunk")) {
      // The cut is explained if the dimension that is cut keeps its size.
      const ValueId self = context.Tensor(0);
      const int64_t dim = context.Dim(2, context.Rank(self));
      is_explained = NewSizes(self)[dim] == OldSizes(self)[dim];
    }
    if (node.op == "aten.cat.default") is_explained = IsSumOfParts(context);
    // A stride makes a dimension of its own, which does not follow.
    if (node.op.starts_with("aten.conv")) is_explained = FollowsItsInput(context);
    if (is_explained) return absl::OkStatus();
    bool any_changed = false;
    bool all_symbolic = true;
    const auto visit = [&](ValueId id) {
      any_changed = any_changed || Changed(id);
      all_symbolic = all_symbolic && IsSymbolic(id);
    };
    for (ValueId operand : OperandsOf(node)) visit(operand);
    for (ValueId output : node.outputs) visit(output);
    if (!any_changed || all_symbolic) return absl::OkStatus();
    return Unexplained();
  }

  bool FollowsItsInput(const OpContext& context) const {
    const ValueId input = context.Tensor(0);
    for (int64_t dim = 2; dim < context.Rank(input); ++dim) {
      if (Changed(input, dim) != Changed(context.node().outputs[0], dim)) return false;
    }
    return true;
  }

  bool IsSumOfParts(const OpContext& context) const {
    const int64_t rank = static_cast<int64_t>(context.ResultSizes().size());
    const int64_t dim = context.Dim(1, rank);
    int64_t total = 0;
    for (ValueId part : context.Tensors(0)) {
      const std::vector<int64_t> sizes = NewSizes(part);
      if (static_cast<int64_t>(sizes.size()) == rank) total += sizes[dim];
    }
    return total == context.ResultSizes()[dim];
  }

  Graph& graph_;
  GraphFactors& factors_;
  SymBindings bindings_;
  const std::vector<TensorType>& old_types_;
  std::map<ValueId, std::set<int64_t>> summed_;  // see NoteSummed
};

// Values of the archive's symbols at the new sizes: those that stand alone in an input's sizes.
SymBindings BindSymbols(const Graph& graph, const GraphFactors& factors) {
  SymBindings bindings = graph.symbols;
  for (const GraphInput& input : graph.inputs) {
    const TensorType& type = graph.type(input.value);
    for (size_t i = 0; i < type.sizes.size(); ++i) {
      const std::string symbol = type.sizes[i].expr.ToString();
      if (!bindings.contains(symbol)) continue;
      bindings[symbol] = factors.table.Size(factors.values[input.value.index][i]);
    }
  }
  return bindings;
}

// "%y of layers.0: aten.view.default (%y) at model.py:12".
std::string DescribeValue(const Graph& graph, size_t value) {
  const std::string name = absl::StrCat("%", graph.values[value].name);
  for (const Node& node : graph.nodes) {
    for (ValueId output : node.outputs) {
      if (static_cast<size_t>(output.index) != value) continue;
      return absl::StrCat(name, " of ", Describe(graph, node));
    }
  }
  return name;
}

// What the factors say must be what the archive's expressions say.
absl::Status CheckExpressions(const Graph& graph, const std::vector<TensorType>& old_types,
                              const SymBindings& bindings) {
  for (size_t i = 0; i < graph.values.size(); ++i) {
    for (size_t d = 0; d < old_types[i].sizes.size(); ++d) {
      const SymExpr& expr = old_types[i].sizes[d].expr;
      if (expr.empty()) continue;
      ASSIGN_OR_RETURN(const int64_t wanted, expr.Evaluate(bindings));
      const int64_t size = graph.values[i].type.sizes[d].value;
      if (wanted == size) continue;
      return InvalidArgument(DescribeValue(graph, i), " has ", wanted, " (", expr.ToString(),
                             ") in dimension ", d, " for the sizes of the job, but follows as ",
                             size, "; train with the exported sizes");
    }
  }
  return absl::OkStatus();
}

// The node that meets the value first, for messages.
std::string FirstUseOf(const Graph& graph, ValueId value) {
  for (const Node& node : graph.nodes) {
    for (const ValueId operand : OperandsOf(node)) {
      if (operand == value) return Describe(graph, node);
    }
  }
  return "the model";
}

// The node that cuts the dimension of `parts` into blocks: it takes them together and gives the
// first one apart.
std::string WhoCuts(const Graph& graph, const GraphFactors& factors,
                    const std::vector<FactorVar>& parts) {
  const auto has = [&](ValueId value, bool is_whole) {
    return std::ranges::any_of(factors.values[value.index], [&](const FactorDim& dim) {
      const std::vector<FactorVar> found = factors.table.Resolve(dim);
      return std::ranges::count(found, parts[0]) > 0 &&
             (std::ranges::count(found, parts[1]) > 0) == is_whole;
    });
  };
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = OperandsOf(node);
    const bool takes_whole =
        std::ranges::any_of(operands, [&](ValueId id) { return has(id, /*is_whole=*/true); });
    const bool gives_apart =
        std::ranges::any_of(node.outputs, [&](ValueId id) { return has(id, /*is_whole=*/false); });
    if (takes_whole && gives_apart) return Describe(graph, node);
  }
  return "the model";
}

// `key` is what the job file calls the size.
absl::Status ResizeRoot(const Graph& graph, GraphFactors& factors, FactorVar root, int64_t size,
                        const char* key) {
  const std::vector<FactorVar> parts = factors.table.Resolve(FactorDim{root});
  int64_t block = 1;
  for (size_t i = 1; i < parts.size(); ++i) block *= factors.table.Size(parts[i]);
  if (size % block == 0) return factors.table.Resize(root, size);
  return InvalidArgument(key, ": ", size, " is not a multiple of ", block, ", the block that ",
                         WhoCuts(graph, factors, parts), " cuts it into; set it to ",
                         (size + block - 1) / block * block, " or another multiple");
}

absl::Status CheckParameters(const Graph& graph, const GraphFactors& factors,
                             const std::vector<TensorType>& old_types) {
  for (const GraphInput& input : graph.inputs) {
    if (input.kind == InputKind::kUser) continue;
    const std::vector<int64_t> sizes = Values(old_types[input.value.index].sizes);
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t wanted = factors.table.Size(factors.values[input.value.index][i]);
      if (wanted == sizes[i]) continue;
      return InvalidArgument(input.name, " has ", sizes[i], " in dimension ", i, ", which ",
                             FirstUseOf(graph, input.value),
                             " uses as its batch or sequence; the job wants ", wanted,
                             ": train with ", sizes[i], ", or export a model of that size");
    }
  }
  return absl::OkStatus();
}

}  // namespace

// Gives the graph the batch and sequence sizes of the job. Every size is a product of factors, so
// the new ones follow from the roots; literal sizes in arguments are rewritten, and what no factor
// explains is refused by name. Symbols are gone afterwards: all sizes are numbers.
//
//   before  input %x "input_ids" : i64[2, 32]       %v = aten.view.default(%y, [2, 32, 4, 16])
//   after   input %x "input_ids" : i64[1, 4096]     %v = aten.view.default(%y, [1, 4096, 4, 16])
absl::StatusOr<bool> ResizeInputs(Graph& graph, const PassContext& context) {
  ASSIGN_OR_RETURN(GraphFactors factors, InferFactors(graph, context.roles));
  std::vector<TensorType> old_types;
  for (const GraphValue& value : graph.values) old_types.push_back(value.type);
  WarnOfFoldedSizes(graph, factors, context);
  if (context.batch_size > 0 && factors.batch >= 0) {
    RETURN_IF_ERROR(
        ResizeRoot(graph, factors, factors.batch, context.batch_size, "the sequences of a batch"));
  }
  if (context.seq_len > 0 && factors.seq >= 0) {
    RETURN_IF_ERROR(ResizeRoot(graph, factors, factors.seq, context.seq_len, "training.seq_len"));
  }
  RETURN_IF_ERROR(CheckSizeRanges(graph, factors, context));
  const SymBindings bindings = BindSymbols(graph, factors);
  factors.table.Bind(bindings);
  RETURN_IF_ERROR(CheckParameters(graph, factors, old_types));
  bool changed = !graph.symbols.empty();
  for (size_t i = 0; i < graph.values.size(); ++i) {
    TensorType& type = graph.values[i].type;
    // Values of nodes that were rewritten away have no factors.
    if (factors.values[i].size() != type.sizes.size()) continue;
    for (size_t d = 0; d < type.sizes.size(); ++d) {
      type.sizes[d] = SymInt(factors.table.Size(factors.values[i][d]));
    }
    if (Values(type.sizes) == Values(old_types[i].sizes)) continue;
    // Strides of intermediate values are found again by the lowering.
    type.strides = ContiguousStrides(Values(type.sizes));
    changed = true;
  }
  RETURN_IF_ERROR(CheckExpressions(graph, old_types, bindings));
  RETURN_IF_ERROR(Resizer(graph, factors, bindings, old_types).Run());
  graph.symbols.clear();
  return changed;
}

}  // namespace autosp
