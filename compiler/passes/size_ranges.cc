#include "compiler/passes/size_ranges.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "compiler/ir/linear_size.h"

namespace autosp {
namespace {

// Export treats 0 and 1 apart from all other sizes, and writes a least size of 2 where the user
// asked for none.
constexpr int64_t kLeastByDefault = 2;

// "above 512, the greatest it was exported for"; empty: it is within. `least`: of the symbol.
std::string Outside(int64_t size, const SymbolRange& range, int64_t least) {
  if (size > range.max) return absl::StrCat("above ", range.max, ", the greatest");
  if (size < range.min && least > kLeastByDefault) {
    return absl::StrCat("below ", range.min, ", the least");
  }
  return "";
}

}  // namespace

absl::Status CheckSizeRanges(const Graph& graph, const GraphFactors& factors,
                             const PassContext& context) {
  std::set<std::string> seen;
  for (const GraphInput& input : graph.inputs) {
    const TensorType& type = graph.type(input.value);
    const FactorDims& dims = factors.values[input.value.index];
    for (size_t i = 0; i < type.sizes.size(); ++i) {
      const auto linear = AsLinearSize(type.sizes[i].expr, graph.symbols);
      if (!linear) continue;
      const auto of_symbol = context.symbol_ranges.find(linear->symbol);
      if (of_symbol == context.symbol_ranges.end()) continue;
      const std::string expr = type.sizes[i].expr.ToString();
      if (!seen.insert(expr).second) continue;
      const SymbolRange range = linear->Range(of_symbol->second);
      const int64_t size = factors.table.Size(dims[i]);
      const std::string outside = Outside(size, range, of_symbol->second.min);
      if (outside.empty()) continue;
      const bool is_batch = dims[i] == FactorDim{factors.batch};
      const std::string message =
          absl::StrCat(is_batch ? "the batch" : "training.seq_len", ": input ", input.name, " has ",
                       size, " in dimension ", i, ", which is ", outside, " it was exported for (",
                       expr, "): what the model does with such a size is not in the graph; ");
      if (!is_batch) {
        return InvalidArgument(message, "set training.seq_len to ", range.min, " to ", range.max,
                               ", or export with a range that holds it");
      }
      if (context.warnings == nullptr) continue;
      context.warnings->push_back(absl::StrCat(
          message, "if it asks for the size of its batch, export with a range that holds it"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSizeGuards(const Graph& graph, const SymBindings& bindings,
                             const PassContext& context) {
  if (bindings == graph.symbols) return absl::OkStatus();
  for (const SizeGuard& guard : context.guards) {
    const absl::StatusOr<bool> at_export = guard.Holds(graph.symbols);
    const absl::StatusOr<bool> holds = guard.Holds(bindings);
    if (!at_export.ok() || !*at_export || !holds.ok()) {
      const std::string why = !at_export.ok() ? std::string(at_export.status().message())
                              : !holds.ok()   ? std::string(holds.status().message())
                                              : "it is not so at the exported sizes";
      return Unimplemented("the model was exported with ", guard.ToString(), " taken for granted, ",
                           "which is not understood (", why, "): whether its archive is of the ",
                           "model at the sizes of the job is not known; export it at those sizes");
    }
    if (*holds) continue;
    return InvalidArgument(
        guard.SizesToString(bindings), " in this job, but the model was exported with ",
        guard.ToString(), " taken for granted: something asks for the size, as `if` does, or ",
        "makes a number of it, as `int` does, and what it does at other sizes is not in the ",
        "archive; set training.seq_len and the batch so that this holds, or export the model at ",
        "the sizes of the job");
  }
  return absl::OkStatus();
}

}  // namespace autosp
