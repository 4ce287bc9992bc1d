#include "compiler/checker/expression.h"

#include <algorithm>
#include <cmath>
#include <iterator>

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

bool IsSameView(const Term& a, const Term& b) { return a.base == b.base && a.layout == b.layout; }

// Of terms in order: adds up those of the same view, and drops what comes to 0.
void Combine(std::vector<Term>* terms) {
  size_t size = 0;
  for (const Term& term : *terms) {
    if (size > 0 && IsSameView((*terms)[size - 1], term)) {
      (*terms)[size - 1].coefficient += term.coefficient;
    } else {
      (*terms)[size++] = term;
    }
  }
  terms->resize(size);
  std::erase_if(*terms, [](const Term& term) { return Rounded(term.coefficient) == 0; });
}

void Normalize(std::vector<Term>* terms) {
  if (!std::ranges::is_sorted(*terms, Before)) std::ranges::sort(*terms, Before);
  Combine(terms);
}

template <typename T>
void AppendBytes(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendShape(const Shape& shape, std::string* bytes) {
  AppendBytes(shape.size(), bytes);
  for (int64_t size : shape) AppendBytes(size, bytes);
}

std::string BytesOf(const Tensor& tensor) {
  std::string bytes = "sum";
  bytes.reserve(bytes.size() + 8 * tensor.shape.size() + sizeof(Term) * tensor.terms.size() + 8);
  AppendShape(tensor.shape, &bytes);
  for (const Term& term : tensor.terms) {
    // All bits: a short decimal form would take different factors for equal.
    AppendBytes(Rounded(term.coefficient), &bytes);
    AppendBytes(term.base.index, &bytes);
    AppendBytes(term.layout.index, &bytes);
  }
  return bytes;
}

}  // namespace

bool operator==(const Tensor& a, const Tensor& b) {
  return a.shape == b.shape &&
         std::ranges::equal(a.terms, b.terms, [](const Term& x, const Term& y) {
           return Rounded(x.coefficient) == Rounded(y.coefficient) && IsSameView(x, y);
         });
}

template <typename Make>
NodeId ExpressionTable::Find(const std::string& bytes, Make make) {
  const auto [found, is_new] =
      by_bytes_.try_emplace(bytes, NodeId{static_cast<int32_t>(nodes_.size())});
  if (is_new) nodes_.push_back(make());
  return found->second;
}

ExpressionTable::ExpressionTable() {
  one_ = Find("one", [] { return NodeInfo{.key = "1", .operands = {}, .interned = {}}; });
}

Tensor ExpressionTable::Whole(NodeId node, const Shape& shape) {
  return {shape, {{.coefficient = 1, .base = node, .layout = layouts_.Of(RowMajor(shape))}}};
}

Tensor ExpressionTable::Node(const std::string& key, const std::vector<NodeId>& operands,
                             const Shape& shape) {
  std::string bytes = absl::StrCat("op", key, "|");
  AppendBytes(operands.size(), &bytes);
  for (NodeId operand : operands) AppendBytes(operand.index, &bytes);
  // The shape follows from the operands for most ops, but not for inputs and constants.
  AppendShape(shape, &bytes);
  const NodeId node =
      Find(bytes, [&] { return NodeInfo{.key = key, .operands = operands, .interned = {}}; });
  return Whole(node, shape);
}

std::optional<NodeId> ExpressionTable::OperandOf(NodeId node, const std::string& key) const {
  const NodeInfo& info = nodes_[node.index];
  if (info.key != key || info.operands.size() != 1) return std::nullopt;
  return info.operands[0];
}

NodeId ExpressionTable::Intern(const Tensor& tensor) {
  if (tensor.terms.size() == 1) {
    // All of what another tensor stands for is that tensor.
    const Term& term = tensor.terms[0];
    const NodeInfo& info = nodes_[term.base.index];
    const bool is_whole = Rounded(term.coefficient) == 1 && info.key == "sum" &&
                          info.interned.shape == tensor.shape &&
                          layouts_.at(term.layout) == RowMajor(tensor.shape);
    if (is_whole) return term.base;
  }
  return Find(BytesOf(tensor),
              [&] { return NodeInfo{.key = "sum", .operands = {}, .interned = tensor}; });
}

Tensor ExpressionTable::AsNode(const Tensor& tensor) { return Whole(Intern(tensor), tensor.shape); }

Tensor ExpressionTable::Full(const Shape& shape, double value) {
  if (value == 0) return Zeros(shape);
  return {shape, {{.coefficient = value, .base = one_, .layout = layouts_.Of(Constant(shape))}}};
}

bool ExpressionTable::IsFull(const Tensor& tensor, double value) {
  return tensor == Full(tensor.shape, value);
}

Tensor ExpressionTable::Add(const Tensor& a, const Tensor& b, double alpha) const {
  Tensor sum{a.shape, {}};
  sum.terms.reserve(a.terms.size() + b.terms.size());
  std::ranges::merge(a.terms, Scale(b, alpha).terms, std::back_inserter(sum.terms), Before);
  Combine(&sum.terms);
  return sum;
}

Tensor ExpressionTable::Sum(const std::vector<Tensor>& tensors, const Shape& shape) const {
  Tensor sum = Zeros(shape);
  for (const Tensor& tensor : tensors) {
    sum.terms.insert(sum.terms.end(), tensor.terms.begin(), tensor.terms.end());
  }
  Normalize(&sum.terms);
  return sum;
}

Tensor ExpressionTable::Scale(Tensor tensor, double factor) const {
  for (Term& term : tensor.terms) term.coefficient *= factor;
  Combine(&tensor.terms);
  return tensor;
}

template <typename Change>
Tensor ExpressionTable::EachTerm(const Tensor& tensor, Shape shape, Change change) {
  Tensor result{std::move(shape), tensor.terms};
  // Most terms of a sum are in the layout of the one before.
  LayoutId from;
  LayoutId to;
  double factor = 1;
  for (Term& term : result.terms) {
    if (term.layout != from) {
      from = term.layout;
      IndexLayout layout = layouts_.at(from);
      factor = change(&layout);
      to = layouts_.Of(layout);
    }
    term.layout = to;
    term.coefficient *= factor;
  }
  Normalize(&result.terms);
  return result;
}

Tensor ExpressionTable::Reshape(const Tensor& tensor, const Shape& to) {
  bool fits = true;
  const auto reshape = [&](IndexLayout* layout) {
    fits = checker::Reshape(to, layout) && fits;
    return 1;
  };
  Tensor result = EachTerm(tensor, to, reshape);
  return fits ? result : EachTerm(AsNode(tensor), to, reshape);
}

Tensor ExpressionTable::Permute(const Tensor& tensor, const std::vector<int64_t>& order) {
  Shape shape;
  for (int64_t dim : order) shape.push_back(tensor.shape[dim]);
  return EachTerm(tensor, shape, [&](IndexLayout* layout) {
    checker::Permute(order, layout);
    return 1;
  });
}

Tensor ExpressionTable::Expand(const Tensor& tensor, const Shape& to) {
  return EachTerm(tensor, to, [&](IndexLayout* layout) {
    checker::Expand(to, layout);
    return 1;
  });
}

// The elements of `tensor` as often as `like` repeats them in dimensions other than `kept`.
std::optional<Tensor> ExpressionTable::Repeat(const Tensor& tensor, const IndexLayout& like,
                                              int64_t kept) {
  Shape once;
  Shape often;
  Shape shape;
  for (size_t i = 0; i < like.dims.size(); ++i) {
    const bool is_kept = static_cast<int64_t>(i) == kept;
    shape.push_back(is_kept ? tensor.shape[i] : SizeOf(like.dims[i]));
    if (is_kept) {
      once.push_back(tensor.shape[i]);
      often.push_back(tensor.shape[i]);
      continue;
    }
    for (const Atom& atom : like.dims[i]) {
      once.push_back(atom.stride == 0 ? 1 : atom.size);
      often.push_back(atom.size);
    }
  }
  if (NumElements(once) != NumElements(tensor.shape)) return std::nullopt;
  return Reshape(Expand(Reshape(tensor, once), often), shape);
}

// What is cut out of zeros around a part is cut out of the part, or zero. Where both are left, it
// is a view of the whole.
std::optional<Tensor> ExpressionTable::SliceEmbedded(const Term& term, int64_t dim, int64_t start,
                                                     int64_t size, int64_t step) {
  const auto found = embeddings_.find(term.base.index);
  if (found == embeddings_.end() || found->second.dim != dim) return std::nullopt;
  const Embedding embedding = found->second;  // a slice of its part may add others
  const Shape& around = embedding.around;
  if (embedding.step != 1 || size < 1) return std::nullopt;
  // The term is all of it, perhaps repeated, or what a slice of the same dimension left.
  const IndexLayout layout = layouts_.at(term.layout);
  if (layout.dims.size() != around.size() || layout.dims[dim].size() > 1) return std::nullopt;
  const int64_t stride = NumElements({around.begin() + dim + 1, around.end()});
  const AtomList& atoms = layout.dims[dim];
  const int64_t first = layout.offset / stride;
  const int64_t every = atoms.empty() ? 1 : atoms[0].stride / stride;
  const int64_t count = SizeOf(atoms);
  if (every < 1 || first + (count - 1) * every >= around[dim]) return std::nullopt;
  const std::optional<Tensor> whole = Repeat(Whole(term.base, around), layout, dim);
  const std::optional<Tensor> part = Repeat(embedding.part, layout, dim);
  if (!whole || !part) return std::nullopt;
  IndexLayout seen = layouts_.at(whole->terms[0].layout);
  if (!checker::Slice(dim, first, count, every, &seen) || seen != layout) return std::nullopt;

  const int64_t begin = first + every * start - embedding.start;  // counted in the part
  const int64_t last = begin + (size - 1) * every * step;
  Shape shape = part->shape;
  shape[dim] = size;
  if (last < 0 || begin >= part->shape[dim]) return Zeros(shape);
  if (begin < 0 || last >= part->shape[dim]) return std::nullopt;
  return Scale(Slice(*part, dim, begin, size, every * step), term.coefficient);
}

Tensor ExpressionTable::Slice(const Tensor& tensor, int64_t dim, int64_t start, int64_t size,
                              int64_t step) {
  Shape shape = tensor.shape;
  shape[dim] = size;
  for (size_t i = 0; i < tensor.terms.size(); ++i) {
    const std::optional<Tensor> part = SliceEmbedded(tensor.terms[i], dim, start, size, step);
    if (!part) continue;
    Tensor others = tensor;
    others.terms.erase(others.terms.begin() + static_cast<int64_t>(i));
    return Sum({*part, Slice(others, dim, start, size, step)}, shape);
  }
  bool fits = true;
  const auto cut = [&](IndexLayout* layout) {
    fits = checker::Slice(dim, start, size, step, layout) && fits;
    return 1;
  };
  Tensor result = EachTerm(tensor, shape, cut);
  return fits ? result : EachTerm(AsNode(tensor), shape, cut);
}

Tensor ExpressionTable::RemoveDim(const Tensor& tensor, int64_t dim) {
  Shape shape = tensor.shape;
  shape.erase(shape.begin() + dim);
  return EachTerm(tensor, shape, [&](IndexLayout* layout) {
    checker::RemoveDim(dim, layout);
    return 1;
  });
}

Tensor ExpressionTable::SumOver(const Tensor& tensor, int64_t dim) {
  Shape shape = tensor.shape;
  shape.erase(shape.begin() + dim);
  return EachTerm(tensor, shape, [&](IndexLayout* layout) {
    return static_cast<double>(checker::SumOver(dim, layout));
  });
}

Tensor ExpressionTable::Embed(const Tensor& part, int64_t dim, int64_t start, int64_t step,
                              int64_t to) {
  if (start == 0 && step == 1 && part.shape[dim] == to) return part;
  Shape shape = part.shape;
  shape[dim] = to;
  std::vector<Tensor> embedded;
  const std::string key = absl::StrCat("embed ", dim, " ", start, " ", step, " ", to);
  for (const Term& term : part.terms) {
    // Zeros around what repeats are zeros around what is repeated.
    const IndexLayout whole = layouts_.at(term.layout);
    const IndexLayout once = WithoutRepeats(whole, dim);
    Tensor one = {{}, {{.coefficient = 1, .base = term.base, .layout = layouts_.Of(once)}}};
    for (const AtomList& atoms : once.dims) one.shape.push_back(SizeOf(atoms));
    Shape around = one.shape;
    around[dim] = to;
    Tensor node = Node(key, {Intern(one)}, around);
    embeddings_.try_emplace(node.terms[0].base.index, Embedding{dim, start, step, one, around});
    node.shape = shape;
    node.terms[0].layout = layouts_.Of(RepeatedAs(whole, dim, to));
    embedded.push_back(Scale(std::move(node), term.coefficient));
  }
  return Sum(embedded, shape);
}

int64_t ExpressionTable::SizeBeforeZeros(const Tensor& tensor, int64_t dim) {
  const int64_t all = tensor.shape[dim];
  int64_t size = 0;
  for (const Term& term : tensor.terms) {
    const auto found = embeddings_.find(term.base.index);
    if (found == embeddings_.end() || found->second.dim != dim) return all;
    size = std::max(size, found->second.start + found->second.part.shape[dim]);
  }
  const bool has_zeros =
      size > 0 && size < all && Slice(tensor, dim, size, all - size, 1).is_zero();
  return has_zeros ? size : all;
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
