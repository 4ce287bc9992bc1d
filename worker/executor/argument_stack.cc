#include "worker/executor/argument_stack.h"

#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

using c10::IValue;
using c10::TypeKind;

// Optional[T] -> T.
const c10::Type& WithoutOptional(const c10::Type& type) {
  if (const auto* optional = type.castRaw<c10::OptionalType>()) return *optional->getElementType();
  return type;
}

bool IsListOf(const c10::Type& type, TypeKind element) {
  const auto* list = type.castRaw<c10::ListType>();
  return list != nullptr && WithoutOptional(*list->getElementType()).kind() == element;
}

bool IsDevice(const c10::Argument& parameter) {
  return WithoutOptional(*parameter.type()).kind() == TypeKind::DeviceObjType;
}

// A number where a tensor is expected takes part in type promotion as Python's numbers do.
IValue WrappedNumber(const at::Scalar& scalar) {
  at::ScalarType dtype = at::kDouble;
  if (scalar.isIntegral(false)) dtype = at::kLong;
  if (scalar.isBoolean()) dtype = at::kBool;
  at::Tensor tensor = at::scalar_tensor(scalar, dtype);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

IValue FromInt(const c10::Type& type, const c10::Argument& parameter, int64_t value) {
  switch (type.kind()) {
    case TypeKind::TensorType:
      return WrappedNumber(value);
    case TypeKind::FloatType:
      return static_cast<double>(value);
    case TypeKind::BoolType:
      return value != 0;
    case TypeKind::ListType: {
      // `int[2] stride=1` takes one number for all.
      const auto count = static_cast<size_t>(parameter.N().value_or(1));
      if (IsListOf(type, TypeKind::FloatType)) {
        return std::vector<double>(count, static_cast<double>(value));
      }
      return std::vector<int64_t>(count, value);
    }
    default:
      return value;
  }
}

IValue FromDouble(const c10::Type& type, double value) {
  return type.kind() == TypeKind::TensorType ? WrappedNumber(value) : IValue(value);
}

IValue FromBool(const c10::Type& type, bool value) {
  if (type.kind() == TypeKind::TensorType) return WrappedNumber(value);
  return type.kind() == TypeKind::IntType ? IValue(static_cast<int64_t>(value)) : IValue(value);
}

// Lists of numbers; an empty list takes its type from the schema alone.
IValue FromInts(const c10::Type& type, const IntList& values) {
  if (IsListOf(type, TypeKind::TensorType)) return c10::List<at::Tensor>();
  if (IsListOf(type, TypeKind::FloatType)) {
    std::vector<double> list;
    for (const SymInt& value : values) list.push_back(static_cast<double>(value.value));
    return list;
  }
  if (IsListOf(type, TypeKind::BoolType)) {
    c10::List<bool> list;
    for (const SymInt& value : values) list.push_back(value.value != 0);
    return list;
  }
  std::vector<int64_t> list;
  for (const SymInt& value : values) list.push_back(value.value);
  return list;
}

absl::StatusOr<IValue> FromEnum(std::string_view name) {
  if (name == "strided") return static_cast<int64_t>(c10::Layout::Strided);
  if (name == "contiguous_format") return static_cast<int64_t>(c10::MemoryFormat::Contiguous);
  if (name == "preserve_format") return static_cast<int64_t>(c10::MemoryFormat::Preserve);
  if (name == "channels_last") return static_cast<int64_t>(c10::MemoryFormat::ChannelsLast);
  if (name == "channels_last_3d") return static_cast<int64_t>(c10::MemoryFormat::ChannelsLast3d);
  return InvalidArgument("'", std::string(name), "' is no layout or memory format known here");
}

struct LiteralConverter {
  const c10::Argument& parameter;
  const c10::Type& type;

  absl::StatusOr<IValue> operator()(const None&) const { return IValue(); }
  absl::StatusOr<IValue> operator()(const SymInt& value) const {
    return FromInt(type, parameter, value.value);
  }
  absl::StatusOr<IValue> operator()(double value) const { return FromDouble(type, value); }
  absl::StatusOr<IValue> operator()(const SymFloat& value) const {
    return FromDouble(type, value.value);
  }
  absl::StatusOr<IValue> operator()(bool value) const { return FromBool(type, value); }
  absl::StatusOr<IValue> operator()(const IntList& values) const { return FromInts(type, values); }
  absl::StatusOr<IValue> operator()(const FloatList& values) const { return IValue(values); }
  absl::StatusOr<IValue> operator()(const BoolList& values) const {
    c10::List<bool> list;
    for (const bool value : values) list.push_back(value);
    return IValue(std::move(list));
  }
  absl::StatusOr<IValue> operator()(const std::string& value) const { return IValue(value); }
  absl::StatusOr<IValue> operator()(DType dtype) const {
    return IValue(static_cast<int64_t>(ToScalarType(dtype)));
  }
  absl::StatusOr<IValue> operator()(const EnumName& value) const { return FromEnum(value.name); }
  absl::StatusOr<IValue> operator()(ValueId) const { return Internal("not a literal"); }
  absl::StatusOr<IValue> operator()(const ValueList&) const { return Internal("not a literal"); }
};

}  // namespace

absl::StatusOr<ArgumentStack> ArgumentStack::Make(const c10::FunctionSchema& schema,
                                                  const std::vector<Argument>& args,
                                                  c10::Device device) {
  const auto& parameters = schema.arguments();
  if (args.size() > parameters.size()) {
    return InvalidArgument(args.size(), " arguments for ", parameters.size(), " parameters of ",
                           schema.name());
  }
  ArgumentStack result;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (IsDevice(parameters[i])) {
      result.literals_.emplace_back(device);
    } else if (i < args.size()) {
      RETURN_IF_ERROR(
          WithContext(result.Add(parameters[i], args[i]), "argument '", parameters[i].name(), "'"));
    } else if (parameters[i].default_value().has_value()) {
      result.literals_.push_back(*parameters[i].default_value());
    } else {
      return InvalidArgument("argument '", parameters[i].name(), "' of ", schema.name(),
                             " is missing and has no default");
    }
  }
  return result;
}

absl::Status ArgumentStack::Add(const c10::Argument& parameter, const Argument& argument) {
  const c10::Type& type = WithoutOptional(*parameter.type());
  const size_t position = literals_.size();
  if (const auto* id = std::get_if<ValueId>(&argument)) {
    if (IsListOf(type, TypeKind::TensorType)) {
      return InvalidArgument("expects a list of tensors, not one");
    }
    slots_.push_back({position, SlotKind::kTensor, {*id}});
    literals_.emplace_back();
    return absl::OkStatus();
  }
  if (const auto* list = std::get_if<ValueList>(&argument)) {
    if (!IsListOf(type, TypeKind::TensorType)) return InvalidArgument("does not expect tensors");
    const auto& element = *type.castRaw<c10::ListType>()->getElementType();
    const bool is_optional = element.kind() == TypeKind::OptionalType;
    slots_.push_back(
        {position, is_optional ? SlotKind::kOptionalTensorList : SlotKind::kTensorList, *list});
    literals_.emplace_back();
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(IValue literal, std::visit(LiteralConverter{parameter, type}, argument));
  literals_.push_back(std::move(literal));
  return absl::OkStatus();
}

absl::Status ArgumentStack::Push(absl::Span<const at::Tensor> tensors,
                                 torch::jit::Stack& stack) const {
  const size_t base = stack.size();
  stack.insert(stack.end(), literals_.begin(), literals_.end());
  for (const Slot& slot : slots_) {
    for (const ValueId id : slot.values) {
      if (id.valid() && !tensors[id.index].defined()) {
        return Internal("operand ", id.index, " is not live");
      }
    }
    IValue& value = stack[base + slot.position];
    if (slot.kind == SlotKind::kTensor) {
      value = tensors[slot.values[0].index];
    } else if (slot.kind == SlotKind::kTensorList) {
      c10::List<at::Tensor> list;
      for (const ValueId id : slot.values) list.push_back(tensors[id.index]);
      value = std::move(list);
    } else {
      c10::List<std::optional<at::Tensor>> list;
      for (const ValueId id : slot.values) {
        list.push_back(id.valid() ? std::optional(tensors[id.index]) : std::nullopt);
      }
      value = std::move(list);
    }
  }
  return absl::OkStatus();
}

}  // namespace autosp
