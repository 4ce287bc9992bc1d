#include "compiler/lowering/infinite_values.h"

#include <cmath>
#include <set>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/lowering/padded_domain.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

using Ops = std::set<std::string_view>;

// Elements of what data is made of stand in the results of these as they are, or added up.
bool PassesElements(std::string_view op) {
  static const auto& ops =
      *new Ops{"aten.amax.default",   "aten.cat.default",          "aten.cumsum.default",
               "aten.gather.default", "aten.index_select.default", "aten.max.dim",
               "aten.scatter.src",    "aten.scatter.value",        "aten.sort.default",
               "aten.sort.stable",    "aten.sum.dim_IntList",      "aten.topk.default"};
  if (ops.contains(op)) return true;
  const OpRule* rule = FindOpRule(op);
  return rule != nullptr && rule->layout != ResultLayout::kContiguous;
}

// Numbers give no number outside of a domain that nothing is known to be in.
bool IsPartial(std::string_view op) {
  static const auto& with_a_number = *new Ops{"aten.fmod.Scalar", "aten.pow.Scalar",
                                              "aten.pow.Tensor_Scalar", "aten.remainder.Scalar"};
  return HasDomain(op) || with_a_number.contains(op);
}

// Of an operand they take sizes and types alone.
bool IsCreation(std::string_view op) {
  static const auto& ops =
      *new Ops{"aten.fill.Scalar",       "aten.full_like.default", "aten.new_full.default",
               "aten.new_ones.default",  "aten.new_zeros.default", "aten.ones_like.default",
               "aten.zeros_like.default"};
  return ops.contains(op);
}

bool Chooses(std::string_view op) {
  return op.starts_with("aten.where.") || op.starts_with("aten.masked_fill.");
}

class InfinityReader {
 public:
  explicit InfinityReader(const Graph& graph)
      : graph_(graph),
        is_infinite_(graph.values.size(), false),
        is_constant_(graph.values.size(), false) {}

  std::vector<bool> Run() && {
    for (const GraphInput& input : graph_.inputs) {
      const bool is_constant = input.kind == InputKind::kBuffer;
      is_constant_[input.value.index] = is_constant;
      is_infinite_[input.value.index] = is_constant && IsFloating(graph_.type(input.value).dtype);
    }
    for (const Node& node : graph_.nodes) Read(node);
    return std::move(is_infinite_);
  }

 private:
  void Read(const Node& node) {
    bool is_constant = true;
    bool is_infinite = HasInfiniteNumber(node);
    const bool reads = !IsCreation(node.op);
    for (ValueId operand : reads ? OperandsOf(node) : std::vector<ValueId>{}) {
      is_constant = is_constant && is_constant_[operand.index];
      is_infinite = is_infinite || is_infinite_[operand.index];
    }
    if (is_constant) {
      is_infinite = is_infinite || IsPartial(node.op);
    } else {
      // What data chooses is looked after where it is chosen (padded_domain.h).
      is_infinite = is_infinite && PassesElements(node.op) && !Chooses(node.op);
    }
    is_infinite = is_infinite && node.op != "aten.nan_to_num.default";
    for (ValueId output : node.outputs) {
      is_constant_[output.index] = is_constant;
      is_infinite_[output.index] = is_infinite && IsFloating(graph_.type(output).dtype);
    }
  }

  static bool HasInfiniteNumber(const Node& node) {
    for (size_t i = 0; i < node.args.size(); ++i) {
      const std::optional<double> number = NumberArgument(node.args, i);
      if (number && !std::isfinite(*number)) return true;
    }
    return false;
  }

  const Graph& graph_;
  std::vector<bool> is_infinite_;
  std::vector<bool> is_constant_;
};

}  // namespace

std::vector<bool> ValuesOfInfinities(const Graph& graph) { return InfinityReader(graph).Run(); }

}  // namespace autosp
