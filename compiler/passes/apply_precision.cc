#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "compiler/import/autocast.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/expert_products.h"

namespace autosp {
namespace {

constexpr std::string_view kCrossEntropy = "autosp.cross_entropy";  // and _sum

// Statistics and sums that autocast has no need to list, because its kernels sum in fp32 inside:
// here they are cut into partial sums, which must not be rounded either.
constexpr std::string_view kFloat32Ops[] = {
    "aten._log_softmax.default", "aten._native_batch_norm_legit_functional.default",
    "aten._softmax.default",     "aten.batch_norm.default",
    "aten.mean.default",         "aten.mean.dim",
    "aten.sqrt.default",         "aten.square.default",
    "aten.std.correction",       "aten.std.dim",
    "aten.var.correction",       "aten.var.dim",
};
static_assert(std::ranges::is_sorted(kFloat32Ops));

bool RunsInFloat32(std::string_view op) {
  const CastPolicy policy = AutocastPolicy("cuda", op);
  return policy == CastPolicy::kFloat32 || policy == CastPolicy::kFloat32Result ||
         std::ranges::binary_search(kFloat32Ops, op);
}

bool RunsInBf16(std::string_view op) {
  return AutocastPolicy("cuda", op) == CastPolicy::kLowerPrecision || op == kExpertMm ||
         op == kGroupedMm;
}

bool HasDTypeArgument(const Node& node) {
  return std::ranges::any_of(
      node.args, [](const Argument& argument) { return std::holds_alternative<DType>(argument); });
}

// A cast to what the operand is by now. Under no_grad it still ends the gradient.
bool DropCast(const Node& node, GraphRewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  const ValueId self = rewriter.Current(OperandsOf(node)[0]);
  if (node.no_grad || graph.type(self).dtype != graph.type(node.outputs[0]).dtype) return false;
  rewriter.Replace(node.outputs[0], self);
  return true;
}

class Bf16Rewrite {
 public:
  explicit Bf16Rewrite(Graph& graph) : graph_(graph), rewriter_(graph) {}

  // Whether any parameter had another type; without one the graph is left as it was exported.
  bool Run() {
    bool changed = false;
    for (const GraphInput& input : graph_.inputs) {
      DType& dtype = graph_.value(input.value).type.dtype;
      if (input.kind != InputKind::kParameter || !IsFloating(dtype)) continue;
      changed = changed || dtype != DType::kBF16;
      dtype = DType::kBF16;
    }
    for (const Node& node : rewriter_.nodes()) {
      if (changed) {
        Rewrite(node);
      } else {
        rewriter_.Keep(node);
      }
    }
    rewriter_.Finish();
    return changed;
  }

 private:
  DType TypeOf(ValueId id) const { return graph_.type(rewriter_.Current(id)).dtype; }

  void Rewrite(Node node) {
    if (node.op == "aten.to.dtype" && DropCast(node, rewriter_)) return;
    if (const std::optional<DType> dtype = ComputeType(node)) {
      // Of a loss the logits may come as they are; weights of classes are statistics.
      const size_t first = node.op.starts_with(kCrossEntropy) ? 1 : 0;
      for (size_t i = first; i < node.args.size(); ++i) {
        ForEachValue(node.args[i], [&](ValueId& id) { id = Cast(node, id, *dtype); });
      }
      const bool is_stated = HasDTypeArgument(node) || node.op.starts_with(kCrossEntropy);
      for (ValueId output : node.outputs) {
        DType& result = graph_.value(output).type.dtype;
        if (!is_stated && IsFloating(result) && result != DType::kF64) result = *dtype;
      }
    }
    rewriter_.Keep(node);
  }

  // The type of the op's floating operands, and of its results where it states none itself; none:
  // it has no such operands, or is a cast or a comparison, which take any.
  std::optional<DType> ComputeType(const Node& node) const {
    const bool is_floating = std::ranges::any_of(
        node.outputs, [&](ValueId id) { return IsFloating(graph_.type(id).dtype); });
    if (!is_floating || node.op == "aten.to.dtype") return std::nullopt;
    // As ATen: tensors without dimensions do not promote those that have some.
    std::optional<DType> tensors;
    std::optional<DType> scalars;
    for (ValueId id : OperandsOf(node)) {
      const DType dtype = TypeOf(id);
      if (!IsFloating(dtype)) continue;
      std::optional<DType>& of = graph_.type(id).rank() > 0 ? tensors : scalars;
      of = of ? PromoteTypes(*of, dtype) : dtype;
    }
    const std::optional<DType> promoted = tensors ? tensors : scalars;
    if (!promoted || promoted == DType::kF64) return std::nullopt;
    if (node.op.starts_with(kCrossEntropy) || RunsInFloat32(node.op)) return DType::kF32;
    if (RunsInBf16(node.op)) return DType::kBF16;
    return promoted;
  }

  ValueId Cast(const Node& node, ValueId id, DType to) {
    id = rewriter_.Current(id);
    const DType from = graph_.type(id).dtype;
    if (!IsFloating(from) || from == to) return id;
    // The gradient through a cast made under no_grad would be lost.
    ValueId& cast = casts_[{id, to, node.no_grad}];
    if (!cast.valid()) cast = CastTo(node, id, to, rewriter_);
    return cast;
  }

  Graph& graph_;
  GraphRewriter rewriter_;
  std::map<std::tuple<ValueId, DType, bool>, ValueId> casts_;
};

// Types of values and arguments alike; casts that are none any more go.
bool WidenToFloat32(Graph& graph) {
  bool changed = false;
  const auto widen = [&](DType& dtype) {
    changed = changed || IsHalf(dtype);
    if (IsHalf(dtype)) dtype = DType::kF32;
  };
  for (GraphValue& value : graph.values) widen(value.type.dtype);
  for (Node& node : graph.nodes) {
    for (Argument& argument : node.args) {
      if (auto* dtype = std::get_if<DType>(&argument)) widen(*dtype);
    }
  }
  if (!changed) return false;
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    if (node.op != "aten.to.dtype" || !DropCast(node, rewriter)) rewriter.Keep(node);
  }
  rewriter.Finish();
  return true;
}

}  // namespace

// Gives parameters the type of precision.params, and what is computed from them follows.
//
// bf16: products and attention run in bf16, as autocast has it; norms, softmax, sums, means,
// powers and losses in fp32; all else in the widest type of its operands. Buffers keep their type.
// fp32: every bf16 or fp16 is fp32.
//
//   before  input %w "w" : f32[8, 8] parameter
//           %y = aten.linear.default(%x, %w, none) : f32[2, 8]
//           %s = aten.sum.default(%y, none) : f32[]
//   after   input %w "w" : bf16[8, 8] parameter
//           %to = aten.to.dtype(%x, bf16, ...) : bf16[2, 8]
//           %y = aten.linear.default(%to, %w, none) : bf16[2, 8]
//           %to_1 = aten.to.dtype(%y, f32, ...) : f32[2, 8]
//           %s = aten.sum.default(%to_1, none) : f32[]
//
// Requires: canonical forms. Weights are converted when they are loaded.
absl::StatusOr<bool> ApplyPrecision(Graph& graph, const PassContext& context) {
  switch (context.params) {
    case ParamPrecision::kAsExported:
      return false;
    case ParamPrecision::kFp32:
      return WidenToFloat32(graph);
    case ParamPrecision::kBf16:
      return Bf16Rewrite(graph).Run();
  }
  return false;
}

}  // namespace autosp
