// Integer and boolean tensors as functions of their own indices.
//
// Exported models build masks and positions from arange, diff, cumsum, comparisons and look-ups.
// Read as a function of the index variables, most of that folds: with positions 0, 1, 2, ... the
// packed-document test disappears and `mask[b, 0, q, k]` becomes `k - q <= 0`. Nothing is matched
// by shape or by exporter: an op contributes its definition, and affine arithmetic over ranges does
// the rest.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

class IndexExpr;
using IndexExprPtr = std::shared_ptr<const IndexExpr>;

// constant + sum of coefficient * atom. An atom is an index variable or an opaque look-up, by key.
struct Affine {
  int64_t constant = 0;
  std::map<std::string, int64_t> terms;  // key of atom -> coefficient, never 0
};

class IndexExpr {
 public:
  enum class Kind : uint8_t {
    kAffine,
    kLessEqual,  // affine <= 0
    kEqual,      // affine == 0
    kAnd,
    kOr,
    kNot,
    kUnknown,  // not a function that this analysis can write down
  };
  Kind kind = Kind::kUnknown;
  Affine affine;                       // kAffine, kLessEqual, kEqual
  std::vector<IndexExprPtr> operands;  // kAnd, kOr, kNot
  std::string ToString() const;        // equal text, equal function
};

// A look-up that is not known further: an element of a value, at indices that may depend on the
// index variables.
struct Lookup {
  ValueId value;
  std::vector<IndexExprPtr> at;
};

// A floating value that is 0 in some places, and in the others between `low` and `high`: masks that
// are added to scores, and factors of 0 and 1.
struct ZeroOr {
  IndexExprPtr is_other;  // true where the value is not 0
  double low = 0;
  double high = 0;
};

// The forms that other parts of this analysis put together (index_expr.cc).
IndexExprPtr ConstantIndex(int64_t value);
IndexExprPtr UnknownIndex();
IndexExprPtr NotOf(const IndexExprPtr& a);
IndexExprPtr AndOf(const IndexExprPtr& a, const IndexExprPtr& b);
IndexExprPtr OrOf(const IndexExprPtr& a, const IndexExprPtr& b);

// Evaluates values of a graph at symbolic indices.
class IndexEvaluator {
 public:
  explicit IndexEvaluator(const Graph& graph);

  // The element of `value` at index variables i0, i1, ... (each from 0 to its size - 1).
  IndexExprPtr Element(ValueId value);
  // The same of a floating value; nullopt: it has other numbers, or none that are known.
  std::optional<ZeroOr> FloatElement(ValueId value);

  // What an atom looks up; nullptr: it is an index variable.
  const Lookup* FindLookup(const std::string& atom) const;

  // The smallest and largest value of an affine expression; false where an atom has no known range.
  bool Range(const Affine& affine, int64_t* low, int64_t* high) const;

 private:
  using Indices = std::vector<IndexExprPtr>;
  static constexpr int kMaxDepth = 400;         // of nested definitions
  static constexpr int64_t kMaxSteps = 200000;  // per element, against graphs that blow up
  Indices IndicesOf(ValueId value);
  IndexExprPtr Evaluate(ValueId value, const Indices& at);
  // At the dimensions of `value`, those of a value that it is stretched to.
  Indices Stretched(ValueId value, const Indices& at) const;
  // Where a view reads its operand; nullopt: no view, or one that is not known.
  std::optional<Indices> ViewedAt(const Node& node, const Indices& at) const;
  // index_views.cc: the same of a reshape.
  std::optional<Indices> ReshapedAt(const std::vector<int64_t>& from,
                                    const std::vector<int64_t>& to, const Indices& at) const;
  std::optional<Indices> DigitsOf(const IndexExprPtr& index,
                                  const std::vector<int64_t>& sizes) const;
  // Of a tensor: true where it is not 0.
  IndexExprPtr Truth(ValueId value, const Indices& at);
  IndexExprPtr EvaluateTriangle(const Node& node, const Indices& at);
  IndexExprPtr IsAtMost(const Node& node, const Indices& at, int64_t slack);
  // Where tril and triu keep what they are given.
  IndexExprPtr Triangle(const Node& node, const Indices& at);
  // index_floats.cc
  std::optional<ZeroOr> EvaluateFloat(ValueId value, const Indices& at);
  std::optional<ZeroOr> EvaluateFloatNode(const Node& node, const Indices& at);
  std::optional<ZeroOr> FloatOperand(const Node& node, size_t arg, const Indices& at);
  std::optional<ZeroOr> FloatChoice(const Node& node, size_t condition, size_t where_true,
                                    size_t where_false, const Indices& at);
  bool IsChosen(ValueId value) const;
  // Comparisons of such a value with a number.
  IndexExprPtr CompareFloat(const Node& node, std::string_view op, const Indices& at);
  IndexExprPtr EvaluateNode(const Node& node, const Indices& at);
  IndexExprPtr EvaluateView(const Node& node, const Indices& at);
  IndexExprPtr EvaluateArithmetic(const Node& node, const Indices& at);
  IndexExprPtr EvaluateLookup(const Node& node, const Indices& at);
  IndexExprPtr EvaluateScan(const Node& node, const Indices& at);
  IndexExprPtr Operand(const Node& node, size_t arg, const Indices& at);
  IndexExprPtr Atom(const std::string& key, int64_t low, int64_t high);
  IndexExprPtr Opaque(ValueId value, const Indices& at);
  IndexExprPtr LessEqual(const IndexExprPtr& a, const IndexExprPtr& b, int64_t slack);
  IndexExprPtr Equal(const IndexExprPtr& a, const IndexExprPtr& b);

  const Graph& graph_;
  std::vector<int32_t> definer_;
  std::map<std::string, std::pair<int64_t, int64_t>> ranges_;  // of atoms with a known range
  std::map<std::string, Lookup> lookups_;                      // by atom
  int depth_ = 0;
  int64_t steps_ = 0;
};

}  // namespace autosp
