// Windows that slide over dimensions: pools, and the windows themselves; and interpolation.
#include <algorithm>

#include "common/status_macros.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"
#include "compiler/rules/symbolic_argument.h"

namespace autosp {
namespace {

struct Window {
  int64_t size = 1;
  int64_t step = 1;
  bool is_plain = true;      // without padding or dilation
  bool is_symbolic = false;  // of sizes that follow the job
};

// A dimension of so many windows. Windows that lie side by side cut the dimension into blocks, of
// which they are the minor factor; one at each place leaves a dimension that keeps to its input.
FactorDim NumWindows(OpContext& context, const FactorDim& from, int64_t size, const Window& window,
                     const SymInt& result, FactorDim* inside) {
  const bool is_side_by_side = window.is_plain && window.step == window.size &&
                               size == result.value * window.size && result.expr.empty();
  if (is_side_by_side) {
    const auto blocks = context.table().Regroup({from}, {result.value, window.size});
    if (blocks) {
      *inside = (*blocks)[1];
      return (*blocks)[0];
    }
  }
  *inside = {};
  if (!window.is_symbolic && window.step == 1 && size > 1 && result.value > 1) {
    return context.table().NewDerived(from, result.value - size);
  }
  return FactorOfSize(context, result);
}

int64_t ValueAt(const std::vector<int64_t>& list, size_t index, int64_t absent) {
  return list.empty() ? absent : list[index < list.size() ? index : 0];
}

// pool(self, kernel, stride, padding, ...) over the last dimensions; those before are parallel.
absl::StatusOr<OpFactors> Pool(OpContext& context, size_t num_places) {
  const ValueId self = context.Tensor(0);
  const FactorDims& from = context.Factors(self);
  if (from.size() < num_places) return InferOpaque(context);
  const bool is_max = context.node().op.starts_with("aten.max_pool");
  const std::vector<int64_t> kernel = Values(context.Ints(1));
  const std::vector<int64_t> stride = Values(context.Ints(2));
  const std::vector<int64_t> padding = Values(context.Ints(3));
  const std::vector<int64_t> dilation = is_max ? Values(context.Ints(4)) : std::vector<int64_t>{};
  OpFactors factors{.results = {from}};
  const bool is_symbolic =
      HasSymbols(context, 1) || HasSymbols(context, 3) || (is_max && HasSymbols(context, 4));
  for (size_t i = 0; i < num_places; ++i) {
    const size_t dim = from.size() - num_places + i;
    Window window{.size = ValueAt(kernel, i, 1), .is_symbolic = is_symbolic};
    window.step = ValueAt(stride, i, window.size);
    window.is_plain = ValueAt(padding, i, 0) == 0 && ValueAt(dilation, i, 1) == 1;
    FactorDim inside;
    factors.results[0][dim] = NumWindows(context, from[dim], context.Type(self).sizes[dim].value,
                                         window, context.ResultType().sizes[dim], &inside);
    AppendFactors(inside, &factors.whole);
    if (!inside.empty()) continue;
    AppendFactors(from[dim], &factors.whole);
    AppendFactors(factors.results[0][dim], &factors.whole);
  }
  return factors;
}

absl::StatusOr<OpFactors> InferPool1d(OpContext& context) { return Pool(context, 1); }
absl::StatusOr<OpFactors> InferPool2d(OpContext& context) { return Pool(context, 2); }

// adaptive_avg_pool(self, output_size): each place averages what falls to it.
absl::StatusOr<OpFactors> AdaptivePool(OpContext& context, size_t num_places) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  if (from.size() < num_places) return InferOpaque(context);
  OpFactors factors{.results = {from}};
  for (size_t dim = from.size() - num_places; dim < from.size(); ++dim) {
    AppendFactors(from[dim], &factors.whole);
    factors.results[0][dim] = FactorOfSize(context, context.ResultType().sizes[dim]);
    AppendFactors(factors.results[0][dim], &factors.whole);
  }
  return factors;
}

absl::StatusOr<OpFactors> InferAdaptive1d(OpContext& context) { return AdaptivePool(context, 1); }
absl::StatusOr<OpFactors> InferAdaptive2d(OpContext& context) { return AdaptivePool(context, 2); }

// upsample(self [B, C, places...], output_size, ...): each place is made of those around it.
absl::StatusOr<OpFactors> InferUpsample(OpContext& context) {
  const int64_t rank = context.Rank(context.Tensor(0));
  if (rank < 3) return InferOpaque(context);
  return AdaptivePool(context, static_cast<size_t>(rank) - 2);
}

OpRule Upsample(std::string_view op) { return {.op = op, .infer = InferUpsample}; }

// Places that are moved between the last dimensions, all of which are whole; those before are
// parallel. Where the places follow the batch or sequence, how many there are is not known.
absl::StatusOr<OpFactors> Rearranged(OpContext& context, size_t num_from, size_t num_to) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  if (from.size() < num_from) return InferOpaque(context);
  const size_t kept = from.size() - num_from;
  OpFactors factors{.results = {FactorDims(from.begin(), from.begin() + kept)}};
  for (size_t dim = kept; dim < from.size(); ++dim) {
    if (context.table().FollowsRoot(from[dim])) return InferOpaque(context);
    AppendFactors(from[dim], &factors.whole);
  }
  for (size_t dim = kept; dim < kept + num_to; ++dim) {
    factors.results[0].push_back(FactorOfSize(context, context.ResultType().sizes[dim]));
    AppendFactors(factors.results[0][dim], &factors.whole);
  }
  return factors;
}

// im2col(self [.., C, H, W], ...) -> [.., C * window, windows], and col2im back: F.unfold, F.fold.
absl::StatusOr<OpFactors> InferIm2col(OpContext& context) { return Rearranged(context, 3, 2); }
absl::StatusOr<OpFactors> InferCol2im(OpContext& context) { return Rearranged(context, 2, 3); }

// pixel_shuffle(self [..., C * r * r, H, W], r) -> [..., C, H * r, W * r], and back.
absl::StatusOr<OpFactors> InferPixels(OpContext& context) { return Rearranged(context, 3, 3); }

// unfold(self, dim, size, step), which canonicalize replaces: the windows, their places last.
absl::StatusOr<OpFactors> InferUnfold(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const FactorDims& from = context.Factors(self);
  if (from.empty()) return InferOpaque(context);
  const int64_t dim = context.Dim(1, context.Rank(self));
  const Window window{.size = context.Int(2).value_or(1),
                      .step = context.Int(3).value_or(1),
                      .is_symbolic = HasSymbols(context, 2)};
  OpFactors factors{.results = {from}};
  FactorDim inside;
  factors.results[0][dim] = NumWindows(context, from[dim], context.Type(self).sizes[dim].value,
                                       window, context.ResultType().sizes[dim], &inside);
  if (inside.empty()) {
    AppendFactors(from[dim], &factors.whole);
    AppendFactors(factors.results[0][dim], &factors.whole);
    inside = FactorOfSize(context, context.Sym(2).value_or(SymInt(window.size)));
  }
  AppendFactors(inside, &factors.whole);
  factors.results[0].push_back(inside);
  return factors;
}

}  // namespace

std::vector<OpRule> PoolingRules() {
  return {
      {.op = "aten.adaptive_avg_pool1d.default", .infer = InferAdaptive1d},
      {.op = "aten.adaptive_avg_pool2d.default", .infer = InferAdaptive2d},
      {.op = "aten.avg_pool1d.default", .infer = InferPool1d},
      {.op = "aten.avg_pool2d.default", .infer = InferPool2d},
      {.op = "aten.col2im.default", .infer = InferCol2im, .vjp_workspace_halves = 1},
      With(CopyWorkspace, {.op = "aten.im2col.default", .infer = InferIm2col}),
      {.op = "aten.max_pool1d.default", .infer = InferPool1d},
      {.op = "aten.max_pool2d.default", .infer = InferPool2d},
      {.op = "aten.pixel_shuffle.default", .infer = InferPixels},
      {.op = "aten.pixel_unshuffle.default", .infer = InferPixels},
      // Composite: the tape keeps what is between.
      Upsample("aten._upsample_nearest_exact1d.vec"),
      Upsample("aten._upsample_nearest_exact2d.vec"),
      Upsample("aten.upsample_bicubic2d.vec"),
      Upsample("aten.upsample_bilinear2d.vec"),
      Upsample("aten.upsample_linear1d.vec"),
      Upsample("aten.upsample_nearest1d.vec"),
      Upsample("aten.upsample_nearest2d.vec"),
      {.op = "aten.unfold.default", .infer = InferUnfold, .layout = ResultLayout::kView},
  };
}

}  // namespace autosp
