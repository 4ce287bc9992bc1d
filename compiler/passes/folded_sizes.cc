#include "compiler/passes/folded_sizes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/equal_numbers.h"
#include "compiler/passes/number_arguments.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/passes/size_forms.h"
#include "compiler/passes/size_literals.h"

namespace autosp {
namespace {

constexpr int64_t kLeastBatch = 4;  // below, the numbers that it makes are everybody's
constexpr int64_t kLeastSize = 8;   // below, numbers that are as large are everybody's too

// Factors that come from numbers of the graph alone (arange(48)), and from no input.
std::set<FactorVar> GeneratedFactors(const Graph& graph, const GraphFactors& factors,
                                     const SizeDependence& dependence) {
  std::set<FactorVar> generated;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const ValueId id{static_cast<int32_t>(i)};
    if (!dependence.IsGenerated(id)) continue;
    for (const FactorDim& dim : factors.Of(id)) generated.insert(dim.begin(), dim.end());
  }
  for (const GraphInput& input : graph.inputs) {
    for (const FactorDim& dim : factors.Of(input.value)) {
      for (const FactorVar factor : dim) generated.erase(factor);
    }
  }
  return generated;
}

// Sizes that the job leaves as they are: of parameters, heads, and what else no batch or sequence
// is part of. What no input has a part in may have been made of the length.
std::set<int64_t> ModelSizes(const Graph& graph, const GraphFactors& factors,
                             const SizeDependence& dependence) {
  const std::set<FactorVar> generated = GeneratedFactors(graph, factors, dependence);
  std::set<int64_t> sizes;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    for (const FactorDim& dim : factors.Of(ValueId{static_cast<int32_t>(i)})) {
      const bool is_generated =
          std::ranges::any_of(dim, [&](FactorVar factor) { return generated.contains(factor); });
      if (is_generated || factors.table.FollowsRoot(dim)) continue;
      sizes.insert(factors.table.Size(dim));
    }
  }
  return sizes;
}

// The numbers that a node computes with. Integers stand for many things, but as factors for one.
std::vector<double> NumbersOf(const Node& node) {
  std::vector<double> numbers;
  if (node.op.find("dropout") != std::string::npos) return numbers;
  for (const Argument& argument : node.args) {
    if (const auto* number = std::get_if<double>(&argument)) numbers.push_back(*number);
  }
  const auto* factor = Scales(node) || node.op == "aten.remainder.Scalar"
                           ? ArgumentAs<SymInt>(node.args, 1)
                           : nullptr;
  if (factor != nullptr && factor->expr.empty()) {
    numbers.push_back(static_cast<double>(factor->value));
  }
  return numbers;
}

bool IsRange(const Node& node) { return node.op.starts_with("aten.arange."); }

// Index arithmetic without an input that has the size in it, arange(32, 48) of a length of 48, and
// what is made of as many numbers: linspace(0, 1, 48).
std::vector<double> PlacesOf(const Graph& graph, const Node& node,
                             const SizeDependence& dependence) {
  std::vector<double> places;
  const ValueId output = node.outputs[0];
  if (!dependence.IsGenerated(output)) return places;
  const int64_t rank = MakesItsSizes(node) ? graph.type(output).rank() : 0;
  for (int64_t dim = 0; dim < rank; ++dim) {
    if (dependence.ChangedSize(output, dim)) continue;
    places.push_back(static_cast<double>(graph.type(output).sizes[dim].value));
  }
  if (dependence.ChangedSize(output, 0)) return places;
  for (size_t arg = 0; arg < std::min<size_t>(2, node.args.size()); ++arg) {
    const std::optional<double> number = LiteralArgument(node, arg);
    const bool is_place = IsRange(node) || GrowsWithOperands(node);
    if (is_place && number) places.push_back(std::abs(*number));
  }
  return places;
}

bool TakesWholeNumbers(const Graph& graph, const Node& node) {
  const std::vector<ValueId> operands = OperandsOf(node);
  return !operands.empty() && !IsFloating(graph.type(operands[0]).dtype) &&
         graph.type(operands[0]).dtype != DType::kBool;
}

class FoldedNumbers {
 public:
  FoldedNumbers(const Graph& graph, const std::vector<FoldedSize>& folded,
                std::set<int64_t> model_sizes)
      : graph_(graph), folded_(folded), model_sizes_(std::move(model_sizes)) {}

  std::optional<SizeLiteral> Find(const Node& node, const SizeDependence& dependence,
                                  const SizeLiterals& literals) const {
    // The ends of a range follow where it has as many numbers as the job's size.
    if (IsRange(node) && dependence.ChangedSize(node.outputs[0], 0)) return std::nullopt;
    std::vector<double> numbers = NumbersOf(node);
    for (const ValueId operand : OperandsOf(node)) {
      if (!Scales(node)) break;
      const std::vector<double> more = literals.NumbersIn(operand);
      numbers.insert(numbers.end(), more.begin(), more.end());
    }
    for (const double number : numbers) {
      for (const FoldedSize& each : folded_) {
        if (each.is_batch && (!Scales(node) || each.size < kLeastBatch)) continue;
        const std::optional<std::string> form = Form(number, each);
        if (form) return SizeLiteral{&node, number, each.size, *form};
      }
    }
    if (std::optional<SizeLiteral> literal = FindSize(node, literals)) return literal;
    for (const double number : PlacesOf(graph_, node, dependence)) {
      for (const FoldedSize& each : folded_) {
        const bool is_size = number == static_cast<double>(each.size) && each.size >= kLeastSize;
        if (!is_size || model_sizes_.contains(each.size)) continue;
        return SizeLiteral{&node, number, each.size, absl::StrCat(each.size)};
      }
    }
    return std::nullopt;
  }

 private:
  // A number that is a size itself: what whole numbers are wrapped around, or a large one anywhere.
  // One less is a size where it bounds. A number that tokens are compared with is one of them, and
  // a constant is one where it is used.
  std::optional<SizeLiteral> FindSize(const Node& node, const SizeLiterals& literals) const {
    const std::vector<ValueId> operands = OperandsOf(node);
    if (IsEquality(node) || operands.empty()) return std::nullopt;
    const bool wraps = Wraps(node) && TakesWholeNumbers(graph_, node);
    std::vector<double> numbers = LiteralNumbers(node);
    for (const ValueId operand : operands) {
      if (!GrowsWithOperands(node) && !IsBound(node)) break;
      const std::vector<double> more = literals.NumbersIn(operand);
      numbers.insert(numbers.end(), more.begin(), more.end());
    }
    for (const double number : numbers) {
      for (const FoldedSize& each : folded_) {
        const bool is_large = each.size >= kLeastSize && !each.is_batch && !IsRound(number) &&
                              (!each.is_less_one || IsBound(node));
        const bool is_size = number == static_cast<double>(each.size) && (wraps || is_large);
        if (!is_size || model_sizes_.contains(each.size)) continue;
        return SizeLiteral{&node, number, each.size, absl::StrCat(each.size)};
      }
    }
    return std::nullopt;
  }

  // nullopt: a number that says nothing, or one of the model.
  std::optional<std::string> Form(double number, const FoldedSize& folded) const {
    if (!(number > 0) || !std::isfinite(number) || IsRound(number)) return std::nullopt;
    const bool is_of_model = std::ranges::any_of(
        model_sizes_, [&](int64_t size) { return FormOf(number, size).has_value(); });
    const auto size = static_cast<double>(folded.size);
    if (is_of_model) return std::nullopt;
    if (folded.is_batch && !IsNear(number, size) && !IsNear(number, 1 / size)) return std::nullopt;
    return FormOf(number, folded.size);
  }

  const Graph& graph_;
  const std::vector<FoldedSize>& folded_;
  const std::set<int64_t> model_sizes_;
};

// A size of the job that the archive has as another constant.
struct ChangedConstant {
  int64_t before = 0;
  int64_t now = 0;
};
std::optional<ChangedConstant> FindChanged(const Graph& graph, const GraphFactors& factors,
                                           const std::vector<TensorType>& old_types,
                                           FactorVar root) {
  for (const GraphInput& input : graph.inputs) {
    const FactorDims& dims = factors.values[input.value.index];
    for (size_t i = 0; i < dims.size(); ++i) {
      const SymInt& before = old_types[input.value.index].sizes[i];
      const SymInt& now = graph.type(input.value).sizes[i];
      if (dims[i] != FactorDim{root} || !before.expr.empty() || before.value == now.value) continue;
      return ChangedConstant{before.value, now.value};
    }
  }
  return std::nullopt;
}

// One for each node, in the order of the graph.
std::vector<SizeLiteral> FindLiterals(const Graph& graph, const GraphFactors& factors,
                                      const SizeDependence& dependence,
                                      const std::vector<FoldedSize>& folded,
                                      const PassContext& context) {
  std::map<const Node*, SizeLiteral> by_node;
  SizeLiterals literals(graph, factors, dependence, context);
  for (SizeLiteral& each : literals.Find()) {
    by_node.try_emplace(each.node, std::move(each));
  }
  const FoldedNumbers numbers(graph, folded, ModelSizes(graph, factors, dependence));
  std::vector<SizeLiteral> found;
  for (const Node& node : graph.nodes) {
    if (const auto known = by_node.find(&node); known != by_node.end()) {
      found.push_back(std::move(known->second));
    } else if (std::optional<SizeLiteral> literal = numbers.Find(node, dependence, literals)) {
      found.push_back(*std::move(literal));
    }
  }
  return found;
}

std::string WordsOf(const SizeLiteral& literal, const std::vector<FoldedSize>& folded) {
  const auto known = std::ranges::find(folded, literal.size, &FoldedSize::size);
  const std::string words = known == folded.end() ? "a size at export" : known->words;
  if (literal.form.empty()) {
    return absl::StrCat(" may be made of ", literal.size, ", which was ", words);
  }
  if (literal.form == absl::StrCat(std::abs(literal.number))) return absl::StrCat(" was ", words);
  return absl::StrCat(" is ", literal.form, ", and ", literal.size, " was ", words);
}

// "b, c, d and 2 more nodes", of all but `first`: a line says where to look.
std::string OthersOf(const Graph& graph, const std::vector<SizeLiteral>& literals,
                     const SizeLiteral& first) {
  constexpr size_t kMostNamed = 3;
  std::vector<std::string> names;
  size_t num_left = 0;
  for (const SizeLiteral& each : literals) {
    if (each.node == first.node) continue;
    if (names.size() == kMostNamed) {
      ++num_left;
    } else {
      names.push_back(Describe(graph, *each.node));
    }
  }
  const std::string named = absl::StrJoin(names, ", ");
  if (num_left == 0) return named;
  return absl::StrCat(named, " and ", num_left, " more node", num_left == 1 ? "" : "s");
}

// Also of a constant, which is told of where it is used.
bool IsTold(const SizeLiteral& literal, const std::vector<SizeLiteral>& found) {
  return std::ranges::any_of(found, [&](const SizeLiteral& each) {
    return each.node == literal.node ||
           (MakesItsSizes(*literal.node) && each.number == literal.number);
  });
}

// The first number that is a form of a size is named, where there is one, before those that are
// only as large.
void WarnOfLiterals(const Graph& graph, const std::vector<SizeLiteral>& found,
                    const std::vector<FoldedSize>& folded, const PassContext& context) {
  auto first = std::ranges::find_if(found, [](const auto& each) { return !each.form.empty(); });
  if (first == found.end()) first = found.begin();
  const std::string others = OthersOf(graph, found, *first);
  context.warnings->push_back(absl::StrCat(
      Describe(graph, *first->node), ": the number ", first->number, WordsOf(*first, folded),
      ", which the job changes: if the model computed it from the shape, it is wrong at the job's ",
      "size", others.empty() ? "" : absl::StrCat(", and so may be those of ", others),
      "; export with dynamic shapes, or train with the exported sizes"));
}

// What numbers are made of sizes cannot be told for sure: a plan that is wrong for one that was not
// found should not come without a word.
void WarnOfConstants(const Graph& graph, const std::optional<ChangedConstant>& batch,
                     const std::optional<ChangedConstant>& seq,
                     const std::vector<SizeLiteral>& equal, const PassContext& context) {
  const std::string batch_words = batch ? absl::StrCat("a batch of ", batch->before) : "";
  const std::string seq_words = seq ? absl::StrCat("a sequence length of ", seq->before) : "";
  const std::string jobs = batch && seq
                               ? absl::StrCat(batch->now, " and ", seq->now, " in the job")
                               : absl::StrCat(batch ? batch->now : seq->now, " in the job");
  const bool has_both = batch && seq;
  std::string doubt =
      absl::StrCat("a number that the model's code computed from ", has_both ? "them" : "it",
                   " stays what it was, and cannot be told from the model's own");
  if (!equal.empty()) {
    const std::string others = OthersOf(graph, equal, equal[0]);
    doubt = absl::StrCat("whether ", Describe(graph, *equal[0].node), " has its number ",
                         equal[0].number, " from there, or from the model itself, cannot be told",
                         others.empty() ? "" : absl::StrCat(", nor of ", others));
  }
  context.warnings->push_back(absl::StrCat(
      "the archive has ", batch_words, has_both ? " and " : "", seq_words,
      has_both ? " as constants, which are " : " as a constant, which is ", jobs, ": ", doubt,
      "; export with dynamic shapes, or train with the exported sizes, to be sure"));
}

}  // namespace

bool IsConstantAtExport(const Graph& graph, const GraphFactors& factors, FactorVar root) {
  for (const GraphInput& input : graph.inputs) {
    const TensorType& type = graph.type(input.value);
    const FactorDims& dims = factors.values[input.value.index];
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] == FactorDim{root} && !type.sizes[i].expr.empty()) return false;
    }
  }
  return true;
}

std::vector<FoldedSize> FindFoldedSizes(const Graph& graph, const GraphFactors& factors,
                                        const PassContext& context) {
  std::vector<FoldedSize> folded;
  const auto changes = [&](FactorVar root, int64_t wanted) {
    return root >= 0 && wanted > 0 && wanted != factors.table.Size(root);
  };
  const bool has_seq = factors.seq >= 0 && IsConstantAtExport(graph, factors, factors.seq);
  const bool has_batch = factors.batch >= 0 && IsConstantAtExport(graph, factors, factors.batch);
  const int64_t seq = has_seq ? factors.table.Size(factors.seq) : 0;
  const int64_t batch = has_batch ? factors.table.Size(factors.batch) : 0;
  const bool seq_changes = has_seq && changes(factors.seq, context.seq_len);
  const bool batch_changes = has_batch && changes(factors.batch, context.batch_size);
  if (seq_changes) {
    folded.push_back({.size = seq, .words = "the sequence length at export"});
    folded.push_back(
        {.size = seq - 1, .words = "the sequence length at export less one", .is_less_one = true});
  }
  if (has_seq && batch > 1 && (seq_changes || batch_changes)) {
    folded.push_back(
        {.size = batch * seq, .words = "batch x sequence length at export", .is_product = true});
    folded.push_back({.size = batch * (seq - 1),
                      .words = "batch x (sequence length less one) at export",
                      .is_less_one = true,
                      .is_product = true});
  }
  if (batch_changes && batch > 1) {
    folded.push_back({.size = batch, .words = "the batch at export", .is_batch = true});
  }
  return folded;
}

void WarnOfFoldedSizes(const Graph& graph, const GraphFactors& factors,
                       const std::vector<TensorType>& old_types,
                       const std::vector<FoldedSize>& folded, bool is_warned,
                       const PassContext& context) {
  const auto batch = FindChanged(graph, factors, old_types, factors.batch);
  const auto seq = FindChanged(graph, factors, old_types, factors.seq);
  if (context.warnings == nullptr || (!batch && !seq)) return;
  const SizeDependence dependence(graph, old_types);
  const std::vector<SizeLiteral> found = FindLiterals(graph, factors, dependence, folded, context);
  if (!found.empty()) WarnOfLiterals(graph, found, folded, context);
  std::vector<SizeLiteral> equal =
      FindEqualNumbers(graph, factors, old_types, dependence, folded, context);
  std::erase_if(equal, [&](const SizeLiteral& each) { return IsTold(each, found); });
  const bool has_told = !found.empty() || is_warned;
  if (!has_told || !equal.empty()) WarnOfConstants(graph, batch, seq, equal, context);
}

}  // namespace autosp
