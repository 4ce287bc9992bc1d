#include "compiler/analysis/index_expr.h"

#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

IndexExprPtr MakeAffine(Affine affine) {
  std::erase_if(affine.terms, [](const auto& term) { return term.second == 0; });
  auto expr = std::make_shared<IndexExpr>();
  expr->kind = IndexExpr::Kind::kAffine;
  expr->affine = std::move(affine);
  return expr;
}

IndexExprPtr Constant(int64_t value) { return MakeAffine({.constant = value, .terms = {}}); }

IndexExprPtr Unknown() {
  static const IndexExprPtr& unknown = *new IndexExprPtr(std::make_shared<IndexExpr>());
  return unknown;
}

bool IsAffine(const IndexExprPtr& expr) { return expr->kind == IndexExpr::Kind::kAffine; }
bool IsConstant(const IndexExprPtr& expr) { return IsAffine(expr) && expr->affine.terms.empty(); }
bool IsUnknown(const IndexExprPtr& expr) { return expr->kind == IndexExpr::Kind::kUnknown; }

// a + scale * b
IndexExprPtr Combine(const IndexExprPtr& a, const IndexExprPtr& b, int64_t scale) {
  if (!IsAffine(a) || !IsAffine(b)) return Unknown();
  Affine sum = a->affine;
  sum.constant += scale * b->affine.constant;
  for (const auto& [key, coefficient] : b->affine.terms) sum.terms[key] += scale * coefficient;
  return MakeAffine(std::move(sum));
}

IndexExprPtr Logical(IndexExpr::Kind kind, std::vector<IndexExprPtr> operands) {
  auto expr = std::make_shared<IndexExpr>();
  expr->kind = kind;
  expr->operands = std::move(operands);
  return expr;
}

IndexExprPtr AndOr(bool is_and, const IndexExprPtr& a, const IndexExprPtr& b);

// Negations are moved inwards, so that conjuncts can be read off.
IndexExprPtr Not(const IndexExprPtr& a) {
  if (IsConstant(a)) return Constant(a->affine.constant == 0 ? 1 : 0);
  switch (a->kind) {
    case IndexExpr::Kind::kUnknown:
      return Unknown();
    case IndexExpr::Kind::kNot:
      return a->operands[0];
    case IndexExpr::Kind::kLessEqual: {
      // Of integers: not (x <= 0) is 1 - x <= 0.
      auto expr = std::make_shared<IndexExpr>();
      expr->kind = IndexExpr::Kind::kLessEqual;
      expr->affine = Combine(Constant(1), MakeAffine(a->affine), -1)->affine;
      return expr;
    }
    case IndexExpr::Kind::kAnd:
    case IndexExpr::Kind::kOr: {
      IndexExprPtr result = Not(a->operands[0]);
      for (size_t i = 1; i < a->operands.size(); ++i) {
        result = AndOr(a->kind == IndexExpr::Kind::kOr, result, Not(a->operands[i]));
      }
      return result;
    }
    default:
      return Logical(IndexExpr::Kind::kNot, {a});
  }
}

// Flattened and without duplicates, so that the conjuncts of a mask can be read off.
IndexExprPtr AndOr(bool is_and, const IndexExprPtr& a, const IndexExprPtr& b) {
  const IndexExpr::Kind kind = is_and ? IndexExpr::Kind::kAnd : IndexExpr::Kind::kOr;
  std::vector<IndexExprPtr> parts;
  std::set<std::string> seen;
  for (const IndexExprPtr& side : {a, b}) {
    if (IsConstant(side)) {
      const bool value = side->affine.constant != 0;
      if (value != is_and) return Constant(value ? 1 : 0);
      continue;
    }
    const bool same_kind = side->kind == kind;
    for (const IndexExprPtr& part : same_kind ? side->operands : std::vector{side}) {
      if (IsUnknown(part) || seen.insert(part->ToString()).second) parts.push_back(part);
    }
  }
  if (parts.empty()) return Constant(is_and ? 1 : 0);
  return parts.size() == 1 ? parts[0] : Logical(kind, std::move(parts));
}

std::string IndexName(size_t dim) { return absl::StrCat("i", dim); }

}  // namespace

IndexExprPtr ConstantIndex(int64_t value) { return Constant(value); }
IndexExprPtr UnknownIndex() { return Unknown(); }
IndexExprPtr NotOf(const IndexExprPtr& a) { return Not(a); }
IndexExprPtr AndOf(const IndexExprPtr& a, const IndexExprPtr& b) { return AndOr(true, a, b); }
IndexExprPtr OrOf(const IndexExprPtr& a, const IndexExprPtr& b) { return AndOr(false, a, b); }

std::string IndexExpr::ToString() const {
  std::string text;
  const auto print_affine = [&] {
    absl::StrAppend(&text, affine.constant);
    for (const auto& [key, coefficient] : affine.terms) {
      absl::StrAppend(&text, " + ", coefficient, "*", key);
    }
  };
  switch (kind) {
    case Kind::kAffine:
      print_affine();
      return text;
    case Kind::kLessEqual:
      print_affine();
      return text + " <= 0";
    case Kind::kEqual:
      print_affine();
      return text + " == 0";
    case Kind::kUnknown:
      return "unknown";
    default:
      break;
  }
  text = kind == Kind::kAnd ? "and(" : kind == Kind::kOr ? "or(" : "not(";
  for (const IndexExprPtr& operand : operands) absl::StrAppend(&text, operand->ToString(), ";");
  return text + ")";
}

IndexEvaluator::IndexEvaluator(const Graph& graph)
    : graph_(graph), definer_(DefiningNodes(graph)) {}

IndexExprPtr IndexEvaluator::Atom(const std::string& key, int64_t low, int64_t high) {
  ranges_[key] = {low, high};
  return MakeAffine({.constant = 0, .terms = {{key, 1}}});
}

IndexEvaluator::Indices IndexEvaluator::IndicesOf(ValueId value) {
  Indices at;
  const TensorType& type = graph_.type(value);
  for (size_t i = 0; i < type.sizes.size(); ++i) {
    at.push_back(type.sizes[i].value == 1 ? Constant(0)
                                          : Atom(IndexName(i), 0, type.sizes[i].value - 1));
  }
  return at;
}

IndexExprPtr IndexEvaluator::Element(ValueId value) {
  steps_ = 0;
  return Evaluate(value, IndicesOf(value));
}

std::optional<ZeroOr> IndexEvaluator::FloatElement(ValueId value) {
  steps_ = 0;
  return EvaluateFloat(value, IndicesOf(value));
}

bool IndexEvaluator::Range(const Affine& affine, int64_t* low, int64_t* high) const {
  *low = *high = affine.constant;
  for (const auto& [key, coefficient] : affine.terms) {
    const auto range = ranges_.find(key);
    if (range == ranges_.end()) return false;
    const auto [first, last] = range->second;
    *low += coefficient * (coefficient > 0 ? first : last);
    *high += coefficient * (coefficient > 0 ? last : first);
  }
  return true;
}

const Lookup* IndexEvaluator::FindLookup(const std::string& atom) const {
  const auto found = lookups_.find(atom);
  return found == lookups_.end() ? nullptr : &found->second;
}

// A look-up into data that is not known here: equal look-ups are equal, nothing more.
IndexExprPtr IndexEvaluator::Opaque(ValueId value, const Indices& at) {
  if (IsFloating(graph_.type(value).dtype)) return Unknown();
  std::string key = graph_.value(value).name + "[";
  for (const IndexExprPtr& index : at) {
    if (IsUnknown(index)) return Unknown();
    absl::StrAppend(&key, index->ToString(), ",");
  }
  key += "]";
  lookups_.try_emplace(key, Lookup{.value = value, .at = at});
  if (graph_.type(value).dtype == DType::kBool) return Atom(key, 0, 1);
  return MakeAffine({.constant = 0, .terms = {{key, 1}}});
}

IndexExprPtr IndexEvaluator::LessEqual(const IndexExprPtr& a, const IndexExprPtr& b,
                                       int64_t slack) {
  const IndexExprPtr difference = Combine(a, b, -1);
  if (IsUnknown(difference)) return Unknown();
  Affine affine = difference->affine;
  affine.constant -= slack;
  int64_t low = 0;
  int64_t high = 0;
  if (Range(affine, &low, &high)) {
    if (high <= 0) return Constant(1);
    if (low > 0) return Constant(0);
  }
  auto expr = std::make_shared<IndexExpr>();
  expr->kind = IndexExpr::Kind::kLessEqual;
  expr->affine = std::move(affine);
  return expr;
}

IndexExprPtr IndexEvaluator::Equal(const IndexExprPtr& a, const IndexExprPtr& b) {
  const IndexExprPtr difference = Combine(a, b, -1);
  if (IsUnknown(difference)) return Unknown();
  if (IsConstant(difference)) return Constant(difference->affine.constant == 0 ? 1 : 0);
  int64_t low = 0;
  int64_t high = 0;
  if (Range(difference->affine, &low, &high) && (low > 0 || high < 0)) return Constant(0);
  auto expr = std::make_shared<IndexExpr>();
  expr->kind = IndexExpr::Kind::kEqual;
  expr->affine = difference->affine;
  // One sign for both directions: x - y == 0 and y - x == 0 are the same.
  if (!expr->affine.terms.empty() && expr->affine.terms.begin()->second < 0) {
    expr->affine.constant = -expr->affine.constant;
    for (auto& [key, coefficient] : expr->affine.terms) coefficient = -coefficient;
  }
  return expr;
}

IndexExprPtr IndexEvaluator::Evaluate(ValueId value, const Indices& at) {
  if (++steps_ > kMaxSteps || depth_ > kMaxDepth) return Unknown();
  const int32_t node = definer_[value.index];
  if (IsFloating(graph_.type(value).dtype)) return Unknown();  // rounding is not affine
  // Narrow integers wrap around, which is not affine.
  const DType dtype = graph_.type(value).dtype;
  const bool is_wide = dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kBool;
  if (node < 0 || !is_wide) return Opaque(value, at);
  ++depth_;
  IndexExprPtr result = EvaluateNode(graph_.nodes[node], at);
  --depth_;
  return IsUnknown(result) && graph_.nodes[node].outputs.size() == 1 ? Opaque(value, at) : result;
}

// The value of an operand under broadcasting, or a literal.
IndexExprPtr IndexEvaluator::Operand(const Node& node, size_t arg, const Indices& at) {
  if (arg >= node.args.size()) return Unknown();
  const Argument& argument = node.args[arg];
  if (const auto* literal = std::get_if<SymInt>(&argument)) return Constant(literal->value);
  if (const auto* literal = std::get_if<bool>(&argument)) return Constant(*literal ? 1 : 0);
  if (const auto* literal = std::get_if<double>(&argument)) {
    const auto rounded = static_cast<int64_t>(*literal);
    return static_cast<double>(rounded) == *literal ? Constant(rounded) : Unknown();
  }
  const auto* id = std::get_if<ValueId>(&argument);
  if (id == nullptr) return Unknown();
  if (graph_.type(*id).sizes.size() > at.size()) return Unknown();
  return Evaluate(*id, Stretched(*id, at));
}

IndexEvaluator::Indices IndexEvaluator::Stretched(ValueId value, const Indices& at) const {
  const TensorType& type = graph_.type(value);
  Indices own(at.end() - static_cast<std::ptrdiff_t>(type.sizes.size()), at.end());
  for (size_t i = 0; i < own.size(); ++i) {
    if (type.sizes[i].value == 1) own[i] = Constant(0);
  }
  return own;
}

IndexExprPtr IndexEvaluator::EvaluateNode(const Node& node, const Indices& at) {
  for (auto evaluate : {&IndexEvaluator::EvaluateView, &IndexEvaluator::EvaluateTriangle,
                        &IndexEvaluator::EvaluateArithmetic, &IndexEvaluator::EvaluateLookup,
                        &IndexEvaluator::EvaluateScan}) {
    IndexExprPtr result = (this->*evaluate)(node, at);
    if (!IsUnknown(result)) return result;
  }
  return Unknown();
}

std::optional<IndexEvaluator::Indices> IndexEvaluator::ViewedAt(const Node& node,
                                                                const Indices& at) const {
  const auto* self = node.args.empty() ? nullptr : std::get_if<ValueId>(&node.args[0]);
  if (self == nullptr || !self->valid()) return std::nullopt;
  const std::vector<int64_t> from = Values(graph_.type(*self).sizes);
  const std::string& op = node.op;
  const OpContext context(graph_, node);
  const auto rank = static_cast<int64_t>(from.size());
  Indices own = at;
  if (op == "aten.unsqueeze.default") {
    own.erase(own.begin() + context.Dim(1, rank + 1));
  } else if (op == "aten.transpose.int") {
    std::swap(own[context.Dim(1, rank)], own[context.Dim(2, rank)]);
  } else if (op == "aten.expand.default") {
    own.assign(at.end() - rank, at.end());
    for (int64_t i = 0; i < rank; ++i) {
      if (from[i] == 1) own[i] = Constant(0);
    }
  } else if (op == "aten.slice.Tensor") {
    const int64_t dim = context.Dim(1, rank);
    int64_t start = context.Int(2).value_or(0);
    if (start < 0) start = std::max<int64_t>(0, start + from[dim]);
    own[dim] = Combine(Constant(start), own[dim], context.Int(4).value_or(1));
  } else if (op == "aten.select.int") {
    const int64_t dim = context.Dim(1, rank);
    int64_t index = context.Int(2).value_or(0);
    own.insert(own.begin() + dim, Constant(index < 0 ? index + from[dim] : index));
  } else if (op == "aten.view.default" || op == "aten.reshape.default") {
    return ReshapedAt(from, Values(graph_.type(node.outputs[0]).sizes), at);
  } else if (op != "aten.clone.default" && op != "aten.contiguous.default" &&
             op != "aten.to.dtype") {
    return std::nullopt;
  }
  return own;
}

IndexExprPtr IndexEvaluator::EvaluateView(const Node& node, const Indices& at) {
  const std::optional<Indices> own = ViewedAt(node, at);
  if (!own) return Unknown();
  const ValueId self = std::get<ValueId>(node.args[0]);
  const DType to = graph_.type(node.outputs[0]).dtype;
  if (node.op != "aten.to.dtype" || graph_.type(self).dtype == to) return Evaluate(self, *own);
  if (to == DType::kBool) return Truth(self, *own);
  return IsFloating(to) || IsFloating(graph_.type(self).dtype) ? Unknown() : Evaluate(self, *own);
}

IndexExprPtr IndexEvaluator::Truth(ValueId value, const Indices& at) {
  const DType dtype = graph_.type(value).dtype;
  if (dtype == DType::kBool) return Evaluate(value, at);
  if (!IsChosen(value)) return Not(Equal(Evaluate(value, at), Constant(0)));
  const std::optional<ZeroOr> number = EvaluateFloat(value, at);
  return number ? number->is_other : Unknown();
}

IndexExprPtr IndexEvaluator::Triangle(const Node& node, const Indices& at) {
  const bool is_lower = node.op == "aten.tril.default";
  if ((!is_lower && node.op != "aten.triu.default") || at.size() < 2) return Unknown();
  const int64_t diagonal = IntegerArgument(node.args, 1).value_or(0);
  const IndexExprPtr& row = at[at.size() - 2];
  const IndexExprPtr& column = at[at.size() - 1];
  return is_lower ? LessEqual(column, row, diagonal) : LessEqual(row, column, -diagonal);
}

// Of truth values; other numbers would be chosen between.
IndexExprPtr IndexEvaluator::EvaluateTriangle(const Node& node, const Indices& at) {
  const IndexExprPtr kept = Triangle(node, at);
  const bool is_bool = graph_.type(node.outputs[0]).dtype == DType::kBool;
  if (IsUnknown(kept)) return Unknown();
  const IndexExprPtr element = Operand(node, 0, at);
  if (is_bool) return AndOr(true, kept, element);
  return IsConstant(element) && element->affine.constant == 0 ? element : Unknown();
}

IndexExprPtr IndexEvaluator::EvaluateArithmetic(const Node& node, const Indices& at) {
  std::string op = node.op;
  for (const char* suffix : {".Tensor", ".Scalar", ".default"}) {
    const size_t place = op.rfind(suffix);
    if (place != std::string::npos) op.erase(place);
  }
  const auto operand = [&](size_t i) { return Operand(node, i, at); };
  const bool is_bool = !node.outputs.empty() && graph_.type(node.outputs[0]).dtype == DType::kBool;
  const bool is_sum = op == "aten.add" || op == "aten.sub" || op == "aten.mul";
  if (is_sum && is_bool) return Unknown();  // true + true is true
  if (op == "aten.add" || op == "aten.sub") {
    int64_t alpha = 1;
    if (node.args.size() > 2) {
      if (const auto* value = std::get_if<SymInt>(&node.args[2])) alpha = value->value;
    }
    return Combine(operand(0), operand(1), op == "aten.add" ? alpha : -alpha);
  }
  if (op == "aten.mul") {
    const IndexExprPtr a = operand(0);
    const IndexExprPtr b = operand(1);
    if (IsConstant(b)) return Combine(Constant(0), a, b->affine.constant);
    if (IsConstant(a)) return Combine(Constant(0), b, a->affine.constant);
    return Unknown();
  }
  if (is_bool && node.args.size() > 1) {
    const IndexExprPtr compared = CompareFloat(node, op, at);
    if (!IsUnknown(compared)) return compared;
  }
  if (op == "aten.le") return IsAtMost(node, at, 0);
  if (op == "aten.gt") return Not(IsAtMost(node, at, 0));
  if (op == "aten.lt") return IsAtMost(node, at, -1);
  if (op == "aten.ge") return Not(IsAtMost(node, at, -1));
  if (op == "aten.eq") return Equal(operand(0), operand(1));
  if (op == "aten.ne") return Not(Equal(operand(0), operand(1)));
  if (!is_bool) return Unknown();
  // A number counts as true where it is not 0.
  const auto truth = [&](size_t i) {
    const auto* id = std::get_if<ValueId>(&node.args[i]);
    if (id == nullptr || graph_.type(*id).sizes.size() > at.size()) {
      return Not(Equal(operand(i), Constant(0)));
    }
    return Truth(*id, Stretched(*id, at));
  };
  if (op == "aten.__and__" || op == "aten.bitwise_and" || op == "aten.logical_and") {
    return AndOr(true, truth(0), truth(1));
  }
  if (op == "aten.__or__" || op == "aten.bitwise_or" || op == "aten.logical_or") {
    return AndOr(false, truth(0), truth(1));
  }
  if (op == "aten.bitwise_not" || op == "aten.logical_not") return Not(truth(0));
  return Unknown();
}

// Of the operands of a node: a <= b + slack, where a may be a magnitude.
IndexExprPtr IndexEvaluator::IsAtMost(const Node& node, const Indices& at, int64_t slack) {
  const IndexExprPtr limit = Operand(node, 1, at);
  const auto* id = std::get_if<ValueId>(&node.args[0]);
  const int32_t definer = id == nullptr || !id->valid() ? -1 : definer_[id->index];
  if (definer < 0 || graph_.nodes[definer].op != "aten.abs.default" ||
      graph_.type(*id).sizes.size() > at.size()) {
    return LessEqual(Operand(node, 0, at), limit, slack);
  }
  const IndexExprPtr x = Operand(graph_.nodes[definer], 0, Stretched(*id, at));
  return AndOr(true, LessEqual(x, limit, slack),
               LessEqual(Combine(Constant(0), x, -1), limit, slack));
}

IndexExprPtr IndexEvaluator::EvaluateLookup(const Node& node, const Indices& at) {
  const auto literal = [&](size_t arg) { return Operand(node, arg, {}); };
  if (node.op == "aten.arange.default") return at[0];
  if (node.op == "aten.arange.start") return Combine(literal(0), at[0], 1);
  if (node.op == "aten.arange.start_step") {
    const IndexExprPtr step = literal(2);
    return IsConstant(step) ? Combine(literal(0), at[0], step->affine.constant) : Unknown();
  }
  if (node.op == "aten.ones.default" || node.op == "aten.new_ones.default") return Constant(1);
  if (node.op == "aten.zeros.default" || node.op == "aten.new_zeros.default") return Constant(0);
  if (node.op == "aten.full.default" || node.op == "aten.new_full.default") {
    const IndexExprPtr value = literal(node.op == "aten.full.default" ? 1 : 2);
    const bool is_bool = graph_.type(node.outputs[0]).dtype == DType::kBool;
    return is_bool ? Not(Equal(value, Constant(0))) : value;
  }
  if (node.op != "aten.index.Tensor") return Unknown();
  // x[i0, i1, ...] with an index for every dimension, broadcast against each other.
  const auto* self = std::get_if<ValueId>(&node.args[0]);
  const auto* slots = std::get_if<ValueList>(&node.args[1]);
  if (self == nullptr || slots == nullptr || slots->size() != graph_.type(*self).sizes.size()) {
    return Unknown();
  }
  Indices own;
  for (ValueId slot : *slots) {
    if (!slot.valid() || graph_.type(slot).dtype == DType::kBool) return Unknown();
    const Node carrier{.op = "", .args = {slot}, .outputs = {}, .source = {}};
    const IndexExprPtr index = Operand(carrier, 0, at);
    // A negative index counts from the end, which is not affine.
    int64_t low = 0;
    int64_t high = 0;
    if (!IsAffine(index) || !Range(index->affine, &low, &high) || low < 0) return Unknown();
    own.push_back(index);
  }
  return Evaluate(*self, own);
}

// cumsum of a constant, and first differences with an optional prepended element.
IndexExprPtr IndexEvaluator::EvaluateScan(const Node& node, const Indices& at) {
  const auto* self = node.args.empty() ? nullptr : std::get_if<ValueId>(&node.args[0]);
  if (self == nullptr) return Unknown();
  const OpContext context(graph_, node);
  const int64_t rank = graph_.type(*self).rank();
  if (node.op == "aten.cumsum.default") {
    const IndexExprPtr element = Evaluate(*self, at);
    if (!IsConstant(element)) return Unknown();
    const IndexExprPtr count = Combine(at[context.Dim(1, rank)], Constant(1), 1);
    return Combine(Constant(0), count, element->affine.constant);
  }
  if (node.op != "aten.diff.default" || context.Int(1).value_or(1) != 1 ||
      context.Tensor(4).valid()) {
    return Unknown();
  }
  const int64_t dim = context.Dim(2, rank, -1);
  const ValueId prepend = context.Tensor(3);
  // Element j of (prepend ++ self), for j = offset + index.
  const auto joined = [&](int64_t offset) -> IndexExprPtr {
    Indices own = at;
    own[dim] = Combine(at[dim], Constant(offset - (prepend.valid() ? 1 : 0)), 1);
    return Evaluate(*self, own);
  };
  if (prepend.valid()) {
    if (graph_.type(prepend).sizes[dim].value != 1) return Unknown();
    // Index 0 reads the prepended element: it must continue what `self` says at index -1.
    Indices first = at;
    first[dim] = Constant(0);
    Indices before = at;
    before[dim] = Constant(-1);
    if (Evaluate(prepend, first)->ToString() != Evaluate(*self, before)->ToString()) {
      return Unknown();
    }
  }
  return Combine(joined(1), joined(0), -1);
}

}  // namespace autosp
