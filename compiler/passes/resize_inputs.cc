#include <string>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/passes/counted_rows.h"
#include "compiler/passes/cut_sizes.h"
#include "compiler/passes/folded_sizes.h"
#include "compiler/passes/index_limits.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_arguments.h"
#include "compiler/passes/size_ranges.h"
#include "compiler/passes/size_rewriter.h"
#include "compiler/passes/size_symbols.h"
#include "compiler/passes/summed_sizes.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// Evaluates what the archive computes from symbols, and has literal sizes rewritten.
class Resizer {
 public:
  // `old_types`: of all values, before the resize.
  Resizer(Graph& graph, GraphFactors& factors, SymBindings bindings,
          const std::vector<TensorType>& old_types, const PassContext& context)
      : graph_(graph),
        bindings_(std::move(bindings)),
        old_types_(old_types),
        rewriter_(graph, factors, old_types),
        summed_(graph, factors, old_types),
        limits_(graph, context) {}

  absl::Status Run() {
    for (Node& node : graph_.nodes) {
      limits_.Visit(node);
      RETURN_IF_ERROR(WithContext(CheckLimits(node), Describe(graph_, node)));
      RETURN_IF_ERROR(WithContext(Evaluate(node), Describe(graph_, node)));
      RETURN_IF_ERROR(WithContext(rewriter_.Rewrite(node), Describe(graph_, node)));
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
        ASSIGN_OR_RETURN(const double evaluated, number->expr.Evaluate(bindings_));
        argument = evaluated;
      }
    }
    return absl::OkStatus();
  }

  // sum / B as python wrote it: a sum over a dimension that changes, divided by the integer that
  // its size was, may be a mean.
  absl::Status CheckDivisor(const Node& node) {
    summed_.Visit(node);
    const auto* divisor = ArgumentAs<SymInt>(node.args, 1);
    if (node.op != "aten.div.Tensor" || divisor == nullptr) return absl::OkStatus();
    if (!summed_.IsSummedOver(TensorArgument(node.args, 0), divisor->value)) {
      return absl::OkStatus();
    }
    return Unimplemented("divides a sum by ", divisor->value,
                         ", the size at export of what it sums over: whether it follows the job's "
                         "size is not known; take the mean, or export with dynamic shapes");
  }

  // pooled[ids % B]: a literal that lets places go as far as a dimension went at export may be made
  // of its size, or be a number of places that are always there.
  absl::Status CheckLimits(const Node& node) {
    for (const LookUp& look_up : LookUpsOf(graph_, node)) {
      const SymInt& before = old_types_[look_up.table.index].sizes[look_up.dim];
      const int64_t now = graph_.type(look_up.table).sizes[look_up.dim].value;
      const std::optional<IndexLimit> limit = limits_.Of(look_up.index);
      const bool is_constant = before.expr.empty() && before.value != now;
      if (!is_constant || !limit || limit->greatest != before.value - 1) continue;
      return Unimplemented("looks up dimension ", look_up.dim, " of %",
                           graph_.value(look_up.table).name, ", which was ", before.value,
                           " at export and is ", now, " in the job, at places that ",
                           Describe(graph_, *limit->node), " keeps below ", before.value,
                           ": whether that follows is not known; train with the exported sizes, or "
                           "export with dynamic shapes");
    }
    return absl::OkStatus();
  }

  Graph& graph_;
  SymBindings bindings_;
  const std::vector<TensorType>& old_types_;
  SizeRewriter rewriter_;
  SummedSizes summed_;
  IndexLimits limits_;
};

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

// A part that is cut out of fewer tokens than the model skips would have less than nothing.
absl::Status CheckNoneIsNegative(const Graph& graph, const std::vector<TensorType>& old_types) {
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const std::vector<int64_t> sizes = Values(graph.values[i].type.sizes);
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] >= 0) continue;
      return InvalidArgument(DescribeValue(graph, i), " has ", old_types[i].sizes[d].value,
                             " in dimension ", d, " at the exported sizes and ", sizes[d],
                             " at those of the job: it skips more tokens than there are; set ",
                             "training.seq_len higher, or export with dynamic shapes");
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

// How many blocks a root has may be an expression: it must say what the job wants.
absl::Status CheckRoot(const GraphFactors& factors, FactorVar root, int64_t wanted,
                       const char* key) {
  if (wanted <= 0 || root < 0) return absl::OkStatus();
  const int64_t size = factors.table.Size(root);
  if (size == wanted) return absl::OkStatus();
  return InvalidArgument(key, ": ", wanted, ", but with the sizes that the archive writes as ",
                         "expressions it stays ", size, "; train with the exported sizes");
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

// Whether the archive has a batch of one as a constant, and the job has another.
bool HadBatchOfOne(const Graph& graph, const GraphFactors& factors,
                   const std::vector<TensorType>& old_types) {
  for (const GraphInput& input : graph.inputs) {
    const FactorDims& dims = factors.values[input.value.index];
    for (size_t i = 0; i < dims.size(); ++i) {
      if (factors.batch < 0 || dims[i] != FactorDim{factors.batch}) continue;
      const SymInt& before = old_types[input.value.index].sizes[i];
      return before.expr.empty() && before.value == 1 && factors.table.Size(factors.batch) != 1;
    }
  }
  return false;
}

// A batch of one is in no size of the archive: what was as large by chance may not follow.
absl::Status BlameBatchOfOne(const absl::Status& status, const PassContext& context) {
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(std::string(status.message()), " (the archive was exported with a batch of 1, ",
                   "which torch.export takes for a constant of the model, and the job has ",
                   context.batch_size, ": export with a batch of 2 or more)"));
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
  FollowCountedRows(graph, factors);
  const std::vector<FoldedSize> folded = FindFoldedSizes(graph, factors, context);
  const size_t num_warnings = context.warnings == nullptr ? 0 : context.warnings->size();
  if (context.batch_size > 0 && factors.batch >= 0) {
    RETURN_IF_ERROR(ResizeRoot(graph, factors, factors.batch, context.batch_size,
                               "the sequences of a batch", context));
  }
  if (context.seq_len > 0 && factors.seq >= 0) {
    RETURN_IF_ERROR(
        ResizeRoot(graph, factors, factors.seq, context.seq_len, "training.seq_len", context));
  }
  const bool is_warned = context.warnings != nullptr && context.warnings->size() > num_warnings;
  RETURN_IF_ERROR(CheckSizeRanges(graph, factors, context));
  ASSIGN_OR_RETURN(const SymBindings bindings, BindSymbols(graph, factors));
  RETURN_IF_ERROR(CheckSizeGuards(graph, bindings, context));
  factors.table.Bind(bindings);
  RETURN_IF_ERROR(
      CheckRoot(factors, factors.batch, context.batch_size, "the sequences of a batch"));
  RETURN_IF_ERROR(CheckRoot(factors, factors.seq, context.seq_len, "training.seq_len"));
  RETURN_IF_ERROR(CheckParameters(graph, factors, old_types));
  const bool had_symbols = !graph.symbols.empty();
  const bool changed = SetSizes(graph, factors) || had_symbols;
  RETURN_IF_ERROR(CheckExpressions(graph, old_types, bindings));
  RETURN_IF_ERROR(CheckNoneIsNegative(graph, old_types));
  WarnOfFoldedSizes(graph, factors, old_types, folded, is_warned, context);
  absl::Status status = Resizer(graph, factors, bindings, old_types, context).Run();
  if (HadBatchOfOne(graph, factors, old_types)) {
    if (status.ok()) StretchParts(graph);
    if (status.ok()) status = InferFactors(graph, context.roles).status();
    status = BlameBatchOfOne(status, context);
  }
  RETURN_IF_ERROR(status);
  graph.symbols.clear();
  return changed;
}

}  // namespace autosp
