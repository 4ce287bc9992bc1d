#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/analysis/index_expr.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {
namespace {

// Elements of `table` that are named by `index` along one dimension; all dimensions at once where
// `dim` is none. One-hot vectors have no table, and `num_classes`.
struct IndexUse {
  ValueId table;
  std::optional<int64_t> dim;
  ValueId index;
  bool counts_from_end = false;  // negative indices do
  int64_t num_classes = 0;
  std::optional<int64_t> ignored = {};  // the label that a loss leaves out
  bool trains_others = false;           // every other label counts, as far as is known
};

int64_t CountOf(const Graph& graph, const IndexUse& use) {
  if (!use.table.valid()) return use.num_classes;
  const TensorType& type = graph.type(use.table);
  return use.dim ? type.sizes[*use.dim].value : type.numel();
}

std::vector<IndexUse> IndexUsesOf(const Graph& graph, const Node& node) {
  const ValueId table = TensorArgument(node.args, 0);
  if (node.op == "aten.embedding.default") {
    return {{.table = table, .dim = 0, .index = TensorArgument(node.args, 1)}};
  }
  if (node.op == "aten.one_hot.default") {
    return {{.table = ValueId{},
             .dim = std::nullopt,
             .index = table,
             .num_classes = graph.type(node.outputs[0]).sizes.back().value}};
  }
  if (node.op == "autosp.cross_entropy" || node.op == "autosp.cross_entropy_sum") {
    return {{.table = ValueId{},
             .dim = std::nullopt,
             .index = TensorArgument(node.args, 1),
             .num_classes = graph.type(table).sizes.back().value,
             .ignored = IntegerArgument(node.args, 2),
             .trains_others = node.op.ends_with("_sum") && !TensorArgument(node.args, 3).valid()}};
  }
  if (node.op == "aten.take.default") {
    return {{.table = table,
             .dim = std::nullopt,
             .index = TensorArgument(node.args, 1),
             .counts_from_end = true}};
  }
  if (node.op == "aten.index.Tensor" || node.op == "aten.index_put.default") {
    std::vector<IndexUse> uses;
    const auto* slots = ArgumentAs<ValueList>(node.args, 1);
    for (size_t i = 0; slots != nullptr && i < slots->size(); ++i) {
      const ValueId slot = (*slots)[i];
      if (!slot.valid() || graph.type(slot).dtype == DType::kBool) continue;
      uses.push_back(
          {.table = table, .dim = static_cast<int64_t>(i), .index = slot, .counts_from_end = true});
    }
    return uses;
  }
  const bool is_along_dim = node.op == "aten.index_select.default" ||
                            node.op == "aten.index_add.default" ||
                            node.op == "aten.gather.default" || node.op.starts_with("aten.scatter");
  const ValueId index = TensorArgument(node.args, 2);
  if (!is_along_dim || !index.valid() || graph.type(table).rank() == 0) return {};
  int64_t dim = IntegerArgument(node.args, 1).value_or(0);
  if (dim < 0) dim += graph.type(table).rank();
  return {{.table = table, .dim = dim, .index = index}};
}

// The least and the greatest of some integers. Both are among them, and where they are dense so is
// every one between.
struct Reached {
  int64_t low = 0;
  int64_t high = 0;
  bool is_dense = false;
};

// Requires: divisor > 0.
int64_t FloorOf(int64_t value, int64_t divisor) {
  return value >= 0 ? value / divisor : -((-value + divisor - 1) / divisor);
}

// What python's // makes of them.
std::optional<Reached> Quotient(const Reached& of, int64_t divisor) {
  if (divisor <= 0) return std::nullopt;
  return Reached{FloorOf(of.low, divisor), FloorOf(of.high, divisor), of.is_dense};
}

// What python's % makes of them.
std::optional<Reached> Remainder(const Reached& of, int64_t divisor) {
  if (divisor <= 0) return std::nullopt;
  const int64_t turn = FloorOf(of.low, divisor);
  if (turn == FloorOf(of.high, divisor)) {
    return Reached{of.low - turn * divisor, of.high - turn * divisor, of.is_dense};
  }
  if (!of.is_dense) return std::nullopt;
  return Reached{0, divisor - 1, of.high - of.low >= divisor - 1};
}

std::optional<Reached> Absolute(const Reached& of) {
  if (of.low >= 0) return of;
  if (of.high <= 0) return Reached{-of.high, -of.low, of.is_dense};
  if (!of.is_dense) return std::nullopt;
  return Reached{0, std::max(-of.low, of.high), true};
}

Reached Clamped(const Reached& of, std::optional<int64_t> low, std::optional<int64_t> high) {
  const auto clamp = [&](int64_t value) {
    if (low) value = std::max(value, *low);
    return high ? std::min(value, *high) : value;
  };
  return {clamp(of.low), clamp(of.high), of.is_dense};
}

std::optional<Reached> Scaled(const Reached& of, int64_t factor) {
  constexpr int64_t kMost = int64_t{1} << 30;  // no table is larger, and nothing overflows
  if (std::max({std::abs(of.low), std::abs(of.high), std::abs(factor)}) > kMost) {
    return std::nullopt;
  }
  const auto [low, high] = std::minmax({of.low * factor, of.high * factor});
  return Reached{low, high, of.is_dense && std::abs(factor) == 1};
}

// Arithmetic with one number; nullopt: another op.
std::optional<Reached> Through(const Node& node, const Reached& of) {
  if (node.op == "aten.abs.default") return Absolute(of);
  if (node.op == "aten.neg.default") return Scaled(of, -1);
  const std::optional<int64_t> number = IntegerArgument(node.args, 1);
  const std::optional<int64_t> last = IntegerArgument(node.args, 2);
  if (node.op == "aten.clamp.default") {
    const bool has_floats = ArgumentAs<double>(node.args, 1) || ArgumentAs<double>(node.args, 2);
    if (has_floats) return std::nullopt;
    return Clamped(of, number, last);
  }
  if (!number) return std::nullopt;
  if (node.op == "aten.clamp_min.default") return Clamped(of, number, std::nullopt);
  if (node.op == "aten.clamp_max.default") return Clamped(of, std::nullopt, number);
  if (node.op == "aten.remainder.Scalar") return Remainder(of, *number);
  if (node.op == "aten.mul.Tensor") return Scaled(of, *number);
  if (node.op == "aten.floor_divide.default") return Quotient(of, *number);
  const auto* rounding = ArgumentAs<std::string>(node.args, 2);
  if (node.op == "aten.div.Tensor_mode" && rounding != nullptr && *rounding == "floor") {
    return Quotient(of, *number);
  }
  if (last.value_or(1) != 1) return std::nullopt;  // alpha
  if (node.op == "aten.add.Tensor")
    return Reached{of.low + *number, of.high + *number, of.is_dense};
  if (node.op == "aten.sub.Tensor")
    return Reached{of.low - *number, of.high - *number, of.is_dense};
  if (node.op == "aten.rsub.Scalar") {
    return Reached{*number - of.high, *number - of.low, of.is_dense};
  }
  return std::nullopt;
}

// A number of the job among indices, and what has become of it there.
struct FedIndex {
  const FedNumber* number = nullptr;
  int64_t index = 0;
};

// Finds the least and the greatest of indices: of provable functions of their place, of constants
// of the model, of which all elements are used, and of either after arithmetic with a number. Finds
// numbers of the job among them in the same way.
class IndexRanges {
 public:
  IndexRanges(const Graph& graph, const PassContext& context)
      : graph_(graph), context_(context), evaluator_(graph), definer_(DefiningNodes(graph)) {}

  std::optional<Reached> Of(ValueId index) {
    Path path;
    while (index.valid() && !IsFloating(graph_.type(index).dtype)) {
      std::optional<Reached> reached = AtOnce(index);
      if (reached) return AlongPath(*reached, path);
      if (!StepBack(index, path)) return std::nullopt;
    }
    return std::nullopt;
  }

  std::vector<FedIndex> Fed(ValueId index) const {
    std::vector<FedIndex> fed;
    Path path;
    while (index.valid() && !IsFloating(graph_.type(index).dtype)) {
      if (StepBack(index, path)) continue;
      const GraphInput* input = graph_.FindInput(index);
      const auto found = context_.fed_numbers.find(input == nullptr ? "" : input->name);
      if (found == context_.fed_numbers.end()) break;
      for (const FedNumber& number : found->second) {
        const auto reached = AlongPath({number.value, number.value, /*is_dense=*/true}, path);
        if (reached) fed.push_back({&number, reached->low});
      }
      break;
    }
    return fed;
  }

 private:
  using Path = std::vector<const Node*>;  // from an index to what it was made of

  // Whether a node made `index`, which becomes the first operand of that.
  bool StepBack(ValueId& index, Path& path) const {
    if (definer_[index.index] < 0) return false;
    path.push_back(&graph_.nodes[definer_[index.index]]);
    index = TensorArgument(path.back()->args, 0);
    return true;
  }

  static std::optional<Reached> AlongPath(Reached reached, const Path& path) {
    for (auto node = path.rbegin(); node != path.rend(); ++node) {
      if (KeepsElements(**node)) continue;
      const std::optional<Reached> next = Through(**node, reached);
      if (!next) return std::nullopt;
      reached = *next;
    }
    return reached;
  }

  std::optional<Reached> AtOnce(ValueId index) {
    const IndexExprPtr element = evaluator_.Element(index);
    Reached reached;
    const bool is_known = element->kind == IndexExpr::Kind::kAffine &&
                          evaluator_.Range(element->affine, &reached.low, &reached.high);
    if (!is_known) return OfConstant(index);
    reached.is_dense = std::ranges::all_of(element->affine.terms, [&](const auto& term) {
      return std::abs(term.second) == 1 && evaluator_.FindLookup(term.first) == nullptr;
    });
    return reached;
  }

  std::optional<Reached> OfConstant(ValueId index) const {
    const GraphInput* input = graph_.FindInput(index);
    if (input == nullptr) return std::nullopt;
    const auto found = context_.constant_ranges.find(input->name);
    if (found == context_.constant_ranges.end()) return std::nullopt;
    return Reached{found->second.first, found->second.second, /*is_dense=*/false};
  }

  const Graph& graph_;
  const PassContext& context_;
  IndexEvaluator evaluator_;
  const std::vector<int32_t> definer_;
};

bool IsThere(const IndexUse& use, int64_t count, int64_t index) {
  return index == use.ignored || (index < count && index >= (use.counts_from_end ? -count : 0));
}

// The first index that is not there; none where all are, or where they are data.
std::optional<int64_t> FindOutside(const Graph& graph, const IndexUse& use, IndexRanges& ranges) {
  const std::optional<Reached> reached = ranges.Of(use.index);
  if (!reached) return std::nullopt;
  const auto [low, high, is_dense] = *reached;
  const int64_t count = CountOf(graph, use);
  if (!IsThere(use, count, high)) return high;
  return IsThere(use, count, low) ? std::nullopt : std::optional(low);
}

// "in embed.weight, which has 11 rows", "among 11 classes".
std::string TableOf(const Graph& graph, const IndexUse& use) {
  const int64_t count = CountOf(graph, use);
  if (!use.table.valid()) return absl::StrCat("among ", count, " classes");
  const GraphInput* input = graph.FindInput(use.table);
  const std::string name = input != nullptr ? input->name : "%" + graph.value(use.table).name;
  return absl::StrCat("in ", name, ", which has ", count, use.dim == 0 ? " rows" : " places");
}

// What makes `number` one that the table has, whose indices are below `count`.
std::string RemedyOf(const FedNumber& number, int64_t count) {
  switch (number.kind) {
    case FedNumber::Kind::kToken:
      return absl::StrCat("; set ", number.key,
                          " to a token that is there, or export a model with a place for it");
    case FedNumber::Kind::kIgnoredLabel:
      return "; leave labels that do not count out of the look-up, as labels.clamp(min=0) does";
    case FedNumber::Kind::kLastPosition:
      return absl::StrCat("; set ", number.key, " so that the last place is below ", count);
  }
  return "";
}

// Numbers of the job that have no place in the table that they are looked up in, which its ranks
// would find in the first step that has one; and labels that shall not count, and do.
absl::Status CheckFedNumbers(const Graph& graph, const Node& node, const IndexUse& use,
                             const IndexRanges& ranges) {
  const int64_t count = CountOf(graph, use);
  for (const auto& [number, index] : ranges.Fed(use.index)) {
    // Padded labels are left out.
    if (use.ignored && number->kind == FedNumber::Kind::kToken) continue;
    const bool is_own = index == number->value;
    const bool is_label = number->kind == FedNumber::Kind::kIgnoredLabel && is_own && use.ignored;
    const bool is_trained = is_label && use.trains_others && index != use.ignored;
    if (IsThere(use, count, index) && !is_trained) continue;
    const bool is_position = number->kind == FedNumber::Kind::kLastPosition;
    const std::string which =
        absl::StrCat(number->key, ": ", is_position ? "position " : "", number->value);
    const std::string by = Describe(graph, node);
    if (is_label) {
      return InvalidArgument(which, " is not the label that ", by, " leaves out, which is ",
                             *use.ignored, "; set ", number->key, " to ", *use.ignored,
                             ", or give the loss this ignore_index");
    }
    const std::string as = is_own ? "" : absl::StrCat(" as place ", index);
    return InvalidArgument(which, " is looked up", as, " ", TableOf(graph, use), ", by ", by,
                           RemedyOf(*number, count));
  }
  return absl::OkStatus();
}

// Whether more places are there at another length or batch: the table follows one of them.
absl::StatusOr<bool> FollowsInputs(const Graph& graph, const PassContext& context,
                                   const IndexUse& use) {
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  const FactorDims& dims = factors.values[use.table.index];
  if (use.dim) return factors.table.FollowsRoot(dims[*use.dim]);
  return std::ranges::any_of(dims,
                             [&](const FactorDim& dim) { return factors.table.FollowsRoot(dim); });
}

}  // namespace

// Refuses a look-up of places that are not there, before anything runs: learned positions end at
// the length that the model was made for, and places that were constants at export may lie beyond
// the job's length. Only indices that are provable functions of their place, constants of the model
// or numbers of the job are checked; token ids are data.
absl::StatusOr<bool> CheckIndexBounds(Graph& graph, const PassContext& context) {
  IndexRanges ranges(graph, context);
  for (const Node& node : graph.nodes) {
    for (const IndexUse& use : IndexUsesOf(graph, node)) {
      RETURN_IF_ERROR(CheckFedNumbers(graph, node, use, ranges));
      const std::optional<int64_t> outside = FindOutside(graph, use, ranges);
      if (!outside) continue;
      const int64_t count = CountOf(graph, use);
      if (!use.table.valid()) {
        return InvalidArgument(Describe(graph, node), ": has class ", *outside, " of ", count,
                               "; set training.seq_len so that the last one is below ", count);
      }
      const std::string& name = graph.value(use.table).name;
      if (node.op == "aten.embedding.default") {
        return InvalidArgument(
            Describe(graph, node), ": looks up row ", *outside, " of %", name, ", a table of ",
            count, " rows; ",
            *outside < 0
                ? "a row below 0 follows from a number made of another size: train with "
                  "the exported sizes, or export with dynamic shapes"
                : absl::StrCat("set training.seq_len so that the last position is below ", count));
      }
      const std::string where =
          use.dim ? absl::StrCat("dimension ", *use.dim, " of %", name) : "%" + name;
      ASSIGN_OR_RETURN(const bool follows, FollowsInputs(graph, context, use));
      return InvalidArgument(
          Describe(graph, node), ": looks up place ", *outside, " of ", where, ", which has ",
          count,
          follows ? "; set training.seq_len to a length that has all places that the model names"
                  : " at any batch and length, as it was made of the exported sizes; train with "
                    "those, or export with dynamic shapes");
    }
  }
  return false;
}

}  // namespace autosp
