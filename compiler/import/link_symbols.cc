#include "compiler/import/link_symbols.h"

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace autosp {
namespace {

SymExpr ExprOf(const SymInt& size) {
  return size.expr.empty() ? SymExpr::Const(size.value) : size.expr;
}

}  // namespace

absl::Status SymbolLinks::Bind(const SymInt& from, const SymInt& to) {
  if (from.value != to.value) {
    return InvalidArgument("a size is ", from.value, ", and ", to.value, " where it comes from");
  }
  if (from.expr.empty()) return absl::OkStatus();
  const std::string* symbol = from.expr.symbol();
  if (symbol == nullptr) {
    derived_.emplace_back(from.expr, ExprOf(to));
    return absl::OkStatus();
  }
  const auto [found, is_new] = replacements_.emplace(*symbol, ExprOf(to));
  if (is_new || found->second == ExprOf(to)) return absl::OkStatus();
  return InvalidArgument("size ", *symbol, " is both ", found->second.ToString(), " and ",
                         ExprOf(to).ToString(), " of the archives before");
}

// s5 + 4 that is s38 + 4 says that s5 is s38.
void SymbolLinks::Solve(const SymBindings& part, const SymBindings& model) {
  for (const auto& [from, to] : derived_) {
    for (const auto& [name, hint] : part) {
      if (replacements_.contains(name)) continue;
      for (const auto& [candidate, value] : model) {
        std::map<std::string, SymExpr> tried = replacements_;
        tried.emplace(name, SymExpr::Symbol(candidate));
        if (hint != value || !(from.Substitute(tried) == to)) continue;
        if (from.Substitute(replacements_) == from.Substitute(tried)) continue;  // has no `name`
        replacements_ = std::move(tried);
        break;
      }
    }
  }
}

absl::Status SymbolLinks::Finish(const SymBindings& part, SymBindings* model) {
  Solve(part, *model);
  for (const auto& [name, hint] : part) {
    if (replacements_.contains(name)) continue;
    std::string free = name;
    for (int i = 1; model->contains(free); ++i) free = absl::StrCat(name, "_", i);
    model->emplace(free, hint);
    replacements_.emplace(name, SymExpr::Symbol(free));
  }
  for (const auto& [from, to] : derived_) {
    const SymExpr applied = from.Substitute(replacements_);
    if (applied == to) continue;
    return InvalidArgument("size ", from.ToString(), " is ", applied.ToString(), ", and ",
                           to.ToString(), " where it comes from");
  }
  return absl::OkStatus();
}

SymInt SymbolLinks::Apply(const SymInt& size) const {
  const SymExpr expr = size.expr.Substitute(replacements_);
  return expr.empty() || expr.is_const() ? SymInt(size.value) : SymInt(size.value, expr);
}

TensorType SymbolLinks::Apply(TensorType type) const {
  for (SymInt& size : type.sizes) size = Apply(size);
  return type;
}

Argument SymbolLinks::Apply(Argument argument) const {
  if (auto* size = std::get_if<SymInt>(&argument)) {
    *size = Apply(*size);
  } else if (auto* list = std::get_if<IntList>(&argument)) {
    for (SymInt& each : *list) each = Apply(each);
  } else if (auto* number = std::get_if<SymFloat>(&argument)) {
    number->expr = number->expr.Substitute(replacements_);
    if (!number->expr.has_symbol()) return number->value;
  }
  return argument;
}

}  // namespace autosp
