// The factors of a graph's dimensions, found by provenance.
//
// A dimension is a product of factors, major first; a dimension of size 1 is the empty product. Ops
// relate dimensions: an elementwise op says that two are the same, a reshape that one is a product
// of others. The table is a union-find in which a factor may also be *refined* into a product: 64 =
// heads 4 x head_dim 16 as soon as some reshape says so. Nothing is ever guessed from equal sizes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

using FactorVar = int32_t;
using FactorDim = std::vector<FactorVar>;   // a product, major first
using FactorDims = std::vector<FactorDim>;  // of a tensor

class FactorTable {
 public:
  // A factor of its own. Roots (batch, sequence) are the ones whose size a job may change.
  FactorVar NewFactor(int64_t size, std::string name = "", bool is_root = false);

  // A factor of size product(parent) + add: what pad and slice make of a dimension. A chain of
  // these that ends with add == 0 is its first parent again (pad by one, then drop one).
  FactorDim NewDerived(const FactorDim& parent, int64_t add);

  // A factor of size product(parts[0]) + product(parts[1]) + ... + add: what is put together of
  // several dimensions that may change.
  FactorDim NewSum(const FactorDims& parts, int64_t add);
  // A factor of size product(parent) / count: equal parts that a dimension is cut into.
  // Requires: count divides the size.
  FactorDim NewPart(const FactorDim& parent, int64_t count);
  // A factor of size product(parent) / 2 + 1: the frequencies of a real signal so long.
  FactorDim NewSpectrum(const FactorDim& parent);
  // The parent of such a factor; nullopt: it is another.
  std::optional<FactorDim> SpectrumOf(const FactorDim& dim) const;
  // A factor of its own for the front half of a dimension, as far as its size says: the half it is
  // once it is the same as the back half, a factor that NewDerived made of the parent.
  FactorDim NewFrontHalf(const FactorDim& parent);
  // How many equal parts of `parent` the dimension is one of; 0: of none.
  int64_t PartsOf(const FactorDim& dim, const FactorDim& parent) const;

  // The factor of a size that the archive writes as an expression of its symbols: the same
  // expression is the same factor. NameExpression gives an expression ("s38") to a known dimension
  // first.
  FactorDim ForExpression(const SymExpr& expr, int64_t size);
  void NameExpression(const SymExpr& expr, const FactorDim& dim);

  // States that a part of a root, or of what follows one, of several blocks or in each of them, is
  // an expression: it is the part that changes.
  void SetExpression(FactorVar part, const SymExpr& expr);

  // The same product in representatives, with refined factors expanded.
  FactorDim Resolve(const FactorDim& dim) const;
  FactorDims Resolve(const FactorDims& dims) const;

  // States that two dimensions are one. Error: products that have no common refinement.
  absl::Status Unify(const FactorDim& a, const FactorDim& b);

  // Cuts the flattened factors of `dims` into dimensions of `sizes`, refining where a size falls
  // inside a factor. nullopt: the cut crosses factors (6x4 viewed as 4x6).
  std::optional<FactorDims> Regroup(const FactorDims& dims, const std::vector<int64_t>& sizes);

  int64_t Size(FactorVar factor) const;
  int64_t Size(const FactorDim& dim) const;
  const std::string& Name(FactorVar factor) const;
  bool IsRoot(FactorVar factor) const;
  // A root, or a factor of one that was cut into blocks.
  bool IsPartOfRoot(FactorVar factor) const;
  // Whether the size changes with a root's: a part of one, or derived from such.
  bool FollowsRoot(const FactorDim& dim) const;

  // Gives a root another size; derived factors follow. Of one that was cut into blocks, their
  // number changes, or the part that is an expression. Requires: no use of Split after this. Error:
  // the root was refined and the new size does not divide.
  absl::Status Resize(FactorVar root, int64_t size);
  // What the sizes of such a root are multiples of.
  int64_t BlockOf(FactorVar root) const;
  // How many places fewer than `root` a factor has that was cut out of it; 0: it was not.
  int64_t CutFrom(FactorVar factor, FactorVar root) const;
  // Gives such a factor the places that were cut off. It stays one of its own.
  void Restore(FactorVar factor);
  // The values of symbols after the resizes, for factors that are expressions of them.
  void Bind(SymBindings bindings) { bindings_ = std::move(bindings); }

 private:
  struct Entry {
    int64_t size = 1;
    std::string name = {};
    bool is_root = false;
    mutable FactorVar parent = -1;        // union-find link
    std::vector<FactorVar> refined = {};  // non-empty: this factor is the product of these
    FactorVar part_of = -1;               // whose `refined` has this one, or did before a Merge
    FactorDim derived_from = {};          // if is_derived: size = product / div + others + add
    FactorDims derived_others = {};       // the other parts of a sum, each a product
    int64_t derived_add = 0;
    int64_t derived_div = 1;
    FactorDim half_of = {};  // non-empty: as large as the front half of this
    bool is_derived = false;
    SymExpr expr = {};  // non-empty: size = expr at `bindings_`, once bound
  };
  class SizeFinder;

  FactorVar Find(FactorVar factor) const;
  void ResolveInto(FactorVar factor, FactorDim* out) const;
  void Merge(FactorVar a, FactorVar b);
  // Refines a representative into (major, rest). Requires: major divides its size.
  std::pair<FactorVar, FactorVar> Split(FactorVar factor, int64_t major);
  // Whether it was cut out of a factor whose size follows from others.
  bool IsPartOfDerived(FactorVar part) const;
  // Whether the size is that of one dimension, and so many places more or fewer.
  static bool IsShifted(const Entry& entry);
  // Whether `back` is the rest of a dimension beside `front`, which is half of it.
  bool AreHalves(FactorVar front, FactorVar back) const;
  // Which of several parts changes with their product.
  size_t ChangingPart(const std::vector<FactorVar>& parts) const;

  std::vector<Entry> entries_;
  std::vector<FactorVar> roots_;
  std::map<std::string, FactorDim> by_expression_;
  SymBindings bindings_;
};

}  // namespace autosp
