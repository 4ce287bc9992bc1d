#include "compiler/import/symbol_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/srepr.h"
#include "compiler/ir/linear_size.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

// The name in "Symbol('s38', positive=True, integer=True)"; empty for anything larger.
std::string_view BareSymbol(std::string_view srepr) {
  constexpr std::string_view kStart = "Symbol('";
  if (!srepr.starts_with(kStart) || srepr.find('(', kStart.size()) != std::string_view::npos) {
    return {};
  }
  srepr.remove_prefix(kStart.size());
  return srepr.substr(0, srepr.find('\''));
}

// The one symbol of an expression; empty where it has none or several.
std::string_view OnlySymbol(std::string_view srepr) {
  constexpr std::string_view kStart = "Symbol('";
  std::string_view found;
  for (size_t at = srepr.find(kStart); at != std::string_view::npos;
       at = srepr.find(kStart, at + kStart.size())) {
    const std::string_view rest = srepr.substr(at + kStart.size());
    const std::string_view name = rest.substr(0, rest.find('\''));
    if (!found.empty() && name != found) return {};
    found = name;
  }
  return found;
}

absl::Status DependsOnData(std::string_view symbol) {
  return Unimplemented(
      "a size depends on values of a tensor (symbol ", Absl(symbol),
      "), which a plan cannot know; instead of selecting rows (loss[mask], torch.where(mask)), "
      "keep all and leave some out by ignore_index, a weight or a mask, write a loop over experts "
      "in its dense or grouped form, or compute the size outside the model");
}

// Export and we round in other orders.
constexpr double kMaxRounding = 1e-12;

}  // namespace

absl::Status SymbolTable::CollectFrom(const exported::SymValue& value) {
  const std::string_view name = BareSymbol(value.expr);
  if (name.empty() && !value.expr.empty() && value.hint) derived_[value.expr] = *value.hint;
  if (name.empty() || !value.hint.has_value() || IsUnbackedSymbol(name)) return absl::OkStatus();
  const auto [known, is_new] = hints_.emplace(std::string(name), *value.hint);
  if (is_new || known->second == *value.hint) return absl::OkStatus();
  return DataLoss("symbol ", Absl(name), " has two values at export, ", known->second, " and ",
                  *value.hint, ", so the archive is damaged");
}

absl::Status SymbolTable::Collect(const exported::Graph& graph) {
  for (const auto& [name, meta] : graph.tensors) {
    for (const exported::SymValue& size : meta.sizes) RETURN_IF_ERROR(CollectFrom(size));
  }
  for (const auto& [name, value] : graph.sym_ints) RETURN_IF_ERROR(CollectFrom(value));
  for (const exported::Node& node : graph.nodes) {
    for (const exported::NamedArgument& input : node.inputs) {
      if (input.value.graph != nullptr) RETURN_IF_ERROR(Collect(*input.value.graph));
    }
  }
  for (const auto& [expr, at_export] : derived_) Solve(expr, at_export);
  return absl::OkStatus();
}

void SymbolTable::Solve(const std::string& srepr, int64_t at_export) {
  const std::string_view name = OnlySymbol(srepr);
  if (name.empty() || IsUnbackedSymbol(name) || hints_.contains(name)) return;
  const absl::StatusOr<SymExpr> expr = Parse(srepr);
  if (!expr.ok()) return;
  const auto linear = AsLinearSize(*expr, {{std::string(name), 0}});
  if (!linear || at_export < std::max<int64_t>(linear->constant, 0)) return;
  const int64_t rest = at_export - linear->constant;
  if (rest % linear->factor == 0) hints_.emplace(linear->symbol, rest / linear->factor);
}

absl::StatusOr<SymExpr> SymbolTable::Parse(const std::string& srepr) {
  const auto known = parsed_.find(srepr);
  if (known != parsed_.end()) return known->second;
  if (const std::string_view symbol = FindUnbackedSymbol(srepr); !symbol.empty()) {
    return DependsOnData(symbol);
  }
  ASSIGN_OR_RETURN(SymExpr expr, ParseSrepr(srepr));
  return parsed_.emplace(srepr, std::move(expr)).first->second;
}

absl::StatusOr<SymInt> SymbolTable::ToSymInt(const exported::SymValue& value) {
  if (value.expr.empty()) {
    if (!value.hint.has_value()) return DataLoss("a size has no value");
    return SymInt(*value.hint);
  }
  ASSIGN_OR_RETURN(SymExpr expr, Parse(value.expr));
  ASSIGN_OR_RETURN(const int64_t at_export, expr.Evaluate(hints_));
  if (value.hint.has_value() && *value.hint != at_export) {
    return DataLoss("size ", expr.ToString(), " is ", at_export, " at the exported sizes, but the ",
                    "archive says ", *value.hint);
  }
  if (expr.is_const()) return SymInt(at_export);
  return SymInt(at_export, std::move(expr));
}

absl::StatusOr<SymFloat> SymbolTable::ToSymFloat(const exported::SymValue& value) {
  if (value.expr.empty()) {
    if (!value.float_hint.has_value()) return DataLoss("a number has no value");
    return SymFloat{*value.float_hint, {}};
  }
  if (const std::string_view symbol = FindUnbackedSymbol(value.expr); !symbol.empty()) {
    return DependsOnData(symbol);
  }
  absl::StatusOr<NumberExpr> expr = ParseSreprNumber(value.expr);
  if (!expr.ok()) {
    return WithContext(
        expr.status(), "a number that is made of a size, other than by + - * / and ",
        "**, is not followed: make a tensor of the size, as by x.new_full((), size), ",
        "and compute with that");
  }
  SymFloat number = {.value = 0, .expr = *std::move(expr)};
  ASSIGN_OR_RETURN(number.value, number.expr.Evaluate(hints_));
  const double hint = value.float_hint.value_or(number.value);
  if (std::abs(hint - number.value) > kMaxRounding * std::abs(hint)) {
    return DataLoss("a number is ", number.value, " at the exported sizes, but the archive says ",
                    hint);
  }
  if (!number.expr.has_symbol()) number.expr = {};
  return number;
}

}  // namespace autosp
