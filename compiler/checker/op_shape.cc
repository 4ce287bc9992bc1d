#include "compiler/checker/op_shape.h"

#include <algorithm>

namespace autosp::checker {

std::optional<int64_t> OpCall::Int(size_t arg) const {
  if (arg >= instruction.args.size()) return std::nullopt;
  const auto* value = std::get_if<SymInt>(&instruction.args[arg]);
  return value == nullptr ? std::nullopt : std::optional(value->value);
}

std::optional<double> OpCall::Number(size_t arg) const {
  if (arg >= instruction.args.size()) return std::nullopt;
  if (const auto* value = std::get_if<double>(&instruction.args[arg])) return *value;
  if (const auto* value = std::get_if<bool>(&instruction.args[arg])) return *value ? 1 : 0;
  const std::optional<int64_t> integer = Int(arg);
  return integer ? std::optional(static_cast<double>(*integer)) : std::nullopt;
}

bool OpCall::Flag(size_t arg) const {
  if (arg >= instruction.args.size()) return false;
  const auto* value = std::get_if<bool>(&instruction.args[arg]);
  return value != nullptr && *value;
}

std::vector<int64_t> OpCall::Ints(size_t arg) const {
  std::vector<int64_t> result;
  if (arg >= instruction.args.size()) return result;
  if (const auto* list = std::get_if<IntList>(&instruction.args[arg])) {
    for (const SymInt& value : *list) result.push_back(value.value);
  } else if (const auto* value = std::get_if<SymInt>(&instruction.args[arg])) {
    result.push_back(value->value);
  }
  return result;
}

bool OpCall::HasTensor(size_t arg) const {
  if (arg >= instruction.args.size()) return false;
  const auto* id = std::get_if<ValueId>(&instruction.args[arg]);
  return id != nullptr && id->valid();
}

std::vector<int64_t> OpCall::Dims(size_t arg, int64_t rank) const {
  std::vector<int64_t> dims = Ints(arg);
  if (dims.empty()) {
    for (int64_t i = 0; i < rank; ++i) dims.push_back(i);
  }
  for (int64_t& dim : dims) dim += dim < 0 ? rank : 0;
  std::erase_if(dims, [rank](int64_t dim) { return dim < 0 || dim >= rank; });
  return dims;
}

std::optional<absl::Status> DescribeOp(const OpCall& call, OpShape* shape) {
  absl::Status status;
  for (const auto family : {DescribeElementwise, DescribeReduction, DescribeProduct,
                            DescribeIndexing, DescribeWindow}) {
    if (family(call, shape, &status)) return status;
  }
  return std::nullopt;
}

}  // namespace autosp::checker
