#include "compiler/rules/op_context.h"

#include <numeric>

namespace autosp {
namespace {

template <typename T>
const T* ArgAs(const Node& node, size_t arg) {
  if (arg >= node.args.size()) return nullptr;
  return std::get_if<T>(&node.args[arg]);
}

}  // namespace

std::vector<int64_t> Values(const std::vector<SymInt>& sizes) {
  std::vector<int64_t> values;
  values.reserve(sizes.size());
  for (const SymInt& size : sizes) values.push_back(size.value);
  return values;
}

ValueId OpContext::Tensor(size_t arg) const {
  const auto* id = ArgAs<ValueId>(node_, arg);
  return id ? *id : ValueId{};
}

std::vector<ValueId> OpContext::Tensors(size_t arg) const {
  const auto* list = ArgAs<ValueList>(node_, arg);
  return list ? *list : std::vector<ValueId>{};
}

std::optional<SymInt> OpContext::Sym(size_t arg) const {
  if (const auto* value = ArgAs<SymInt>(node_, arg)) return *value;
  return std::nullopt;
}

std::optional<int64_t> OpContext::Int(size_t arg) const {
  if (const auto* value = ArgAs<SymInt>(node_, arg)) return value->value;
  if (const auto* value = ArgAs<bool>(node_, arg)) return *value ? 1 : 0;
  return std::nullopt;
}

IntList OpContext::Ints(size_t arg) const {
  if (const auto* list = ArgAs<IntList>(node_, arg)) return *list;
  if (const auto* value = ArgAs<SymInt>(node_, arg)) return {*value};
  return {};
}

std::optional<bool> OpContext::Bool(size_t arg) const {
  if (const auto* value = ArgAs<bool>(node_, arg)) return *value;
  if (const auto* value = ArgAs<SymInt>(node_, arg)) return value->value != 0;
  return std::nullopt;
}

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
