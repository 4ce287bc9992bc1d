#include "compiler/rules/op_context.h"

#include <numeric>

#include "compiler/ir/argument_access.h"

namespace autosp {

std::vector<int64_t> Values(const std::vector<SymInt>& sizes) {
  std::vector<int64_t> values;
  values.reserve(sizes.size());
  for (const SymInt& size : sizes) values.push_back(size.value);
  return values;
}

namespace {

FactorTable& NoTable() {
  static FactorTable& table = *new FactorTable;
  return table;
}

const ValueFactors& NoFactors() {
  static const ValueFactors& factors = *new ValueFactors;
  return factors;
}

}  // namespace

OpContext::OpContext(const Graph& graph, const Node& node)
    : OpContext(graph, node, NoTable(), NoFactors()) {}

ValueId OpContext::Tensor(size_t arg) const { return TensorArgument(node_.args, arg); }

std::vector<ValueId> OpContext::Tensors(size_t arg) const {
  const auto* list = ArgumentAs<ValueList>(node_.args, arg);
  return list ? *list : std::vector<ValueId>{};
}

std::optional<SymInt> OpContext::Sym(size_t arg) const {
  if (const auto* value = ArgumentAs<SymInt>(node_.args, arg)) return *value;
  return std::nullopt;
}

std::optional<int64_t> OpContext::Int(size_t arg) const { return IntegerArgument(node_.args, arg); }

IntList OpContext::Ints(size_t arg) const {
  if (const auto* list = ArgumentAs<IntList>(node_.args, arg)) return *list;
  if (const auto* value = ArgumentAs<SymInt>(node_.args, arg)) return {*value};
  return {};
}

std::optional<bool> OpContext::Bool(size_t arg) const { return FlagArgument(node_.args, arg); }

bool OpContext::Has(size_t arg) const {
  return arg < node_.args.size() && !IsNone(node_.args[arg]);
}

const TensorType& OpContext::ResultType(size_t result) const {
  return graph_.type(node_.outputs[result]);
}

std::vector<int64_t> OpContext::ResultSizes(size_t result) const {
  return Values(ResultType(result).sizes);
}

int64_t OpContext::Dim(size_t arg, int64_t rank, int64_t absent) const {
  const int64_t dim = Int(arg).value_or(absent);
  return dim < 0 ? dim + rank : dim;
}

std::vector<int64_t> OpContext::DimList(size_t arg, int64_t rank) const {
  std::vector<int64_t> dims = Values(Ints(arg));
  if (dims.empty()) {
    dims.resize(rank);
    std::iota(dims.begin(), dims.end(), 0);
  }
  for (int64_t& dim : dims) {
    if (dim < 0) dim += rank;
  }
  return dims;
}

}  // namespace autosp
