#include "compiler/rules/factor_table.h"

#include <algorithm>
#include <deque>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

FactorVar FactorTable::NewFactor(int64_t size, std::string name, bool is_root) {
  entries_.push_back({.size = size, .name = std::move(name), .is_root = is_root});
  const FactorVar factor = static_cast<FactorVar>(entries_.size()) - 1;
  if (is_root) roots_.push_back(factor);
  return factor;
}

FactorDim FactorTable::NewDerived(const FactorDim& parent, int64_t add) {
  const FactorDim base = Resolve(parent);
  if (base.size() == 1) {
    const Entry& entry = entries_[base[0]];
    if (IsShifted(entry)) {
      const FactorDim grandparent = entry.derived_from;
      return NewDerived(grandparent, entry.derived_add + add);
    }
  }
  if (add == 0) return base;
  const FactorVar factor = NewFactor(Size(base) + add);
  entries_[factor].derived_from = base;
  entries_[factor].derived_add = add;
  entries_[factor].is_derived = true;
  return {factor};
}

FactorDim FactorTable::NewSum(const FactorDims& parts, int64_t add) {
  int64_t size = add;
  for (const FactorDim& part : parts) size += Size(part);
  const FactorVar factor = NewFactor(size);
  entries_[factor].derived_from = Resolve(parts[0]);
  entries_[factor].derived_others = {parts.begin() + 1, parts.end()};
  entries_[factor].derived_add = add;
  entries_[factor].is_derived = true;
  return {factor};
}

bool FactorTable::IsShifted(const Entry& entry) {
  return entry.is_derived && entry.derived_div == 1 && entry.derived_others.empty();
}

FactorDim FactorTable::NewPart(const FactorDim& parent, int64_t count) {
  const FactorDim base = Resolve(parent);
  if (count == 1) return base;
  const FactorVar factor = NewFactor(Size(base) / count);
  entries_[factor].derived_from = base;
  entries_[factor].derived_div = count;
  entries_[factor].is_derived = true;
  return {factor};
}

FactorDim FactorTable::NewFrontHalf(const FactorDim& parent) {
  const FactorVar factor = NewFactor(Size(parent) / 2);
  entries_[factor].half_of = Resolve(parent);
  return {factor};
}

FactorDim FactorTable::NewSpectrum(const FactorDim& parent) {
  const FactorDim base = Resolve(parent);
  const FactorVar factor = NewFactor(Size(base) / 2 + 1);
  entries_[factor].derived_from = base;
  entries_[factor].derived_div = 2;
  entries_[factor].derived_add = 1;
  entries_[factor].is_derived = true;
  return {factor};
}

std::optional<FactorDim> FactorTable::SpectrumOf(const FactorDim& dim) const {
  const FactorDim resolved = Resolve(dim);
  if (resolved.size() != 1) return std::nullopt;
  const Entry& entry = entries_[resolved[0]];
  const bool is_spectrum = entry.is_derived && entry.derived_div == 2 && entry.derived_add == 1 &&
                           entry.derived_others.empty();
  return is_spectrum ? std::optional(Resolve(entry.derived_from)) : std::nullopt;
}

int64_t FactorTable::PartsOf(const FactorDim& dim, const FactorDim& parent) const {
  const FactorDim part = Resolve(dim);
  if (part.size() != 1) return 0;
  const Entry& entry = entries_[part[0]];
  const bool is_part = entry.is_derived && entry.derived_div > 1 && entry.derived_add == 0 &&
                       Resolve(entry.derived_from) == Resolve(parent);
  return is_part ? entry.derived_div : 0;
}

bool FactorTable::AreHalves(FactorVar front, FactorVar back) const {
  const Entry& entry = entries_[back];
  return !entries_[front].half_of.empty() && IsShifted(entry) &&
         Resolve(entries_[front].half_of) == Resolve(entry.derived_from) &&
         Size(entry.derived_from) == -2 * entry.derived_add;
}

void FactorTable::SetExpression(FactorVar part, const SymExpr& expr) {
  Entry& entry = entries_[Find(part)];
  const bool is_free = !entry.is_root && !entry.is_derived && entry.refined.empty();
  const bool follows = IsPartOfRoot(part) || IsPartOfDerived(Find(part));
  if (is_free && entry.expr.empty() && follows) entry.expr = expr;
}

bool FactorTable::IsPartOfDerived(FactorVar part) const {
  for (FactorVar whole = entries_[part].part_of; whole >= 0; whole = entries_[whole].part_of) {
    const Entry& entry = entries_[whole];
    if (!entry.expr.empty() || (entry.is_derived && FollowsRoot(entry.derived_from))) return true;
  }
  return false;
}

int64_t FactorTable::CutFrom(FactorVar factor, FactorVar root) const {
  const Entry& entry = entries_[Find(factor)];
  const bool is_cut = IsShifted(entry) && entry.refined.empty() && entry.derived_add < 0 &&
                      Resolve(entry.derived_from) == Resolve(FactorDim{root});
  return is_cut ? -entry.derived_add : 0;
}

void FactorTable::Restore(FactorVar factor) { entries_[Find(factor)].derived_add = 0; }

FactorDim FactorTable::ForExpression(const SymExpr& expr, int64_t size) {
  const auto [entry, is_new] = by_expression_.try_emplace(expr.ToString());
  if (is_new) {
    const FactorVar factor = NewFactor(size);
    entries_[factor].expr = expr;
    entry->second = {factor};
  }
  return entry->second;
}

void FactorTable::NameExpression(const SymExpr& expr, const FactorDim& dim) {
  by_expression_.try_emplace(expr.ToString(), dim);
}

FactorVar FactorTable::Find(FactorVar factor) const {
  // Halves the path on the way, so that chains of a deep model stay short.
  while (entries_[factor].parent >= 0) {
    const FactorVar next = entries_[entries_[factor].parent].parent;
    if (next >= 0) entries_[factor].parent = next;
    factor = entries_[factor].parent;
  }
  return factor;
}

void FactorTable::ResolveInto(FactorVar factor, FactorDim* out) const {
  const FactorVar root = Find(factor);
  if (entries_[root].refined.empty()) {
    out->push_back(root);
    return;
  }
  for (FactorVar part : entries_[root].refined) ResolveInto(part, out);
}

FactorDim FactorTable::Resolve(const FactorDim& dim) const {
  FactorDim result;
  for (FactorVar factor : dim) ResolveInto(factor, &result);
  return result;
}

FactorDims FactorTable::Resolve(const FactorDims& dims) const {
  FactorDims result;
  for (const FactorDim& dim : dims) result.push_back(Resolve(dim));
  return result;
}

void FactorTable::Merge(FactorVar a, FactorVar b) {
  if (a == b) return;
  // A root keeps its identity; a derived size outlives a plain literal of the same value.
  const auto strength = [this](FactorVar factor) {
    const Entry& entry = entries_[factor];
    return entry.is_root ? 2 : (entry.is_derived || !entry.expr.empty()) ? 1 : 0;
  };
  const bool b_wins = strength(b) > strength(a);
  if (b_wins) std::swap(a, b);
  if (AreHalves(b, a)) {
    entries_[a].derived_add = 0;
    entries_[a].derived_div = 2;
  }
  if (entries_[a].half_of.empty()) entries_[a].half_of = entries_[b].half_of;
  if (entries_[a].name.empty()) entries_[a].name = entries_[b].name;
  if (entries_[a].part_of < 0) entries_[a].part_of = entries_[b].part_of;
  entries_[b].parent = a;
}

std::pair<FactorVar, FactorVar> FactorTable::Split(FactorVar factor, int64_t major) {
  const int64_t rest = entries_[factor].size / major;
  const std::string name = entries_[factor].name;
  const FactorVar first = NewFactor(major, name.empty() ? "" : absl::StrCat(name, ".0"));
  const FactorVar second = NewFactor(rest, name.empty() ? "" : absl::StrCat(name, ".1"));
  entries_[factor].refined = {first, second};
  entries_[first].part_of = entries_[second].part_of = factor;
  return {first, second};
}

absl::Status FactorTable::Unify(const FactorDim& a, const FactorDim& b) {
  const FactorDim left_dim = Resolve(a);
  const FactorDim right_dim = Resolve(b);
  if (Size(left_dim) != Size(right_dim)) {
    return InvalidArgument("dimensions of size ", Size(left_dim), " and ", Size(right_dim),
                           " cannot be the same");
  }
  std::deque<FactorVar> left(left_dim.begin(), left_dim.end());
  std::deque<FactorVar> right(right_dim.begin(), right_dim.end());
  while (!left.empty() && !right.empty()) {
    const FactorVar x = left.front();
    const FactorVar y = right.front();
    left.pop_front();
    right.pop_front();
    const int64_t x_size = entries_[x].size;
    const int64_t y_size = entries_[y].size;
    if (x == y) continue;
    if (x_size == y_size) {
      Merge(x, y);
    } else if (x_size == 1) {
      right.push_front(y);  // a batch of one beside nothing: it vanishes
    } else if (y_size == 1) {
      left.push_front(x);
    } else if (x_size > y_size && x_size % y_size == 0) {
      const auto [major, rest] = Split(x, y_size);
      Merge(major, y);
      left.push_front(rest);
    } else if (y_size > x_size && y_size % x_size == 0) {
      const auto [major, rest] = Split(y, x_size);
      Merge(major, x);
      right.push_front(rest);
    } else {
      return InvalidArgument("a dimension of ", Size(left_dim), " is cut in two ways, into ",
                             x_size, " and into ", y_size,
                             " parts, that have no common refinement: cut it by sizes of which one "
                             "divides the other");
    }
  }
  // What is left has size 1: it vanishes in the other product.
  return absl::OkStatus();
}

std::optional<FactorDims> FactorTable::Regroup(const FactorDims& dims,
                                               const std::vector<int64_t>& sizes) {
  std::deque<FactorVar> rest;
  for (const FactorDim& dim : dims) {
    for (FactorVar factor : Resolve(dim)) rest.push_back(factor);
  }
  FactorDims result;
  for (int64_t size : sizes) {
    FactorDim dim;
    int64_t wanted = size;
    // A factor of size 1 (a batch of one) stands where the reshape puts a dimension of size 1.
    if (wanted == 1 && !rest.empty() && entries_[rest.front()].size == 1) {
      dim.push_back(rest.front());
      rest.pop_front();
    }
    while (wanted > 1) {
      if (rest.empty()) return std::nullopt;
      FactorVar factor = rest.front();
      rest.pop_front();
      const int64_t factor_size = entries_[factor].size;
      if (factor_size == 0 || wanted == 0) return std::nullopt;
      if (wanted % factor_size == 0) {
        wanted /= factor_size;
      } else if (factor_size % wanted == 0) {
        const auto [major, minor] = Split(factor, wanted);
        rest.push_front(minor);
        factor = major;
        wanted = 1;
      } else {
        return std::nullopt;
      }
      dim.push_back(factor);
    }
    result.push_back(dim);
  }
  for (FactorVar factor : rest) {
    if (entries_[factor].size != 1) return std::nullopt;
    if (!result.empty()) result.back().push_back(factor);
  }
  return result;
}

// Sizes that follow from others, in one look at the table. What two sizes follow from is found
// once: of paths from one to the other there may be as many as there are subsets of the steps.
class FactorTable::SizeFinder {
 public:
  explicit SizeFinder(const FactorTable& table) : table_(table) {}

  int64_t Of(FactorVar factor) {
    const FactorVar root = table_.Find(factor);
    const Entry& entry = table_.entries_[root];
    if (!entry.refined.empty()) return Product(entry.refined);
    if (!entry.expr.empty() && !table_.bindings_.empty()) {
      if (const auto size = entry.expr.Evaluate(table_.bindings_); size.ok()) return *size;
    }
    if (!entry.is_derived) return entry.size;
    // What would follow from itself is as large as it was said to be.
    const auto [found, is_new] = derived_.try_emplace(root, entry.size);
    if (!is_new) return found->second;
    int64_t size = Product(entry.derived_from) / entry.derived_div + entry.derived_add;
    for (const FactorDim& other : entry.derived_others) size += Product(other);
    derived_[root] = size;
    return size;
  }

 private:
  int64_t Product(const FactorDim& dim) {
    int64_t size = 1;
    for (FactorVar factor : dim) size *= Of(factor);
    return size;
  }

  const FactorTable& table_;
  std::map<FactorVar, int64_t> derived_;
};

int64_t FactorTable::Size(FactorVar factor) const { return SizeFinder(*this).Of(factor); }

int64_t FactorTable::Size(const FactorDim& dim) const {
  int64_t size = 1;
  for (FactorVar factor : dim) size *= Size(factor);
  return size;
}

const std::string& FactorTable::Name(FactorVar factor) const { return entries_[Find(factor)].name; }

bool FactorTable::IsRoot(FactorVar factor) const { return entries_[Find(factor)].is_root; }

bool FactorTable::IsPartOfRoot(FactorVar factor) const {
  const FactorVar wanted = Find(factor);
  return std::ranges::any_of(roots_, [&](FactorVar root) {
    return std::ranges::count(Resolve(FactorDim{root}), wanted) > 0;
  });
}

bool FactorTable::FollowsRoot(const FactorDim& dim) const {
  return std::ranges::any_of(Resolve(dim), [this](FactorVar factor) {
    const Entry& entry = entries_[factor];
    return IsPartOfRoot(factor) || !entry.expr.empty() ||
           (entry.is_derived && FollowsRoot(entry.derived_from));
  });
}

size_t FactorTable::ChangingPart(const std::vector<FactorVar>& parts) const {
  for (size_t i = 0; i < parts.size(); ++i) {
    const FactorDim leaves = Resolve(FactorDim{parts[i]});
    const bool is_expression = std::ranges::any_of(
        leaves, [this](FactorVar leaf) { return !entries_[leaf].expr.empty(); });
    if (is_expression) return i;
  }
  return 0;
}

int64_t FactorTable::BlockOf(FactorVar root) const {
  const std::vector<FactorVar>& parts = entries_[Find(root)].refined;
  if (parts.empty()) return 1;
  const size_t changing = ChangingPart(parts);
  int64_t block = BlockOf(parts[changing]);
  for (size_t i = 0; i < parts.size(); ++i) block *= i == changing ? 1 : Size(parts[i]);
  return block;
}

absl::Status FactorTable::Resize(FactorVar root, int64_t size) {
  const FactorVar factor = Find(root);
  const std::vector<FactorVar> parts = entries_[factor].refined;
  if (parts.empty()) {
    entries_[factor].size = size;
    return absl::OkStatus();
  }
  // The model cuts this dimension into blocks: the number of blocks changes, their size does not.
  const size_t changing = ChangingPart(parts);
  int64_t block = 1;
  for (size_t i = 0; i < parts.size(); ++i) block *= i == changing ? 1 : Size(parts[i]);
  if (size % block != 0) {
    return InvalidArgument(entries_[factor].name, " = ", size, " is not a multiple of ", block,
                           ", the block that the model cuts it into; choose a multiple");
  }
  return Resize(parts[changing], size / block);
}

}  // namespace autosp
