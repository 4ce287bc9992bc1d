// Norms of the last dimensions.
#include <utility>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_losses.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/spelled_norm.h"

namespace autosp {
namespace {

// A norm without an epsilon, spelled out in fp32, in which ATen takes the statistics of half types
// too.
class NormSpeller {
 public:
  NormSpeller(const Node& node, GraphRewriter& rewriter) : node_(node), rewriter_(rewriter) {
    const TensorType type = rewriter.graph().type(node.outputs[0]);
    full_ = ContiguousOf(type.dtype == DType::kF64 ? DType::kF64 : DType::kF32, type.sizes);
    const auto* shape = std::get_if<IntList>(&ArgumentAt(node.args, 1));
    const auto num_dims = static_cast<int64_t>(shape == nullptr ? 0 : shape->size());
    for (int64_t i = full_.rank() - num_dims; i < full_.rank(); ++i) dims_.emplace_back(i);
  }

  void Replace(bool is_centered, size_t weight_arg) {
    ValueId result = Normalized(rewriter_, node_, Exact(TensorArgument(node_.args, 0)),
                                {.dims = dims_, .is_centered = is_centered});
    const ValueId weight = TensorArgument(node_.args, weight_arg);
    const ValueId bias = is_centered ? TensorArgument(node_.args, weight_arg + 1) : ValueId{};
    if (weight.valid()) result = Op("aten.mul.Tensor", {result, Exact(weight)}, full_);
    if (bias.valid()) result = Op("aten.add.Tensor", {result, Exact(bias), SymInt(1)}, full_);
    const DType dtype = rewriter_.graph().type(node_.outputs[0]).dtype;
    rewriter_.Replace(node_.outputs[0], CastTo(node_, result, dtype, rewriter_));
  }

 private:
  ValueId Op(std::string_view op, std::vector<Argument> args, const TensorType& type) {
    return rewriter_.EmitOne(node_, op, std::move(args), type);
  }
  ValueId Exact(ValueId value) { return CastTo(node_, value, full_.dtype, rewriter_); }

  const Node& node_;
  GraphRewriter& rewriter_;
  TensorType full_;
  IntList dims_;
};

bool HasNoEpsilon(const Node& node, size_t eps_arg) {
  return NumberArgument(node.args, eps_arg) == 0.0;
}

// layer_norm(x, shape, weight, bias, eps) -> native_layer_norm, whose derivative keeps statistics.
// Without an epsilon, equal numbers (those that fill padding, too) would be divided by zero inside
// of the op, where nothing can be put in their place.
absl::StatusOr<bool> RewriteLayerNorm(const Node& node, GraphRewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  const TensorType type = graph.type(node.outputs[0]);
  const auto* shape = std::get_if<IntList>(&ArgumentAt(node.args, 1));
  if (shape == nullptr) return false;
  if (HasNoEpsilon(node, 4)) {
    NormSpeller(node, rewriter).Replace(/*is_centered=*/true, 2);
    return true;
  }
  TensorType statistics = type;
  for (size_t i = 0; i < shape->size(); ++i) {
    statistics.sizes[statistics.sizes.size() - 1 - i] = 1;
  }
  const ValueId weight = TensorArgument(node.args, 2);
  if (weight.valid()) statistics.dtype = PromoteTypes(type.dtype, graph.type(weight).dtype);
  statistics = Contiguous(statistics);
  const std::vector<ValueId> results =
      rewriter.Emit(node, "aten.native_layer_norm.default",
                    {node.args[0], node.args[1], ArgumentAt(node.args, 2), ArgumentAt(node.args, 3),
                     ArgumentAt(node.args, 4)},
                    {Contiguous(type), statistics, statistics});
  rewriter.Replace(node.outputs[0], results[0]);
  return true;
}

absl::StatusOr<bool> RewriteRmsNorm(const Node& node, GraphRewriter& rewriter) {
  if (!HasNoEpsilon(node, 3)) return false;
  NormSpeller(node, rewriter).Replace(/*is_centered=*/false, 2);
  return true;
}

}  // namespace

const RewriteTable& NormRewrites() {
  static const RewriteTable& rewrites = *new RewriteTable{
      {"aten.layer_norm.default", RewriteLayerNorm},
      {"aten.rms_norm.default", RewriteRmsNorm},
  };
  return rewrites;
}

}  // namespace autosp
