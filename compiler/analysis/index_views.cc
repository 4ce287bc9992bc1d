// Where a reshape reads its operand: dimensions that are put together, cut up, or of size 1.
#include <algorithm>

#include "compiler/analysis/index_expr.h"

namespace autosp {
namespace {

// The index into all dimensions as one; null: an index is no affine expression.
IndexExprPtr Joined(const std::vector<IndexExprPtr>& indices, const std::vector<int64_t>& sizes) {
  auto joined = std::make_shared<IndexExpr>();
  joined->kind = IndexExpr::Kind::kAffine;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i]->kind != IndexExpr::Kind::kAffine) return nullptr;
    joined->affine.constant = joined->affine.constant * sizes[i] + indices[i]->affine.constant;
    for (auto& [key, coefficient] : joined->affine.terms) coefficient *= sizes[i];
    for (const auto& [key, coefficient] : indices[i]->affine.terms) {
      joined->affine.terms[key] += coefficient;
    }
  }
  std::erase_if(joined->affine.terms, [](const auto& term) { return term.second == 0; });
  return joined;
}

}  // namespace

// The indices of dimensions of `sizes`, of which `index` counts all: its digits, each of the terms
// that are multiples of its weight. They are unique as each is within its size.
std::optional<IndexEvaluator::Indices> IndexEvaluator::DigitsOf(
    const IndexExprPtr& index, const std::vector<int64_t>& sizes) const {
  if (sizes.size() == 1) return Indices{index};
  if (index->kind != IndexExpr::Kind::kAffine || index->affine.constant != 0) return std::nullopt;
  std::vector<int64_t> weights(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i-- > 0;) weights[i] = weights[i + 1] * sizes[i + 1];
  std::vector<Affine> digits(sizes.size());
  for (const auto& [key, coefficient] : index->affine.terms) {
    size_t i = 0;
    while (coefficient % weights[i] != 0) ++i;
    digits[i].terms[key] = coefficient / weights[i];
  }
  Indices result;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t low = 0;
    int64_t high = 0;
    if (!Range(digits[i], &low, &high) || low < 0 || high >= sizes[i]) return std::nullopt;
    auto digit = std::make_shared<IndexExpr>();
    digit->kind = IndexExpr::Kind::kAffine;
    digit->affine = std::move(digits[i]);
    result.push_back(digit);
  }
  return result;
}

std::optional<IndexEvaluator::Indices> IndexEvaluator::ReshapedAt(const std::vector<int64_t>& from,
                                                                  const std::vector<int64_t>& to,
                                                                  const Indices& at) const {
  if (std::ranges::count(from, 0) > 0) return std::nullopt;
  Indices own;
  size_t next = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == 1) {
      own.push_back(ConstantIndex(0));
      continue;
    }
    // As few dimensions of both as hold the same number of elements.
    std::vector<int64_t> read = {from[i]};
    std::vector<int64_t> sizes;
    Indices indices;
    int64_t num_read = from[i];
    int64_t num_made = 1;
    while (num_read != num_made) {
      if (num_made < num_read && next < to.size()) {
        num_made *= to[next];
        if (to[next] != 1) sizes.push_back(to[next]);
        if (to[next] != 1) indices.push_back(at[next]);
        ++next;
      } else if (num_read < num_made && i + 1 < from.size()) {
        read.push_back(from[++i]);
        num_read *= from[i];
      } else {
        return std::nullopt;
      }
    }
    const IndexExprPtr joined = indices.size() == 1 ? indices[0] : Joined(indices, sizes);
    if (joined == nullptr) return std::nullopt;
    const std::optional<Indices> digits = DigitsOf(joined, read);
    if (!digits) return std::nullopt;
    own.insert(own.end(), digits->begin(), digits->end());
  }
  return own;
}

}  // namespace autosp
