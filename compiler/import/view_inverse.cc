#include "compiler/import/view_inverse.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/op_refusals.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

// A dimension given as an argument, counted from the front; none if it is out of range.
std::optional<int64_t> DimAt(const SymInt& argument, int64_t rank) {
  const int64_t dim = argument.value < 0 ? argument.value + rank : argument.value;
  if (dim < 0 || dim >= rank) return std::nullopt;
  return dim;
}

absl::Status DimOutOfRange() { return DataLoss("a dimension of the view is out of range"); }

bool IsReshape(std::string_view name) {
  return name == "reshape" || name == "view" || name == "_unsafe_view" || name == "flatten" ||
         name == "unflatten" || name == "reshape_as" || name == "view_as" || name == "ravel";
}

bool IsSameStorageIdentity(std::string_view name) {
  return name == "alias" || name == "detach" || name == "contiguous" || name == "to" ||
         name == "dropout";
}

// x[:], which subscripts with several dimensions take of each that they leave as it is. An end that
// is only as large as the dimension is a number that may mean a part of it in a job.
bool IsWhole(const Node& slice, const TensorType& from, const TensorType& taken) {
  const auto* end = std::get_if<SymInt>(&slice.args[3]);
  const auto* step = std::get_if<SymInt>(&slice.args[4]);
  const bool has_no_end = end == nullptr || *end == SymInt(std::numeric_limits<int64_t>::max());
  return has_no_end && step != nullptr && *step == SymInt(1) && taken.sizes == from.sizes &&
         taken.strides == from.strides;
}

absl::StatusOr<IntList> InversePermutation(const IntList& dims) {
  IntList inverse(dims.size());
  const auto rank = static_cast<int64_t>(dims.size());
  for (int64_t i = 0; i < rank; ++i) {
    const std::optional<int64_t> dim = DimAt(dims[i], rank);
    if (!dim.has_value()) return DimOutOfRange();
    inverse[*dim] = i;
  }
  return inverse;
}

}  // namespace

bool IsContiguous(const TensorType& type) {
  const std::vector<int64_t> expected = ContiguousStrides(SizeValues(type));
  for (size_t i = 0; i < expected.size(); ++i) {
    // The stride of a dimension of one element is never used.
    if (type.sizes[i].value != 1 && type.strides[i] != expected[i]) return false;
  }
  return true;
}

ViewOf FindSharing(const GraphBuilder& builder, const Node& node, const OpSchema& schema) {
  if (node.args.empty()) return {};
  const std::string_view name = OpBaseName(schema.name);
  const auto* first = std::get_if<ValueId>(&node.args[0]);
  if (first != nullptr && IsIdentityDropout(schema, node.args)) return {Sharing::kView, *first};
  ViewOf result;
  for (const SchemaReturn& returned : schema.returns) {
    for (size_t i = 0; !returned.alias.empty() && i < schema.parameters.size(); ++i) {
      const auto* operand = std::get_if<ValueId>(&node.args[i]);
      if (operand != nullptr && operand->valid() && schema.parameters[i].alias == returned.alias) {
        result = {Sharing::kView, *operand};
      }
    }
  }
  if (result.sharing == Sharing::kFresh) return result;
  const TensorType& from = builder.type(result.base);
  const TensorType& to = builder.type(node.outputs[0]);
  if (name == "to" || name == "contiguous") {
    // These return their operand itself, or else a copy.
    const bool is_copy = from.dtype != to.dtype || from.strides != to.strides;
    return is_copy ? ViewOf{} : result;
  }
  if (IsReshape(name) && name != "view" && name != "view_as" && !IsContiguous(from)) {
    result.sharing = Sharing::kMayBeView;
  }
  return result;
}

bool ReturnsOperand(const Node& node) {
  const std::string_view name = OpBaseName(node.op);
  return name == "to" || name == "contiguous" || name == "dropout" || name == "positive";
}

absl::StatusOr<ValueId> EmitViewInverse(GraphBuilder& builder, const Node& node, ValueId base,
                                        ValueId updated, const NodeContext& context) {
  const std::string_view name = OpBaseName(node.op);
  const TensorType& base_type = builder.type(base);
  const auto emit = [&](std::string_view op, std::vector<Argument> args) {
    TensorType type = builder.type(base);
    const std::string value_name = builder.name(base);
    return builder.Emit(std::string(op), std::move(args), value_name, std::move(type), context);
  };
  if (builder.type(updated).dtype != base_type.dtype) {
    return Unimplemented("a write through a view of another element type is not supported");
  }
  if (IsSameStorageIdentity(name)) return updated;
  if (name == "slice") {
    // Told as a write to a part, it would want all of the dimension in one place.
    if (IsWhole(node, base_type, builder.type(updated))) return updated;
    return emit("aten.slice_scatter.default",
                {base, updated, node.args[1], node.args[2], node.args[3], node.args[4]});
  }
  if (name == "select") {
    return emit("aten.select_scatter.default", {base, updated, node.args[1], node.args[2]});
  }
  if (name == "diagonal") {
    return emit("aten.diagonal_scatter.default",
                {base, updated, node.args[1], node.args[2], node.args[3]});
  }
  if (IsReshape(name)) return emit("aten.reshape.default", {updated, IntList(base_type.sizes)});
  if (name == "transpose") {
    return emit("aten.transpose.int", {updated, node.args[1], node.args[2]});
  }
  if (name == "t") return emit("aten.t.default", {updated});
  if (name == "permute") {
    ASSIGN_OR_RETURN(IntList inverse, InversePermutation(std::get<IntList>(node.args[1])));
    return emit("aten.permute.default", {updated, std::move(inverse)});
  }
  if (name == "unsqueeze") {
    const auto dim = DimAt(std::get<SymInt>(node.args[1]), base_type.rank() + 1);
    if (!dim.has_value()) return DimOutOfRange();
    return emit("aten.squeeze.dim", {updated, SymInt(*dim)});
  }
  if (node.op == "aten.squeeze.dim") {
    const auto dim = DimAt(std::get<SymInt>(node.args[1]), base_type.rank());
    if (!dim.has_value()) return DimOutOfRange();
    if (base_type.sizes[*dim].value != 1) return updated;
    return emit("aten.unsqueeze.default", {updated, SymInt(*dim)});
  }
  return Unimplemented("a write through the view that ", node.op,
                       " takes is not supported; write to the tensor itself, or out of place");
}

}  // namespace autosp
