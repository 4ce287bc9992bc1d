#include "compiler/passes/folded_sizes.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

bool IsNear(double a, double b) { return std::abs(a - b) <= 1e-9 * std::abs(b); }

// Numbers that people write: they say nothing of where they come from.
bool IsRound(double value) {
  for (const double each : {0.25, 0.5, 1.0, 2.0, 4.0}) {
    if (IsNear(value, each)) return true;
  }
  const double exponent = std::log10(value);
  return std::abs(exponent - std::round(exponent)) < 1e-9;
}

// "1 / 32" if `value` is made of `size` in that way; nothing if in none.
std::optional<std::string> FormOf(double value, int64_t size) {
  const auto number = static_cast<double>(size);
  if (IsNear(value, number)) return absl::StrCat(size);
  if (IsNear(value, 1 / number)) return absl::StrCat("1 / ", size);
  if (IsNear(value, std::sqrt(number))) return absl::StrCat("sqrt(", size, ")");
  if (IsNear(value, 1 / std::sqrt(number))) return absl::StrCat("1 / sqrt(", size, ")");
  return std::nullopt;
}

struct FoldedSize {
  int64_t size = 0;
  std::string words;
};

// Of a dimension that the archive has as a symbol nothing is folded: its numbers carry expressions.
bool IsConstant(const Graph& graph, const GraphFactors& factors, FactorVar root) {
  for (const GraphInput& input : graph.inputs) {
    const TensorType& type = graph.type(input.value);
    const FactorDims& dims = factors.values[input.value.index];
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] == FactorDim{root} && !type.sizes[i].expr.empty()) return false;
    }
  }
  return true;
}

// The sizes at export that a number may be made of, where the job changes them.
std::vector<FoldedSize> FoldedSizes(const Graph& graph, const GraphFactors& factors,
                                    const PassContext& context) {
  if (factors.seq < 0 || !IsConstant(graph, factors, factors.seq)) return {};
  std::vector<FoldedSize> folded;
  const int64_t seq = factors.table.Size(factors.seq);
  const bool seq_changes = context.seq_len > 0 && context.seq_len != seq;
  if (seq_changes) {
    folded.push_back({seq, "the sequence length at export"});
    folded.push_back({seq - 1, "the sequence length at export less one"});
  }
  if (factors.batch < 0 || !IsConstant(graph, factors, factors.batch)) return folded;
  const int64_t batch = factors.table.Size(factors.batch);
  const bool batch_changes = context.batch_size > 0 && context.batch_size != batch;
  if (batch > 1 && (seq_changes || batch_changes)) {
    folded.push_back({batch * seq, "batch x sequence length at export"});
    folded.push_back({batch * (seq - 1), "batch x (sequence length less one) at export"});
  }
  return folded;
}

// Sizes that the job leaves as they are: of parameters, heads, and what else no batch or sequence
// is part of.
std::set<int64_t> ModelSizes(const Graph& graph, const GraphFactors& factors) {
  std::set<int64_t> sizes;
  for (const GraphValue& value : graph.values) {
    const FactorDims& dims = factors.values[&value - graph.values.data()];
    for (const FactorDim& dim : dims) {
      if (!factors.table.FollowsRoot(dim)) sizes.insert(factors.table.Size(dim));
    }
  }
  return sizes;
}

// The numbers that a node computes with. Integers stand for many things, but as factors for one.
std::vector<double> NumbersOf(const Node& node) {
  std::vector<double> numbers;
  for (const Argument& argument : node.args) {
    if (const auto* number = std::get_if<double>(&argument)) numbers.push_back(*number);
  }
  const bool scales = node.op == "aten.mul.Tensor" || node.op == "aten.div.Tensor";
  const auto* factor = scales ? ArgumentAs<SymInt>(node.args, 1) : nullptr;
  if (factor != nullptr && factor->expr.empty()) {
    numbers.push_back(static_cast<double>(factor->value));
  }
  return numbers;
}

}  // namespace

void WarnOfFoldedSizes(const Graph& graph, const GraphFactors& factors,
                       const PassContext& context) {
  if (context.warnings == nullptr) return;
  const std::vector<FoldedSize> folded = FoldedSizes(graph, factors, context);
  if (folded.empty()) return;
  const std::set<int64_t> model_sizes = ModelSizes(graph, factors);
  for (const Node& node : graph.nodes) {
    for (const double number : NumbersOf(node)) {
      if (!(number > 0) || !std::isfinite(number) || IsRound(number)) continue;
      const auto found = std::ranges::find_if(
          folded, [&](const FoldedSize& each) { return FormOf(number, each.size).has_value(); });
      if (found == folded.end()) continue;
      const bool is_of_model = std::ranges::any_of(
          model_sizes, [&](int64_t size) { return FormOf(number, size).has_value(); });
      if (is_of_model) continue;
      const auto size = static_cast<double>(found->size);
      context.warnings->push_back(absl::StrCat(
          Describe(graph, node), ": the number ", number,
          IsNear(number, size)
              ? ""
              : absl::StrCat(" is ", *FormOf(number, found->size), ", and ", found->size),
          " was ", found->words, ", which the job changes: if the model ",
          "computed it from the shape, it is wrong at the job's size; export with dynamic shapes, ",
          "or train with the exported sizes"));
    }
  }
}

}  // namespace autosp
