#include "compiler/import/functionalizer.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/view_inverse.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

// In-place arithmetic computes in the promoted type, then stores in the type of its target.
constexpr std::string_view kPromotingOps[] = {
    "add",       "addcdiv", "addcmul", "atan2",        "clamp",       "clamp_max",  "clamp_min",
    "copysign",  "div",     "fmod",    "hypot",        "lerp",        "mul",        "pow",
    "remainder", "sub",     "xlogy",   "floor_divide", "bitwise_and", "bitwise_or", "bitwise_xor",
};
constexpr std::string_view kComparisons[] = {
    "all",         "any",        "eq",          "ge", "greater", "greater_equal", "gt",
    "isin",        "isneginf",   "isposinf",    "le", "less",    "less_equal",    "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "ne",      "not_equal",     "signbit"};

// Ops that change the shape or the strides of their operand in place, and the view that each takes;
// none: the shape need not be one that a view has.
struct InPlaceView {
  std::string_view op;
  std::string_view view;
};
constexpr InPlaceView kInPlaceViews[] = {
    {"aten.as_strided_.default", ""},
    {"aten.resize_.default", ""},
    {"aten.resize_as_.default", ""},
    {"aten.squeeze_.default", "aten.squeeze.default"},
    {"aten.squeeze_.dim", "aten.squeeze.dim"},
    {"aten.squeeze_.dims", "aten.squeeze.dims"},
    {"aten.swapaxes_.default", "aten.swapaxes.default"},
    {"aten.swapdims_.default", "aten.swapdims.default"},
    {"aten.t_.default", "aten.t.default"},
    {"aten.transpose_.default", "aten.transpose.int"},
    {"aten.unsqueeze_.default", "aten.unsqueeze.default"},
};

const char* KindName(InputKind kind) {
  switch (kind) {
    case InputKind::kUser:
      return "input";
    case InputKind::kParameter:
      return "parameter";
    case InputKind::kBuffer:
      return "constant";
  }
  return "";
}

template <typename List>
bool Contains(const List& list, std::string_view name) {
  return std::ranges::find(list, name) != std::end(list);
}

// The element type of the functional op's result.
DType ResultType(const GraphBuilder& builder, std::string_view functional,
                 const std::vector<Argument>& args) {
  const TensorType& target = builder.type(std::get<ValueId>(args[0]));
  const std::string_view name = OpBaseName(functional);
  if (Contains(kComparisons, name)) return DType::kBool;
  if (!Contains(kPromotingOps, name)) return target.dtype;
  DType result = target.dtype;
  for (const Argument& argument : args) {
    const auto* operand = std::get_if<ValueId>(&argument);
    if (operand == nullptr || !operand->valid()) continue;
    // A tensor without dimensions does not widen one with dimensions of the same kind.
    const TensorType& type = builder.type(*operand);
    if (type.rank() > 0 || target.rank() == 0) result = PromoteTypes(result, type.dtype);
  }
  return result;
}

// Strides of a new tensor in the order of dimensions that `type` has, as elementwise ops make them.
std::vector<int64_t> DenseStrides(const TensorType& type) {
  std::vector<size_t> order(type.sizes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // From the outermost dimension in; the order of equal strides is kept.
  std::ranges::stable_sort(order, std::greater<>(), [&](size_t i) { return type.strides[i]; });
  std::vector<int64_t> strides(type.sizes.size());
  int64_t stride = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = stride;
    stride *= std::max<int64_t>(type.sizes[order[i]].value, 1);
  }
  return strides;
}

void ReplaceOperand(Node& node, ValueId from, ValueId to) {
  for (Argument& argument : node.args) {
    ForEachValue(argument, [&](ValueId& id) {
      if (id == from) id = to;
    });
  }
}

}  // namespace

std::string FunctionalOpName(std::string_view name) {
  if (name == "aten.bernoulli_.float") return "aten.bernoulli.p";
  if (name == "aten.normal_.default") return "aten.normal_functional.default";
  const size_t overload_dot = name.rfind('.');
  const std::string_view base = name.substr(0, overload_dot);
  const std::string_view overload = name.substr(overload_dot);
  constexpr std::string_view kDunder = "aten.__i";
  // "aten.__iand__.Tensor" -> "aten.__and__.Tensor"
  if (base.starts_with(kDunder) && base.ends_with("__")) {
    return absl::StrCat("aten.__", std::string(base.substr(kDunder.size())), std::string(overload));
  }
  if (!base.ends_with('_') || base.ends_with("__")) return "";
  return absl::StrCat(std::string(base.substr(0, base.size() - 1)), std::string(overload));
}

bool IsInPlaceView(std::string_view name) {
  return std::ranges::find(kInPlaceViews, name, &InPlaceView::op) != std::end(kInPlaceViews);
}

absl::StatusOr<ValueId> Functionalizer::Current(ValueId id) {
  ValueId current = id;
  for (auto next = replaced_by_.find(current.index); next != replaced_by_.end();
       next = replaced_by_.find(current.index)) {
    current = next->second;
  }
  // The way is shortened, so that a thousand writes to one tensor stay cheap.
  while (id != current) id = std::exchange(replaced_by_.at(id.index), current);
  if (!is_stale_.contains(id.index)) return id;
  return Unimplemented("%", builder_.name(id), " is used after a tensor that it may share memory ",
                       "with was written in place; write out of place, or clone before the write");
}

void Functionalizer::AddView(ValueId value, View view) {
  views_of_[view.base.index].push_back(value);
  views_.insert_or_assign(value.index, std::move(view));
}

void Functionalizer::RecordViews(const Node& node, const OpSchema& schema) {
  if (node.outputs.empty()) return;
  const ViewOf sharing = FindSharing(builder_, node, schema);
  if (sharing.sharing == Sharing::kFresh) return;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    AddView(node.outputs[i], {sharing.base, node, i, sharing.sharing == Sharing::kMayBeView});
  }
}

absl::Status Functionalizer::CheckWritable(ValueId target, const NodeContext& context) const {
  const ValueId root = RootOf(target);
  if (builder_.IsInput(root) && !buffers_.contains(root.index)) {
    const GraphInput& input = *builder_.graph().FindInput(root);
    const std::string_view remedy =
        input.kind == InputKind::kBuffer
            ? ", a tensor of the module that is none of its buffers, would be lost in a "
              "checkpoint; make it one with register_buffer"
            : " is not supported; write to a clone of it";
    return Unimplemented("a write in place to ", KindName(input.kind), " ", input.name,
                         Absl(remedy));
  }
  // The value would change, but not what its gradient is.
  if (context.no_grad && builder_.requires_grad(target)) {
    return Unimplemented("a write in place under no_grad to %", builder_.name(target),
                         ", which carries a gradient, is not supported; write out of place");
  }
  return absl::OkStatus();
}

ValueId Functionalizer::RootOf(ValueId value) const {
  for (auto view = views_.find(value.index); view != views_.end();
       view = views_.find(value.index)) {
    value = view->second.base;
  }
  return value;
}

bool Functionalizer::HasOtherNames(ValueId value) const {
  const auto is_itself = [](const View& view) { return ReturnsOperand(view.node); };
  const auto own = views_.find(value.index);
  if (own != views_.end() && is_itself(own->second)) return true;
  const auto others = views_of_.find(value.index);
  return others != views_of_.end() && std::ranges::any_of(others->second, [&](ValueId other) {
           return is_itself(views_.at(other.index));
         });
}

absl::StatusOr<ValueId> Functionalizer::Reshape(const OpSchema& schema, std::vector<Argument> args,
                                                std::string_view result_name, TensorType type,
                                                const NodeContext& context) {
  const std::string_view view =
      std::ranges::find(kInPlaceViews, schema.name, &InPlaceView::op)->view;
  const OpSchema* view_schema = FindOpSchema(view);
  if (view_schema == nullptr || !std::holds_alternative<ValueId>(args[0])) {
    return Unimplemented("it changes the shape of its argument in place, which is not supported; ",
                         "use the op that returns a new tensor");
  }
  const ValueId target = std::get<ValueId>(args[0]);
  RETURN_IF_ERROR(CheckWritable(target, context));
  if (const ValueId root = RootOf(target); builder_.IsInput(root)) {
    return Unimplemented("it changes the shape of buffer ", builder_.graph().FindInput(root)->name,
                         " in place, which is not supported; use the op that returns a new tensor");
  }
  if (HasOtherNames(target)) {
    return Unimplemented("it changes the shape of %", builder_.name(target),
                         " in place, which has other names in the model; use the op that returns ",
                         "a new tensor");
  }
  Node node{.op = std::string(view),
            .args = std::move(args),
            .outputs = {builder_.AddValue(result_name, std::move(type))},
            .source = context.source,
            .no_grad = context.no_grad};
  builder_.Append(node);
  RecordViews(node, *view_schema);
  reshaped_by_[RootOf(target).index] = schema.name;
  replaced_by_[target.index] = node.outputs[0];
  return node.outputs[0];
}

absl::StatusOr<ValueId> Functionalizer::EmitCopy(ValueId target, ValueId source,
                                                 std::string_view name,
                                                 const NodeContext& context) {
  TensorType type = builder_.type(target);
  if (builder_.type(source).rank() > type.rank()) {
    return DataLoss("a tensor of ", builder_.type(source).rank(),
                    " dimensions is copied to one of ", type.rank());
  }
  if (builder_.type(source).dtype != type.dtype) {
    source = builder_.EmitCast(source, type.dtype, context);
  }
  if (builder_.type(source).sizes != type.sizes) {
    TensorType expanded = type;
    // Strides of an expansion: 0 where the source has one element or no dimension.
    const TensorType& from = builder_.type(source);
    const size_t num_new = type.sizes.size() - from.sizes.size();
    for (size_t i = 0; i < type.sizes.size(); ++i) {
      const bool is_kept = i >= num_new && from.sizes[i - num_new] == type.sizes[i];
      expanded.strides[i] = is_kept ? from.strides[i - num_new] : 0;
    }
    source = builder_.Emit("aten.expand.default", {source, IntList(type.sizes), false}, name,
                           std::move(expanded), context);
  }
  // A clone, because a later write to the target must not change the source.
  type.strides = ContiguousStrides(SizeValues(type));
  return builder_.Emit("aten.clone.default", {source, EnumName{"contiguous_format"}}, name,
                       std::move(type), context);
}

absl::StatusOr<ValueId> Functionalizer::EmitFunctional(const OpSchema& schema,
                                                       std::vector<Argument> args,
                                                       std::string_view result_name,
                                                       const NodeContext& context) {
  const ValueId target = std::get<ValueId>(args[0]);
  const std::string functional = FunctionalOpName(schema.name);
  const auto* source = args.size() > 1 ? std::get_if<ValueId>(&args[1]) : nullptr;
  if (functional == "aten.copy.default" && source != nullptr) {
    return EmitCopy(target, *source, result_name, context);
  }
  const OpSchema* functional_schema = FindOpSchema(functional);
  if (functional_schema == nullptr || functional_schema->parameters.size() != args.size()) {
    return Unimplemented("the in-place op has no functional form in the op table");
  }
  const TensorType target_type = builder_.type(target);
  TensorType type = target_type;
  type.dtype = ResultType(builder_, functional, args);
  type.strides = DenseStrides(target_type);
  const DType computed = type.dtype;
  ValueId result =
      builder_.Emit(functional, std::move(args), result_name, std::move(type), context);
  if (computed != target_type.dtype) result = builder_.EmitCast(result, target_type.dtype, context);
  return result;
}

absl::StatusOr<ValueId> Functionalizer::Write(const OpSchema& schema,
                                              const std::vector<Argument>& args,
                                              std::string_view result_name,
                                              const NodeContext& context) {
  if (!schema.parameters[0].is_written || FunctionalOpName(schema.name).empty()) {
    return Unimplemented("it writes to its argument ", schema.written()->name,
                         ", which is not supported; use an op that returns a new tensor");
  }
  if (!std::holds_alternative<ValueId>(args[0])) return DataLoss("a number is written to");
  const ValueId target = std::get<ValueId>(args[0]);
  RETURN_IF_ERROR(CheckWritable(target, context));
  RETURN_IF_ERROR(CheckNotReshaped(target));
  ASSIGN_OR_RETURN(const ValueId updated, EmitFunctional(schema, args, result_name, context));
  RETURN_IF_ERROR(Replace(target, updated, context));
  return Current(target);
}

// Ops store in the type of `out` what they compute, some of them in that type and some in that of
// their operands. So numbers of one type go in and come out, or truth values come out.
absl::Status Functionalizer::CheckResult(const OpSchema& returning,
                                         const std::vector<Argument>& args, const TensorType& type,
                                         const TensorType& target) const {
  if (type.dtype != target.dtype) return DataLoss("the result is not of the type of its memory");
  if (type.sizes != target.sizes) {
    return Unimplemented("it changes the shape of the tensor given as out, ",
                         PrintTensorType(target), ", to that of its result, ",
                         PrintTensorType(type), "; give one of that shape, or none");
  }
  const bool is_truth = Contains(kComparisons, OpBaseName(returning.name));
  if (is_truth && type.dtype == DType::kBool) return absl::OkStatus();
  bool has_number = false;
  bool is_of_one_type = !is_truth && IsFloating(type.dtype);
  for (const Argument& argument : args) {
    const auto* dtype = std::get_if<DType>(&argument);
    is_of_one_type = is_of_one_type && (dtype == nullptr || *dtype == type.dtype);
    ForEachValue(argument, [&](ValueId id) {
      if (!IsFloating(builder_.type(id).dtype)) return;
      has_number = true;
      is_of_one_type = is_of_one_type && builder_.type(id).dtype == type.dtype;
    });
  }
  if (has_number && is_of_one_type) return absl::OkStatus();
  return Unimplemented("a result that is written to a tensor given as out, of type ",
                       Absl(DTypeName(type.dtype)),
                       ", is supported for operands of that type only; use the result, and copy_");
}

absl::StatusOr<ValueId> Functionalizer::WriteResult(const OpSchema& returning,
                                                    std::vector<Argument> args, ValueId target,
                                                    std::string_view result_name, TensorType type,
                                                    const NodeContext& context) {
  RETURN_IF_ERROR(CheckWritable(target, context));
  RETURN_IF_ERROR(CheckNotReshaped(target));
  RETURN_IF_ERROR(CheckResult(returning, args, type, builder_.type(target)));
  type.strides = DenseStrides(builder_.type(target));
  const ValueId result =
      builder_.Emit(returning.name, std::move(args), result_name, std::move(type), context);
  if (builder_.requires_grad(result)) {
    return DataLoss("a gradient is asked of what is written to a tensor given as out");
  }
  RETURN_IF_ERROR(Replace(target, result, context));
  return Current(target);
}

absl::Status Functionalizer::CheckNotReshaped(ValueId target) const {
  const auto reshaped = reshaped_by_.find(RootOf(target).index);
  if (reshaped == reshaped_by_.end()) return absl::OkStatus();
  return Unimplemented("a write in place to what shares memory with a tensor whose shape ",
                       reshaped->second, " changed in place is not supported; use the op that ",
                       "returns a new tensor there, or write to a clone");
}

absl::Status Functionalizer::Replace(ValueId target, ValueId updated, const NodeContext& context) {
  RETURN_IF_ERROR(CheckWritable(target, context));
  // Carry the write back to the tensor that is shown, which is none of the graph's inputs.
  ValueId written = target;
  for (auto view = views_.find(written.index); view != views_.end();
       view = views_.find(written.index)) {
    if (view->second.may_copy) {
      MarkStale(RootOf(written), written);
      break;
    }
    ASSIGN_OR_RETURN(updated, WriteBack(view->second, updated, context));
    written = view->second.base;
  }
  replaced_by_[written.index] = updated;
  TakeViewsAgain(written, updated);
  return absl::OkStatus();
}

absl::StatusOr<ValueId> Functionalizer::WriteBack(const View& view, ValueId updated,
                                                  const NodeContext& context) {
  if (view.node.outputs.size() != 1) {
    return Unimplemented("a write through one of the views that ", view.node.op,
                         " takes is not supported; write out of place");
  }
  return EmitViewInverse(builder_, view.node, view.base, updated, context);
}

void Functionalizer::TakeViewsAgain(ValueId old_base, ValueId new_base) {
  // Not recursive: views of views can go deep.
  std::vector<std::pair<ValueId, ValueId>> changed = {{old_base, new_base}};
  for (size_t i = 0; i < changed.size(); ++i) {
    const auto [before, after] = changed[i];
    const std::vector<ValueId> views = views_of_[before.index];
    for (const ValueId view : views) {
      // What stands for a view that was taken again is in the list itself.
      if (replaced_by_.contains(view.index) || is_stale_.contains(view.index)) continue;
      if (views_.at(view.index).may_copy) {
        MarkStale(view);
      } else {
        changed.emplace_back(view, TakeViewAgain(view, after));
      }
    }
  }
}

ValueId Functionalizer::TakeViewAgain(ValueId view_value, ValueId new_base) {
  View view = views_.at(view_value.index);
  ReplaceOperand(view.node, view.base, new_base);
  view.base = new_base;
  for (ValueId& output : view.node.outputs) {
    output = builder_.AddValue(builder_.name(output), TensorType(builder_.type(output)));
  }
  builder_.Append(view.node);
  const ValueId again = view.node.outputs[view.output_index];
  AddView(again, std::move(view));
  replaced_by_[view_value.index] = again;
  return again;
}

void Functionalizer::MarkStale(ValueId value, ValueId kept) {
  std::vector<ValueId> stale = {value};
  const auto add = [&](ValueId next) {
    if (next != kept && !is_stale_.contains(next.index)) stale.push_back(next);
  };
  for (size_t i = 0; i < stale.size(); ++i) {
    const ValueId each = stale[i];
    is_stale_[each.index] = true;
    for (const ValueId nested : views_of_[each.index]) add(nested);
    if (const auto next = replaced_by_.find(each.index); next != replaced_by_.end()) {
      add(next->second);
    }
  }
}

}  // namespace autosp
