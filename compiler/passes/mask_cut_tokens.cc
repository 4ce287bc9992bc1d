#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "common/status_macros.h"
#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/mean_as_sum.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_rewriter.h"
#include "compiler/rules/factor_roles.h"

namespace autosp {
namespace {

// What is computed for tokens that were cut off is thrown away: more of them than one in so many is
// better gathered than computed.
constexpr int64_t kLargestPart = 4;

bool IsCrossEntropy(const Node& node) {
  return node.op == "autosp.cross_entropy_sum" || node.op == "autosp.cross_entropy";
}

// Whether an op has no number, none that fits, or no derivative for some numbers.
bool HasPoles(const Node& node) {
  constexpr std::string_view kOps[] = {"acos",
                                       "acosh",
                                       "asin",
                                       "atan2",
                                       "atanh",
                                       "cosh",
                                       "digamma",
                                       "div",
                                       "erfinv",
                                       "exp",
                                       "exp2",
                                       "expm1",
                                       "fmod",
                                       "hypot",
                                       "i0",
                                       "lgamma",
                                       "linalg_vector_norm",
                                       "log",
                                       "log10",
                                       "log1p",
                                       "log2",
                                       "logit",
                                       "norm",
                                       "polygamma",
                                       "pow",
                                       "reciprocal",
                                       "remainder",
                                       "rsqrt",
                                       "sinh",
                                       "special_entr",
                                       "special_erfcx",
                                       "special_i1",
                                       "special_log_ndtr",
                                       "special_ndtri",
                                       "sqrt",
                                       "tan",
                                       "xlogy"};
  return node.op.starts_with("aten.") &&
         std::ranges::find(kOps, OpBaseName(node.op)) != std::end(kOps);
}

// A slice of the sequence.
struct Cut {
  FactorVar factor = -1;  // of what is left
  FactorVar from = -1;    // of what was cut; -1: the sequence
  int64_t dim = 0;
  int64_t start = 0;
  int64_t removed = 0;  // tokens of the sequence, at both ends together
};

// Finds what is left of sequences that were cut, and whether all that is done with it can be done
// with whole ones.
class CutFinder {
 public:
  CutFinder(const Graph& graph, const GraphFactors& factors) : graph_(graph), factors_(factors) {
    seq_ = factors.table.Resolve(FactorDim{factors.seq});
  }

  // By node.
  std::map<size_t, Cut> Find() {
    std::map<size_t, Cut> cuts;
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (const std::optional<Cut> cut = CutOf(graph_.nodes[i])) cuts.emplace(i, *cut);
    }
    std::set<FactorVar> possible = FactorsOfFloats(cuts);
    const auto refuse = [&](ValueId value) {
      for (FactorVar factor : CutFactorsIn(value, possible)) possible.erase(factor);
    };
    for (ValueId output : graph_.outputs) refuse(output);
    // A table of S - 1 rows has no others.
    for (const GraphInput& input : graph_.inputs) refuse(input.value);
    for (FactorVar factor : WithOtherNumbers(cuts, possible)) possible.erase(factor);
    // What was cut twice stands or falls together.
    for (bool changed = true; changed && !possible.empty();) {
      const size_t before = possible.size();
      for (size_t i = 0; i < graph_.nodes.size(); ++i) {
        const auto cut = cuts.find(i);
        if (cut != cuts.end() && IsPossible(cut->second, possible)) continue;
        if (cut != cuts.end()) possible.erase(cut->second.factor);
        for (FactorVar factor : RefusedBy(i)) possible.erase(factor);
      }
      changed = possible.size() != before;
    }
    std::erase_if(cuts, [&](const auto& each) { return !IsPossible(each.second, possible); });
    return cuts;
  }

  static bool Holds(const FactorDims& dims, FactorVar factor) {
    return std::ranges::any_of(
        dims, [&](const FactorDim& dim) { return std::ranges::count(dim, factor) > 0; });
  }

 private:
  static bool IsPossible(const Cut& cut, const std::set<FactorVar>& possible) {
    return possible.contains(cut.factor) && (cut.from < 0 || possible.contains(cut.from));
  }

  std::optional<Cut> CutOf(const Node& node) const {
    if (node.op != "aten.slice.Tensor" || IntegerArgument(node.args, 4).value_or(1) != 1) return {};
    const ValueId self = TensorArgument(node.args, 0);
    const FactorDims from = factors_.Of(self);
    const auto rank = static_cast<int64_t>(from.size());
    Cut cut{.dim = IntegerArgument(node.args, 1).value_or(0)};
    if (cut.dim < 0) cut.dim += rank;
    const FactorDims to = factors_.Of(node.outputs[0]);
    if (cut.dim < 0 || cut.dim >= rank || static_cast<int64_t>(to.size()) != rank) return {};
    if (to[cut.dim].size() != 1) return std::nullopt;
    cut.factor = to[cut.dim][0];
    cut.removed = factors_.table.CutFrom(cut.factor, factors_.seq);
    int64_t removed_before = 0;
    if (from[cut.dim] != seq_) {
      if (from[cut.dim].size() != 1) return std::nullopt;
      cut.from = from[cut.dim][0];
      removed_before = factors_.table.CutFrom(cut.from, factors_.seq);
      if (removed_before == 0) return std::nullopt;
    }
    const int64_t size = factors_.table.Size(seq_);
    const bool is_small = cut.removed == 1 || cut.removed * kLargestPart <= size;
    if (cut.removed == 0 || !is_small) return std::nullopt;
    cut.start = IntegerArgument(node.args, 2).value_or(0);
    if (cut.start < 0) cut.start += size - removed_before;
    if (cut.start < 0 || cut.start > cut.removed - removed_before) return std::nullopt;
    return cut;
  }

  // Those that activations have: integers alone are small. And no two in one value, where a mask
  // would be one of pairs.
  std::set<FactorVar> FactorsOfFloats(const std::map<size_t, Cut>& cuts) const {
    std::set<FactorVar> all;
    for (const auto& [node, cut] : cuts) all.insert(cut.factor);
    std::set<FactorVar> found;
    std::set<FactorVar> paired;
    for (const Node& node : graph_.nodes) {
      if (all.empty()) break;
      for (ValueId output : node.outputs) {
        const std::set<FactorVar> here = CutFactorsIn(output, all);
        if (here.size() > 1) paired.insert(here.begin(), here.end());
        if (IsFloating(graph_.type(output).dtype)) found.insert(here.begin(), here.end());
      }
    }
    for (FactorVar factor : paired) found.erase(factor);
    return found;
  }

  // Those of which the places that were cut hold what no token has: a difference of the last token
  // and the first, a position beyond the last. An op that has no number there, or no derivative,
  // would leave none of the sum that it is masked out of: zero times infinity.
  std::set<FactorVar> WithOtherNumbers(const std::map<size_t, Cut>& cuts,
                                       const std::set<FactorVar>& all) const {
    std::set<FactorVar> moved;
    std::set<FactorVar> partial;
    for (const auto& [node, cut] : cuts) {
      const bool is_float = IsFloating(graph_.type(graph_.nodes[node].outputs[0]).dtype);
      if (is_float && cut.start > 0) moved.insert(cut.factor);
    }
    for (const Node& node : graph_.nodes) {
      const std::vector<ValueId> operands = OperandsOf(node);
      for (ValueId output : node.outputs) {
        const std::set<FactorVar> here = CutFactorsIn(output, all);
        if (operands.empty()) moved.insert(here.begin(), here.end());
      }
      if (!HasPoles(node)) continue;
      for (ValueId operand : operands) {
        const std::set<FactorVar> here = CutFactorsIn(operand, all);
        partial.insert(here.begin(), here.end());
      }
    }
    std::set<FactorVar> both;
    std::ranges::set_intersection(moved, partial, std::inserter(both, both.begin()));
    return both;
  }

  std::set<FactorVar> CutFactorsIn(ValueId value, const std::set<FactorVar>& all) const {
    std::set<FactorVar> found;
    for (const FactorDim& dim : factors_.Of(value)) {
      for (FactorVar factor : dim) {
        if (all.contains(factor)) found.insert(factor);
      }
    }
    return found;
  }

  // The factors of which a node needs exactly those places that there are.
  std::set<FactorVar> RefusedBy(size_t index) const {
    const Node& node = graph_.nodes[index];
    const FactorRoles roles = FactorRolesOf(graph_, factors_, index);
    std::set<FactorVar> refused = roles.max;
    // A mean becomes a sum.
    if (!IsMean(node)) refused.insert(roles.whole.begin(), roles.whole.end());
    for (FactorVar factor : LookedBackOver(node)) refused.erase(factor);
    if (!IsSum(node) && !IsCrossEntropy(node)) refused.insert(roles.sum.begin(), roles.sum.end());
    // A loss of probabilities has no label that it ignores.
    const bool has_labels = IsCrossEntropy(node) && IntegerArgument(node.args, 2) &&
                            !IsFloating(graph_.type(TensorArgument(node.args, 1)).dtype);
    if (IsCrossEntropy(node) && !has_labels) {
      for (const FactorDim& dim : factors_.Of(TensorArgument(node.args, 0))) {
        refused.insert(dim.begin(), dim.end());
      }
    }
    return refused;
  }

  // The factors of a dimension of which each place depends on those before it alone: what is added
  // behind the last place changes none.
  FactorDim LookedBackOver(const Node& node) const {
    const bool is_attention =
        (node.op == kSdpa && IsNone(ArgumentAt(node.args, 3))) || node.op == kMaskedAttention;
    if (is_attention && FlagArgument(node.args, 5).value_or(false)) {
      const FactorDims query = factors_.Of(TensorArgument(node.args, 0));
      const FactorDims key = factors_.Of(TensorArgument(node.args, 1));
      if (query.size() < 2 || key.size() < 2) return {};
      const FactorDim& tokens = query[query.size() - 2];
      return tokens == key[key.size() - 2] ? tokens : FactorDim{};
    }
    if (node.op != "aten.cumsum.default") return {};
    const FactorDims dims = factors_.Of(TensorArgument(node.args, 0));
    const auto rank = static_cast<int64_t>(dims.size());
    int64_t dim = IntegerArgument(node.args, 1).value_or(0);
    if (dim < 0) dim += rank;
    return dim < 0 || dim >= rank ? FactorDim{} : dims[dim];
  }

  const Graph& graph_;
  const GraphFactors& factors_;
  FactorDim seq_;
};

// Rewrites the nodes of a graph whose sizes are whole already.
class CutMasker {
 public:
  CutMasker(Graph& graph, const GraphFactors& factors, const std::map<size_t, Cut>& cuts)
      : graph_(graph), factors_(factors), cuts_(cuts), rewriter_(graph) {
    for (const auto& [node, cut] : cuts) removed_[cut.factor] = cut.removed;
  }

  bool Run() {
    for (size_t i = 0; i < rewriter_.nodes().size(); ++i) {
      const Node& node = rewriter_.nodes()[i];
      if (const auto cut = cuts_.find(i); cut != cuts_.end()) {
        Shift(node, cut->second);
      } else if (IsCrossEntropy(node)) {
        Mask(node, 1, SymInt(IntegerArgument(node.args, 2).value_or(0)));
      } else if (IsSum(node)) {
        Mask(node, 0, SymInt(0));
      } else if (IsMean(node)) {
        SumInsteadOfMean(node);
      } else {
        rewriter_.Keep(node);
      }
    }
    return rewriter_.Finish();
  }

 private:
  // Where a factor that was cut stands in a value.
  struct Place {
    int64_t dim = 0;
    int64_t before = 1;  // of the dimension: the places of what stands in front of the factor
    int64_t size = 1;
    int64_t behind = 1;
    int64_t removed = 0;
  };

  std::optional<Place> PlaceIn(ValueId value) const {
    const FactorDims dims = factors_.Of(value);
    for (size_t d = 0; d < dims.size(); ++d) {
      for (size_t i = 0; i < dims[d].size(); ++i) {
        const auto found = removed_.find(dims[d][i]);
        if (found == removed_.end()) continue;
        Place place{.dim = static_cast<int64_t>(d), .removed = found->second};
        place.size = factors_.table.Size(dims[d][i]);
        for (size_t j = 0; j < dims[d].size(); ++j) {
          if (j < i) place.before *= factors_.table.Size(dims[d][j]);
          if (j > i) place.behind *= factors_.table.Size(dims[d][j]);
        }
        return place;
      }
    }
    return std::nullopt;
  }

  // x[:, start:] is x moved by `start`, with any tokens at the end. Those from the front are
  // numbers of the model's own: zeros might be divided by.
  void Shift(const Node& node, const Cut& cut) {
    const ValueId self = TensorArgument(node.args, 0);
    if (cut.start == 0) return rewriter_.Replace(node.outputs[0], self);
    rewriter_.Replace(node.outputs[0], rewriter_.EmitOne(node, "aten.roll.default",
                                                         {self, IntList{SymInt(-cut.start)},
                                                          IntList{SymInt(cut.dim)}},
                                                         Contiguous(graph_.type(self))));
  }

  // True for the places that were cut off, in a shape that stretches to that of `value`.
  ValueId CutPlaces(const Node& node, ValueId value, const Place& place) {
    const auto typed = [](DType dtype, std::vector<int64_t> sizes) {
      TensorType type;
      type.dtype = dtype;
      type.sizes.assign(sizes.begin(), sizes.end());
      type.strides = ContiguousStrides(sizes);
      return type;
    };
    const auto view = [&](ValueId mask, const std::vector<int64_t>& sizes) {
      return rewriter_.EmitOne(node, "aten.reshape.default",
                               {mask, IntList(sizes.begin(), sizes.end())},
                               typed(DType::kBool, sizes));
    };
    const ValueId places = rewriter_.EmitOne(node, "aten.arange.default",
                                             {SymInt(place.size), None{}, None{}, None{}, None{}},
                                             typed(DType::kI64, {place.size}));
    ValueId mask =
        rewriter_.EmitOne(node, "aten.ge.Scalar", {places, SymInt(place.size - place.removed)},
                          typed(DType::kBool, {place.size}));
    if (place.before * place.behind > 1) {
      const std::vector<int64_t> sizes = {place.before, place.size, place.behind};
      TensorType stretched = typed(DType::kBool, sizes);
      stretched.strides = {0, 1, 0};
      mask = rewriter_.EmitOne(
          node, "aten.expand.default",
          {view(mask, {1, place.size, 1}), IntList(sizes.begin(), sizes.end()), false}, stretched);
    }
    std::vector<int64_t> sizes(graph_.type(value).sizes.size() - place.dim, 1);
    sizes[0] = place.before * place.size * place.behind;
    return view(mask, sizes);
  }

  // `value` with `fill` where it was cut; itself where it was not.
  ValueId Masked(const Node& node, ValueId value, const Argument& fill) {
    const std::optional<Place> place = PlaceIn(value);
    if (!place) return value;
    return rewriter_.EmitOne(node, "aten.masked_fill.Scalar",
                             {value, CutPlaces(node, value, *place), fill},
                             Contiguous(graph_.type(value)));
  }

  void Mask(const Node& node, size_t arg, const Argument& fill) {
    const ValueId value = TensorArgument(node.args, arg);
    // A sum over other dimensions leaves the places that were cut where they are.
    const std::optional<Place> place = PlaceIn(value);
    if (!place || (IsSum(node) && !IsSummedOver(node, value))) return rewriter_.Keep(node);
    Node masked = node;
    masked.args[arg] = Masked(node, value, fill);
    std::vector<TensorType> types;
    for (ValueId output : node.outputs) types.push_back(graph_.type(output));
    const std::vector<ValueId> results =
        rewriter_.Emit(node, node.op, std::move(masked.args), std::move(types));
    for (size_t i = 0; i < results.size(); ++i) rewriter_.Replace(node.outputs[i], results[i]);
  }

  bool IsSummedOver(const Node& node, ValueId value) const {
    const FactorDims dims = factors_.Of(node.outputs[0]);
    return std::ranges::any_of(removed_, [&](const auto& each) {
      return CutFinder::Holds(factors_.Of(value), each.first) &&
             !CutFinder::Holds(dims, each.first);
    });
  }

  void SumInsteadOfMean(const Node& node) {
    const ValueId value = TensorArgument(node.args, 0);
    const std::optional<Place> place = PlaceIn(value);
    if (!place || !IsSummedOver(node, value)) return rewriter_.Keep(node);
    const int64_t num_results = graph_.type(node.outputs[0]).numel();
    int64_t count = graph_.type(value).numel() / std::max<int64_t>(1, num_results);
    count = count / place->size * (place->size - place->removed);
    ReplaceBySum(rewriter_, node, Masked(node, value, SymInt(0)), count);
  }

  Graph& graph_;
  const GraphFactors& factors_;
  const std::map<size_t, Cut>& cuts_;
  std::map<FactorVar, int64_t> removed_;
  GraphRewriter rewriter_;
};

// Whether it is worth it to look for factors.
bool MayCut(const Graph& graph, int64_t seq_len) {
  return std::ranges::any_of(graph.nodes, [&](const Node& node) {
    if (node.op != "aten.slice.Tensor") return false;
    const std::vector<SymInt>& from = graph.type(TensorArgument(node.args, 0)).sizes;
    const std::vector<SymInt>& to = graph.type(node.outputs[0]).sizes;
    for (size_t i = 0; i < from.size(); ++i) {
      const bool is_sequence = seq_len == 0 || from[i].value == seq_len;
      if (is_sequence && to[i].value < from[i].value) return true;
    }
    return false;
  });
}

}  // namespace

// Tokens that a model cuts off its sequence before a loss or a mean are kept, and masked out of the
// sums: ranks hold shards of a sequence, and have none of S - 1 tokens. The last logits have no
// next token, and most code drops them with a slice.
//
//   before  %l = aten.slice.Tensor(%logits, 1, 0, -1)           S -> S - 1
//           %t = aten.slice.Tensor(%labels, 1, 1, ...)
//           autosp.cross_entropy_sum(flatten(%l), flatten(%t), -100)
//   after   %t = labels moved by one
//           %m = aten.masked_fill(flatten(%t), the last of each sequence, -100)
//           autosp.cross_entropy_sum(flatten(%logits), %m, -100)
//
// Only where every op in between works on each token by itself, or on those before it (causal
// attention): what stands in the places that were cut reaches no other. Else the slice stays.
// Requires: the job's sizes; losses and means in canonical form.
absl::StatusOr<bool> MaskCutTokens(Graph& graph, const PassContext& context) {
  if (!MayCut(graph, context.seq_len)) return false;
  ASSIGN_OR_RETURN(GraphFactors factors, InferFactors(graph, context.roles));
  if (factors.seq < 0) return false;
  const std::map<size_t, Cut> cuts = CutFinder(graph, factors).Find();
  if (cuts.empty()) return false;
  Graph whole = graph;
  std::vector<TensorType> old_types;
  for (const GraphValue& value : graph.values) old_types.push_back(value.type);
  for (const auto& [node, cut] : cuts) factors.table.Restore(cut.factor);
  SetSizes(whole, factors);
  SizeRewriter sizes(whole, factors, old_types);
  for (size_t i = 0; i < whole.nodes.size(); ++i) {
    if (cuts.contains(i)) continue;
    // A size that no factor explains: the slices stay.
    if (!sizes.Rewrite(whole.nodes[i]).ok()) return false;
  }
  graph = std::move(whole);
  return CutMasker(graph, factors, cuts).Run();
}

}  // namespace autosp
