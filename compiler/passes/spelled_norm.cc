#include "compiler/passes/spelled_norm.h"

#include <utility>

namespace autosp {

ValueId Normalized(GraphRewriter& rewriter, const Node& node, ValueId x, const NormForm& form) {
  const TensorType type = Contiguous(rewriter.graph().type(x));
  TensorType statistics = type;
  for (const SymInt& dim : form.dims) statistics.sizes[dim.value] = SymInt(1);
  statistics = Contiguous(statistics);
  const auto op = [&](std::string_view name, std::vector<Argument> args, const TensorType& of) {
    return rewriter.EmitOne(node, name, std::move(args), of);
  };
  const auto mean = [&](ValueId of) {
    return op("aten.mean.dim", {of, form.dims, true, None{}}, statistics);
  };
  if (form.is_centered) x = op("aten.sub.Tensor", {x, mean(x), SymInt(1)}, type);
  ValueId variance = mean(op("aten.square.default", {x}, type));
  if (form.eps) variance = op("aten.add.Tensor", {variance, *form.eps, SymInt(1)}, statistics);
  const ValueId scale = op("aten.rsqrt.default", {variance}, statistics);
  return op("aten.mul.Tensor", {x, scale}, type);
}

}  // namespace autosp
