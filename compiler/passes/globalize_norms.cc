#include <algorithm>
#include <optional>
#include <utility>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/spell_out_batch_norm.h"
#include "compiler/passes/spelled_norm.h"

namespace autosp {
namespace {

// A norm of groups of channels of x [N, C, places...], over all places.
struct GroupNorm {
  ValueId self;
  ValueId weight;  // [C] or none, as the bias
  ValueId bias;
  int64_t num_groups = 1;
  double eps = 0;
};

// nullopt: another op, or a norm by statistics that are not those of its operand.
std::optional<GroupNorm> GroupNormOf(const Graph& graph, const Node& node) {
  const auto tensor = [&](size_t arg) { return TensorArgument(node.args, arg); };
  if (node.op == "aten.group_norm.default") {
    return GroupNorm{.self = tensor(0),
                     .weight = tensor(2),
                     .bias = tensor(3),
                     .num_groups = IntegerArgument(node.args, 1).value_or(1),
                     .eps = NumberArgument(node.args, 4).value_or(1e-5)};
  }
  const bool is_of_instances = node.op == "aten.instance_norm.default" && !tensor(3).valid() &&
                               !tensor(4).valid() && FlagArgument(node.args, 5).value_or(false);
  if (!is_of_instances) return std::nullopt;
  return GroupNorm{.self = tensor(0),
                   .weight = tensor(1),
                   .bias = tensor(2),
                   .num_groups = graph.type(tensor(0)).sizes[1].value,
                   .eps = NumberArgument(node.args, 7).value_or(1e-5)};
}

bool IsOverTokens(const GraphFactors& factors, const GroupNorm& norm) {
  const FactorDims dims = factors.Of(norm.self);
  for (size_t i = 2; i < dims.size(); ++i) {
    for (const FactorVar factor : dims[i]) {
      if (factors.table.IsPartOfRoot(factor)) return true;
    }
  }
  return false;
}

// Spells the norm out in fp32, in which ATen takes the statistics of half types too.
class NormSpeller {
 public:
  NormSpeller(GraphRewriter& rewriter, const Node& node, const GroupNorm& norm)
      : rewriter_(rewriter), node_(node), norm_(norm) {}

  void Replace() {
    const TensorType type = Contiguous(rewriter_.graph().type(node_.outputs[0]));
    const DType exact = type.dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    full_ = type;
    full_.dtype = exact;
    grouped_ = full_;
    grouped_.sizes[1] = SymInt(type.sizes[1].value / norm_.num_groups);
    grouped_.sizes.insert(grouped_.sizes.begin() + 1, SymInt(norm_.num_groups));
    grouped_ = Contiguous(grouped_);
    const ValueId x = View(CastTo(node_, norm_.self, exact, rewriter_), grouped_);
    // Over the channels of a group and all places.
    NormForm form;
    if (norm_.eps != 0) form.eps = norm_.eps;
    for (int64_t i = 2; i < grouped_.rank(); ++i) form.dims.emplace_back(i);
    ValueId result = View(Normalized(rewriter_, node_, x, form), full_);
    if (norm_.weight.valid()) {
      result = Op("aten.mul.Tensor", {result, OfChannels(norm_.weight)}, full_);
    }
    if (norm_.bias.valid()) {
      result = Op("aten.add.Tensor", {result, OfChannels(norm_.bias), SymInt(1)}, full_);
    }
    rewriter_.Replace(node_.outputs[0], CastTo(node_, result, type.dtype, rewriter_));
  }

 private:
  ValueId Op(std::string_view op, std::vector<Argument> args, const TensorType& type) {
    return rewriter_.EmitOne(node_, op, std::move(args), type);
  }
  ValueId View(ValueId value, const TensorType& type) {
    return Op("aten.reshape.default", {value, IntList(type.sizes)}, type);
  }
  // [C] -> [C, 1, ...]
  ValueId OfChannels(ValueId value) {
    TensorType type = full_;
    type.sizes.erase(type.sizes.begin());
    for (size_t i = 1; i < type.sizes.size(); ++i) type.sizes[i] = SymInt(1);
    return View(CastTo(node_, value, full_.dtype, rewriter_), Contiguous(type));
  }

  GraphRewriter& rewriter_;
  const Node& node_;
  const GroupNorm& norm_;
  TensorType full_;
  TensorType grouped_;  // [N, groups, C / groups, places...]
};

}  // namespace

// A norm of groups of channels takes statistics over all places. Where places are tokens it is
// spelled out in means, of which every rank adds what its own tokens give; other places are on
// every rank, and the op stays. Without an epsilon it is spelled out as well: equal numbers (those
// that fill padding, too) would be divided by zero inside of the op.
//
//   before  %y = aten.group_norm.default(%x, 2, %w, %b, 1e-05)          %x [2, 8, 16]: 16 tokens
//   after   %g = reshape(%x, [2, 2, 4, 16])   %c = %g - mean(%g, [2, 3], true)
//           %y = reshape(%c * rsqrt(mean(square(%c), [2, 3], true) + 1e-05), [2, 8, 16]) * %w + %b
//
// A norm of channels over the batch is spelled out likewise, with the running statistics that it
// leaves: mean * m + old * (1 - m), and of the variance that of n numbers over n - 1.
absl::StatusOr<bool> GlobalizeNorms(Graph& graph, const PassContext& context) {
  const bool has_norms = std::ranges::any_of(graph.nodes, [&](const Node& node) {
    return IsBatchNorm(node) || GroupNormOf(graph, node).has_value();
  });
  if (!has_norms) return false;
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    if (IsBatchNorm(node) && SpellOutBatchNorm(rewriter, node, factors)) continue;
    const std::optional<GroupNorm> norm = GroupNormOf(graph, node);
    if (norm && (norm->eps == 0 || IsOverTokens(factors, *norm))) {
      NormSpeller(rewriter, node, *norm).Replace();
    } else {
      rewriter.Keep(node);
    }
  }
  return rewriter.Finish();
}

}  // namespace autosp
