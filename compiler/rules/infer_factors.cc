#include "compiler/rules/infer_factors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/linear_size.h"

namespace autosp {
namespace {

// One root per role for the whole graph; the first input that has the role gives its size.
absl::StatusOr<FactorDim> RootOf(const GraphInput& input, int64_t dim, int64_t size,
                                 const std::string& role, FactorVar* root, FactorTable* table) {
  if (*root < 0) *root = table->NewFactor(size, role, /*is_root=*/true);
  if (table->Size(*root) != size) {
    return InvalidArgument("input ", input.name, " has ", size, " in dimension ", dim, ", its ",
                           role, " dimension, but another input has ", table->Size(*root),
                           "; mark the dimension as other in data.inputs.", input.name, ".dims");
  }
  return FactorDim{*root};
}

// The dimensions of an input that have a role. `followed`: symbols of the archive in their sizes.
absl::Status InferRoles(const Graph& graph, const GraphInput& input, const InputRoles& roles,
                        GraphFactors* result, SymBindings* followed) {
  const TensorType& type = graph.type(input.value);
  FactorDims& dims = result->values[input.value.index];
  dims.resize(type.sizes.size());
  const auto role = roles.find(input.name);
  if (input.kind != InputKind::kUser || role == roles.end()) return absl::OkStatus();
  if (static_cast<int64_t>(role->second.size()) != type.rank()) {
    return InvalidArgument("input ", input.name, " has ", type.rank(), " dimensions, but ",
                           role->second.size(),
                           " roles; list one of batch, sequence, other for each ",
                           "in data.inputs.", input.name, ".dims");
  }
  for (int64_t i = 0; i < type.rank(); ++i) {
    if (role->second[i] == DimRole::kOther) continue;
    const bool is_batch = role->second[i] == DimRole::kBatch;
    const SymInt& size = type.sizes[i];
    ASSIGN_OR_RETURN(dims[i], RootOf(input, i, size.value, is_batch ? "batch" : "seq",
                                     is_batch ? &result->batch : &result->seq, &result->table));
    if (!size.expr.empty()) result->table.NameExpression(size.expr, dims[i]);
    if (const auto linear = AsLinearSize(size.expr, graph.symbols)) {
      followed->insert(*graph.symbols.find(linear->symbol));
    }
  }
  return absl::OkStatus();
}

// A dimension without a role. One that the archive writes with the symbols of a batch or sequence
// follows those, whatever the job file calls it.
FactorDim OtherDim(const SymInt& size, const SymBindings& followed, FactorTable* table) {
  if (size.value == 1) return {};
  if (size.expr.empty()) return {table->NewFactor(size.value)};
  if (size.expr.Evaluate(followed).ok()) return table->ForExpression(size.expr, size.value);
  const FactorDim dim = {table->NewFactor(size.value)};
  table->NameExpression(size.expr, dim);
  return dim;
}

absl::Status InferInputs(const Graph& graph, const InputRoles& roles, GraphFactors* result) {
  SymBindings followed;
  for (const GraphInput& input : graph.inputs) {
    RETURN_IF_ERROR(InferRoles(graph, input, roles, result, &followed));
  }
  for (const GraphInput& input : graph.inputs) {
    const auto role = roles.find(input.name);
    const bool has_roles = input.kind == InputKind::kUser && role != roles.end();
    FactorDims& dims = result->values[input.value.index];
    for (size_t i = 0; i < dims.size(); ++i) {
      if (has_roles && role->second[i] != DimRole::kOther) continue;
      dims[i] = OtherDim(graph.type(input.value).sizes[i], followed, &result->table);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const Graph& graph, const Node& node, const OpFactors& factors,
                        const FactorTable& table) {
  if (factors.results.size() != node.outputs.size()) {
    return Internal(Describe(graph, node), ": the rule gives ", factors.results.size(),
                    " results for ", node.outputs.size());
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const TensorType& type = graph.type(node.outputs[i]);
    const FactorDims& dims = factors.results[i];
    bool equal = static_cast<int64_t>(dims.size()) == type.rank();
    for (size_t d = 0; equal && d < dims.size(); ++d) {
      equal = table.Size(dims[d]) == type.sizes[d].value;
    }
    if (equal) continue;
    std::vector<std::string> mine;
    for (const FactorDim& dim : dims) mine.push_back(absl::StrCat(table.Size(dim)));
    std::vector<std::string> stated;
    for (const SymInt& size : type.sizes) stated.push_back(absl::StrCat(size.value));
    return InvalidArgument(
        Describe(graph, node), ": the shape follows as [", absl::StrJoin(mine, ", "),
        "] but the archive states [", absl::StrJoin(stated, ", "),
        "]; where sizes are constants of the archive, train with those, or export with "
        "dynamic shapes; else save the model again with torch.export.save");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GraphFactors> InferFactors(const Graph& graph, const InputRoles& roles) {
  GraphFactors result;
  result.values.resize(graph.values.size());
  RETURN_IF_ERROR(InferInputs(graph, roles, &result));
  for (const Node& node : graph.nodes) {
    OpContext context(graph, node, result.table, result.values);
    const OpRule* rule = FindOpRule(node.op);
    absl::StatusOr<OpFactors> factors = rule ? rule->infer(context) : InferOpaque(context);
    if (!factors.ok()) return WithContext(factors.status(), Describe(graph, node));
    if (rule == nullptr) {
      result.warnings.push_back(absl::StrCat(
          Describe(graph, node),
          " has no rule: it is gathered, computed in full and sliced, which costs memory and "
          "exchanges; write it with ops that have rules, or accept this"));
    }
    RETURN_IF_ERROR(CheckSizes(graph, node, *factors, result.table));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      result.values[node.outputs[i].index] = factors->results[i];
    }
    result.nodes.push_back(*std::move(factors));
  }
  return result;
}

}  // namespace autosp
