#include "compiler/passes/number_arguments.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

bool IsOneOf(const Node& node, std::initializer_list<std::string_view> names) {
  if (!node.op.starts_with("aten.")) return false;
  return std::ranges::count(names, OpBaseName(node.op)) > 0;
}

}  // namespace

std::optional<double> LiteralArgument(const Node& node, size_t arg) {
  if (const auto* number = ArgumentAs<double>(node.args, arg)) return *number;
  const auto* number = ArgumentAs<SymInt>(node.args, arg);
  if (number == nullptr || !number->expr.empty()) return std::nullopt;
  return static_cast<double>(number->value);
}

std::vector<double> LiteralNumbers(const Node& node) {
  const OpSchema* schema = FindOpSchema(node.op);
  const auto takes_number = [&](size_t arg) {
    if (schema == nullptr || arg >= schema->parameters.size()) {
      return ArgumentAs<double>(node.args, arg) != nullptr;
    }
    const SchemaParameter& parameter = schema->parameters[arg];
    if (parameter.default_value && *parameter.default_value == node.args[arg]) return false;
    // A tensor that is a number, as the 2 of x * 2 is.
    return !parameter.is_list &&
           (parameter.type == SchemaType::kScalar || parameter.type == SchemaType::kFloat ||
            parameter.type == SchemaType::kTensor);
  };
  std::vector<double> numbers;
  for (size_t arg = 0; arg < node.args.size(); ++arg) {
    const std::optional<double> number = LiteralArgument(node, arg);
    if (number && takes_number(arg)) numbers.push_back(*number);
  }
  return numbers;
}

bool IsComparison(const Node& node) { return IsOneOf(node, {"lt", "le", "gt", "ge", "eq", "ne"}); }

bool IsEquality(const Node& node) { return IsOneOf(node, {"eq", "ne"}); }

bool IsBound(const Node& node) {
  return IsOneOf(node, {"lt", "le", "gt", "ge", "clamp", "clamp_max", "clamp_min"});
}

bool Floors(const Node& node) {
  const auto* mode = ArgumentAs<std::string>(node.args, 2);
  const bool is_division = node.op.starts_with("aten.div.") && mode != nullptr && *mode == "floor";
  return is_division || IsOneOf(node, {"floor_divide"});
}

bool Wraps(const Node& node) { return Floors(node) || IsOneOf(node, {"remainder", "fmod"}); }

std::optional<size_t> FillArgument(const Node& node) {
  if (node.op == "aten.full.default" || node.op == "aten.full_like.default") return 1;
  if (node.op == "aten.new_full.default") return 2;
  if (node.op == "aten.scalar_tensor.default") return 0;
  return std::nullopt;
}

bool MakesItsSizes(const Node& node) {
  return OperandsOf(node).empty() ||
         IsOneOf(node, {"new_empty", "new_full", "new_ones", "new_zeros"});
}

bool Scales(const Node& node) {
  return node.op == "aten.mul.Tensor" || node.op == "aten.div.Tensor";
}

}  // namespace autosp
