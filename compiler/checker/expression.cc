#include "compiler/checker/expression.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace autosp::checker {
namespace {

// Products of literals in another order may differ in the last bits; ten digits tell factors apart.
double Rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent);
  constexpr double kScale = 1LL << 36;
  return std::ldexp(std::round(mantissa * kScale) / kScale, exponent);
}

bool Before(const Term& a, const Term& b) {
  if (a.base != b.base) return a.base < b.base;
  return a.layout < b.layout;
}

void Normalize(std::vector<Term>* terms) {
  // Most tensors are one view of one node.
  if (terms->size() == 1 && Rounded(terms->front().coefficient) != 0) return;
  std::ranges::sort(*terms, Before);
  std::vector<Term> result;
  for (Term& term : *terms) {
    if (!result.empty() && result.back().base == term.base && result.back().layout == term.layout) {
      result.back().coefficient += term.coefficient;
    } else {
      result.push_back(std::move(term));
    }
  }
  std::erase_if(result, [](const Term& term) { return Rounded(term.coefficient) == 0; });
  *terms = std::move(result);
}

std::string TensorText(const Tensor& tensor) {
  std::string text = "sum|";
  for (int64_t size : tensor.shape) absl::StrAppend(&text, size, ",");
  for (const Term& term : tensor.terms) {
    // All bits: a short decimal form would take different factors for equal.
    absl::StrAppend(&text, "|", std::bit_cast<uint64_t>(Rounded(term.coefficient)), "*",
                    term.base.index);
    AppendText(term.layout, &text);
  }
  return text;
}

}  // namespace

bool operator==(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape &&
         std::ranges::equal(a.terms, b.terms, [](const Term& x, const Term& y) {
           return Rounded(x.coefficient) == Rounded(y.coefficient) && x.base == y.base &&
                  x.layout == y.layout;
         });
}

template <typename Make>
NodeId ExpressionTable::Find(const std::string& text, Make make) {
  const auto [found, is_new] =
      by_text_.try_emplace(text, NodeId{static_cast<int32_t>(nodes_.size())});
  if (is_new) nodes_.push_back(make());
  return found->second;
}

ExpressionTable::ExpressionTable() {
  one_ = Find("one", [] { return NodeInfo{.key = "1", .operands = {}, .interned = {}}; });
}

Tensor ExpressionTable::Node(const std::string& key, const std::vector<NodeId>& operands,
                             const Shape& shape) {
  std::string text = absl::StrCat("op|", key);
  for (NodeId operand : operands) absl::StrAppend(&text, "|", operand.index);
  // The shape follows from the operands for most ops, but not for inputs and constants.
  for (int64_t size : shape) absl::StrAppend(&text, ",", size);
  const NodeId node =
      Find(text, [&] { return NodeInfo{.key = key, .operands = operands, .interned = {}}; });
  return {shape, {{.coefficient = 1, .base = node, .layout = RowMajor(shape)}}};
}

NodeId ExpressionTable::Intern(const Tensor& tensor) {
  if (tensor.terms.size() == 1) {
    // All of what another tensor stands for is that tensor.
    const Term& term = tensor.terms[0];
    const NodeInfo& info = nodes_[term.base.index];
    const bool is_whole = Rounded(term.coefficient) == 1 && info.key == "sum" &&
                          info.interned.shape == tensor.shape &&
                          term.layout == RowMajor(tensor.shape);
    if (is_whole) return term.base;
  }
  return Find(TensorText(tensor),
              [&] { return NodeInfo{.key = "sum", .operands = {}, .interned = tensor}; });
}

Tensor ExpressionTable::AsNode(const Tensor& tensor) {
  const NodeId node = Intern(tensor);
  return {tensor.shape, {{.coefficient = 1, .base = node, .layout = RowMajor(tensor.shape)}}};
}

Tensor ExpressionTable::Full(const Shape& shape, double value) const {
  if (value == 0) return Zeros(shape);
  return {shape, {{.coefficient = value, .base = one_, .layout = Constant(shape)}}};
}

bool ExpressionTable::IsFull(const Tensor& tensor, double value) const {
  return tensor == Full(tensor.shape, value);
}

Tensor ExpressionTable::Add(const Tensor& a, const Tensor& b, double alpha) const {
  Tensor sum = a;
  for (Term term : b.terms) {
    term.coefficient *= alpha;
    sum.terms.push_back(std::move(term));
  }
  Normalize(&sum.terms);
  return sum;
}

Tensor ExpressionTable::Scale(Tensor tensor, double factor) const {
  for (Term& term : tensor.terms) term.coefficient *= factor;
  Normalize(&tensor.terms);
  return tensor;
}

template <typename Change>
Tensor ExpressionTable::EachTerm(const Tensor& tensor, Shape shape, Change change) const {
  Tensor result{std::move(shape), tensor.terms};
  for (Term& term : result.terms) change(term);
  Normalize(&result.terms);
  return result;
}

Tensor ExpressionTable::Reshape(const Tensor& tensor, const Shape& to) {
  bool fits = true;
  Tensor result =
      EachTerm(tensor, to, [&](Term& term) { fits = checker::Reshape(to, &term.layout) && fits; });
  if (fits) return result;
  return EachTerm(AsNode(tensor), to, [&](Term& term) { checker::Reshape(to, &term.layout); });
}

Tensor ExpressionTable::Permute(const Tensor& tensor, const std::vector<int64_t>& order) const {
  Shape shape;
  for (int64_t dim : order) shape.push_back(tensor.shape[dim]);
  return EachTerm(tensor, shape, [&](Term& term) { checker::Permute(order, &term.layout); });
}

Tensor ExpressionTable::Expand(const Tensor& tensor, const Shape& to) const {
  return EachTerm(tensor, to, [&](Term& term) { checker::Expand(to, &term.layout); });
}

Tensor ExpressionTable::Slice(const Tensor& tensor, int64_t dim, int64_t start, int64_t size,
                              int64_t step) {
  Shape shape = tensor.shape;
  shape[dim] = size;
  bool fits = true;
  const auto cut = [&](Term& term) {
    fits = checker::Slice(dim, start, size, step, &term.layout) && fits;
  };
  Tensor result = EachTerm(tensor, shape, cut);
  return fits ? result : EachTerm(AsNode(tensor), shape, cut);
}

Tensor ExpressionTable::RemoveDim(const Tensor& tensor, int64_t dim) const {
  Shape shape = tensor.shape;
  shape.erase(shape.begin() + dim);
  return EachTerm(tensor, shape, [&](Term& term) { checker::RemoveDim(dim, &term.layout); });
}

Tensor ExpressionTable::SumOver(const Tensor& tensor, int64_t dim) const {
  Shape shape = tensor.shape;
  shape.erase(shape.begin() + dim);
  return EachTerm(tensor, shape, [&](Term& term) {
    term.coefficient *= static_cast<double>(checker::SumOver(dim, &term.layout));
  });
}

Tensor ExpressionTable::Embed(const Tensor& part, int64_t dim, int64_t start, int64_t step,
                              int64_t to) {
  if (start == 0 && step == 1 && part.shape[dim] == to) return part;
  Shape shape = part.shape;
  shape[dim] = to;
  Tensor sum = Zeros(shape);
  const std::string key = absl::StrCat("embed ", dim, " ", start, " ", step, " ", to);
  for (const Term& term : part.terms) {
    Tensor one = {part.shape, {term}};
    one.terms[0].coefficient = 1;
    sum = Add(sum, Node(key, {Intern(one)}, shape), term.coefficient);
  }
  return sum;
}

std::string ExpressionTable::Describe(const Tensor& tensor, int depth) const {
  if (tensor.is_zero()) return "0";
  constexpr size_t kMaxTerms = 3;
  std::string text;
  for (size_t i = 0; i < tensor.terms.size(); ++i) {
    if (i > 0) text += " + ";
    if (i == kMaxTerms) {
      absl::StrAppend(&text, tensor.terms.size() - kMaxTerms, " terms more");
      break;
    }
    const Term& term = tensor.terms[i];
    if (Rounded(term.coefficient) != 1) absl::StrAppend(&text, term.coefficient, " * ");
    const bool is_sum = nodes_[term.base.index].key == "sum";
    const std::string base = DescribeNode(term.base, depth);
    absl::StrAppend(&text, is_sum ? "(" : "", base, is_sum ? ")" : "");
  }
  return text;
}

std::string ExpressionTable::DescribeNode(NodeId node, int depth) const {
  const NodeInfo& info = nodes_[node.index];
  if (info.key == "sum") return Describe(info.interned, depth);
  std::string text = info.key;
  if (info.operands.empty()) return text;
  text += "(";
  for (size_t i = 0; i < info.operands.size() && depth > 0; ++i) {
    if (i > 0) text += ", ";
    text += DescribeNode(info.operands[i], depth - 1);
  }
  return text + (depth > 0 ? ")" : "...)");
}

}  // namespace autosp::checker
