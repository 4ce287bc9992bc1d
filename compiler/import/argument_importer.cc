#include "compiler/import/argument_importer.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

using exported::Item;
using exported::Tag;

std::string_view TypeWord(const SchemaParameter& parameter) {
  switch (parameter.type) {
    case SchemaType::kTensor:
      return parameter.is_list ? "a list of tensors" : "a tensor";
    case SchemaType::kInt:
      return parameter.is_list ? "a list of integers" : "an integer";
    case SchemaType::kFloat:
      return parameter.is_list ? "a list of numbers" : "a number";
    case SchemaType::kBool:
      return parameter.is_list ? "a list of booleans" : "true or false";
    case SchemaType::kString:
      return "a string";
    case SchemaType::kScalar:
      return parameter.is_list ? "a list of scalars" : "a scalar";
    case SchemaType::kScalarType:
      return "an element type";
    case SchemaType::kLayout:
      return "a layout";
    case SchemaType::kDevice:
      return "a device";
    case SchemaType::kMemoryFormat:
      return "a memory format";
    case SchemaType::kGenerator:
      return "a random generator";
  }
  return "";
}

class ArgumentImporter {
 public:
  ArgumentImporter(const SchemaParameter& parameter, const NameResolver& resolver)
      : parameter_(parameter), resolver_(resolver) {}

  absl::StatusOr<Argument> Import(const exported::Argument& given) {
    ASSIGN_OR_RETURN(Argument argument, Convert(given));
    if (Fits(argument)) return argument;
    return InvalidArgument(TypeWordOf(), " is expected");
  }

 private:
  std::string TypeWordOf() const { return std::string(TypeWord(parameter_)); }

  absl::StatusOr<Argument> Convert(const exported::Argument& given) {
    switch (given.tag) {
      case Tag::kNone:
        return Argument(None());
      case Tag::kTensor: {
        ASSIGN_OR_RETURN(const ValueId id, resolver_.tensor(given.text));
        return Argument(id);
      }
      case Tag::kTensors:
        return ConvertTensors(given.items);
      case Tag::kInt:
        return ConvertInt(SymInt(given.integer));
      case Tag::kFloat:
        return parameter_.is_list ? Argument(FloatList{given.number}) : Argument(given.number);
      case Tag::kInts:
      case Tag::kSymInts:
        return ConvertInts(given.items);
      case Tag::kFloats:
        return ConvertFloats(given.items);
      case Tag::kString:
        return Argument(given.text);
      case Tag::kSymInt: {
        ASSIGN_OR_RETURN(SymInt value, ConvertItem(given.items[0]));
        return ConvertInt(std::move(value));
      }
      case Tag::kSymFloat:
        return ConvertSymFloat(given.items[0]);
      case Tag::kBool:
        return parameter_.is_list ? Argument(BoolList{given.integer != 0})
                                  : Argument(given.integer != 0);
      case Tag::kBools:
        return ConvertBools(given.items);
      case Tag::kSymBool:
        if (given.items[0].name.empty()) return Argument(given.items[0].integer != 0);
        return Unimplemented(
            "a truth value that depends on dynamic sizes is not supported; export "
            "with that size fixed");
      case Tag::kScalarType:
      case Tag::kMemoryFormat:
      case Tag::kLayout:
      case Tag::kDevice:
        return ConvertEnum(given);
      case Tag::kComplex:
        return Unimplemented("a complex number is not supported here; use its real parts");
      case Tag::kGraph:
      case Tag::kUnsupported:
        break;
    }
    return Unimplemented("an argument of kind ", given.tag == Tag::kGraph ? "as_graph" : given.text,
                         " is not supported");
  }

  absl::StatusOr<SymInt> ConvertItem(const Item& item) {
    if (item.name.empty()) return SymInt(item.integer);
    return resolver_.sym_int(item.name);
  }

  absl::StatusOr<Argument> ConvertInt(SymInt value) {
    if (parameter_.is_list) return Argument(IntList{std::move(value)});
    if (parameter_.type != SchemaType::kFloat) return Argument(std::move(value));
    const auto number = static_cast<double>(value.value);
    if (value.expr.empty()) return Argument(number);
    return Argument(SymFloat{number, NumberExpr::Size(std::move(value.expr))});
  }

  absl::StatusOr<Argument> ConvertSymFloat(const Item& item) {
    if (item.name.empty()) return Argument(item.number);
    ASSIGN_OR_RETURN(SymFloat value, resolver_.sym_float(item.name));
    if (value.expr.empty()) return Argument(value.value);
    return Argument(std::move(value));
  }

  absl::StatusOr<Argument> ConvertTensors(const std::vector<Item>& items) {
    ValueList list;
    for (const Item& item : items) {
      if (item.name.empty()) {
        if (!parameter_.has_optional_elements) return InvalidArgument("a tensor is missing");
        list.push_back(ValueId());
        continue;
      }
      ASSIGN_OR_RETURN(const ValueId id, resolver_.tensor(item.name));
      list.push_back(id);
    }
    return Argument(std::move(list));
  }

  // An empty list comes without its type, so the schema gives it.
  absl::StatusOr<Argument> ConvertInts(const std::vector<Item>& items) {
    if (items.empty() && parameter_.type == SchemaType::kTensor) return Argument(ValueList());
    if (parameter_.type == SchemaType::kBool) return ConvertBools(items);
    IntList ints;
    FloatList floats;
    for (const Item& item : items) {
      ASSIGN_OR_RETURN(SymInt value, ConvertItem(item));
      floats.push_back(static_cast<double>(value.value));
      ints.push_back(std::move(value));
    }
    if (parameter_.type == SchemaType::kFloat) return Argument(std::move(floats));
    return Argument(std::move(ints));
  }

  absl::StatusOr<Argument> ConvertFloats(const std::vector<Item>& items) {
    FloatList floats;
    for (const Item& item : items) floats.push_back(item.number);
    return Argument(std::move(floats));
  }

  absl::StatusOr<Argument> ConvertBools(const std::vector<Item>& items) {
    BoolList bools;
    for (const Item& item : items) bools.push_back(item.integer != 0);
    return Argument(std::move(bools));
  }

  absl::StatusOr<Argument> ConvertEnum(const exported::Argument& given) {
    if (given.tag == Tag::kDevice) return Argument(EnumName{given.text});
    if (given.tag == Tag::kScalarType) {
      const std::optional<DType> dtype = exported::DTypeFromScalarType(given.integer);
      if (dtype.has_value()) return Argument(*dtype);
      return Unimplemented("element type ", Absl(exported::ScalarTypeName(given.integer)),
                           " is not supported");
    }
    const std::string_view name = given.tag == Tag::kLayout
                                      ? exported::LayoutName(given.integer)
                                      : exported::MemoryFormatName(given.integer);
    if (name.empty()) return InvalidArgument("enum number ", given.integer, " is unknown");
    if (given.tag == Tag::kLayout && name != "strided") {
      return Unimplemented("layout ", Absl(name), " is not supported; use dense tensors");
    }
    return Argument(EnumName{std::string(name)});
  }

  bool Fits(const Argument& argument) const {
    if (IsNone(argument))
      return parameter_.is_optional || parameter_.type == SchemaType::kGenerator;
    if (parameter_.is_list) {
      switch (parameter_.type) {
        case SchemaType::kTensor:
          return std::holds_alternative<ValueList>(argument);
        case SchemaType::kInt:
          return std::holds_alternative<IntList>(argument);
        case SchemaType::kFloat:
          return std::holds_alternative<FloatList>(argument);
        case SchemaType::kBool:
          return std::holds_alternative<BoolList>(argument);
        case SchemaType::kScalar:
          return std::holds_alternative<IntList>(argument) ||
                 std::holds_alternative<FloatList>(argument);
        default:
          return false;
      }
    }
    const bool is_number =
        std::holds_alternative<SymInt>(argument) || std::holds_alternative<double>(argument) ||
        std::holds_alternative<SymFloat>(argument) || std::holds_alternative<bool>(argument);
    switch (parameter_.type) {
      case SchemaType::kTensor:  // a number becomes a tensor without dimensions
        return is_number || std::holds_alternative<ValueId>(argument);
      case SchemaType::kInt:
        return std::holds_alternative<SymInt>(argument);
      case SchemaType::kFloat:
        return std::holds_alternative<double>(argument) ||
               std::holds_alternative<SymFloat>(argument);
      case SchemaType::kBool:
        return std::holds_alternative<bool>(argument);
      case SchemaType::kString:
        return std::holds_alternative<std::string>(argument);
      case SchemaType::kScalar:
        return is_number;
      case SchemaType::kScalarType:
        return std::holds_alternative<DType>(argument);
      case SchemaType::kLayout:
      case SchemaType::kDevice:
      case SchemaType::kMemoryFormat:
        return std::holds_alternative<EnumName>(argument);
      case SchemaType::kGenerator:
        return false;
    }
    return false;
  }

  const SchemaParameter& parameter_;
  const NameResolver& resolver_;
};

// The parameter that a given argument belongs to.
absl::StatusOr<size_t> FindParameter(const OpSchema& schema, const exported::NamedArgument& input,
                                     size_t position) {
  for (size_t i = 0; i < schema.parameters.size(); ++i) {
    if (schema.parameters[i].name == input.name) return i;
  }
  if (!input.name.empty() || input.is_keyword || position >= schema.parameters.size()) {
    return InvalidArgument("the op has no parameter ", input.name, " in the op table");
  }
  return position;
}

}  // namespace

absl::StatusOr<std::vector<Argument>> ImportArguments(
    const OpSchema& schema, const std::vector<exported::NamedArgument>& inputs,
    const NameResolver& resolver) {
  std::vector<std::optional<Argument>> given(schema.parameters.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSIGN_OR_RETURN(const size_t index, FindParameter(schema, inputs[i], i));
    const SchemaParameter& parameter = schema.parameters[index];
    if (given[index].has_value()) {
      return InvalidArgument("argument ", parameter.name, " is given twice");
    }
    ASSIGN_OR_RETURN(given[index], ArgumentImporter(parameter, resolver).Import(inputs[i].value),
                     "argument ", parameter.name);
  }
  std::vector<Argument> arguments;
  for (size_t i = 0; i < given.size(); ++i) {
    const SchemaParameter& parameter = schema.parameters[i];
    if (given[i].has_value()) {
      arguments.push_back(*std::move(given[i]));
    } else if (parameter.default_value.has_value()) {
      arguments.push_back(*parameter.default_value);
    } else if (parameter.is_optional) {
      arguments.push_back(None());
    } else {
      return InvalidArgument("argument ", parameter.name, " is missing and has no default");
    }
  }
  return arguments;
}

}  // namespace autosp
