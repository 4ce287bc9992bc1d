// Literals of a graph that may be functions of a size that the job changes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "compiler/passes/index_limits.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_dependence.h"

namespace autosp {

struct SizeLiteral {
  const Node* node = nullptr;
  double number = 0;
  int64_t size = 0;  // at export
  std::string form;  // "48 // 2"; empty: a number of the same order
};

// What meets positions along a dimension that changes, counts or sums over it, or places of it:
//
//   %a = arange(48)      %r = rsub(%a, 47)         47 may be 48 - 1
//   %m = lt(%a, 24)                                24 may be 48 // 2
//   %t = topk(%x, 12, 1)                           12 may be 48 // 4
//
// Each is of the size's order (from an eighth to four times as many), or, as the factor of a sum, a
// form of it. A constant of the model (a sliding window, the buckets of relative positions) cannot
// be told from a size, and is found too. Numbers that meet data only (eps, scales, token ids) are
// not.
//
// Requires: the graph has the sizes of the job, and its literals are those of the export.
class SizeLiterals {
 public:
  SizeLiterals(const Graph& graph, const GraphFactors& factors, const SizeDependence& dependence,
               const PassContext& context);

  // In the order of the graph.
  std::vector<SizeLiteral> Find();
  // Those that a constant was made of, once found: torch.tensor(48).
  std::vector<double> NumbersIn(ValueId constant) const;

 private:
  void Visit(const Node& node);
  void VisitArithmetic(const Node& node);
  void VisitPlaces(const Node& node);
  void VisitSlice(const Node& node);
  void VisitLookup(const Node& node);
  void VisitTriangle(const Node& node);
  void VisitChunks(const Node& node);
  void VisitMoves(const Node& node);
  void VisitFlatRoll(const Node& node);
  void VisitRange(const Node& node);
  void Meet(const Node& node, double number, const Dependence& dependence);
  // A place or a number of places of a dimension.
  void MeetPlaces(const Node& node, double number, ValueId value, int64_t dim);
  void Carry(const Node& node);
  void Reach(const Node& node);

  const Graph& graph_;
  const GraphFactors& factors_;
  const SizeDependence& dependence_;
  IndexLimits limits_;
  std::map<ValueId, std::vector<double>> carried_;  // literals that constants were made of
  std::map<ValueId, std::vector<double>> reached_;  // ends of places in constants
  std::vector<SizeLiteral> found_;
};

}  // namespace autosp
