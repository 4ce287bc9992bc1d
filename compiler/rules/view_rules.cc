// Ops that move, group or cut dimensions.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/shared_dim.h"
#include "compiler/rules/symbolic_argument.h"

namespace autosp {
namespace {

// The skew of relative positions shows scores [.., S, S + 1] as [.., S + 1, S], so that each row
// moves by one place more than the one before. nullopt: the view is another.
std::optional<OpFactors> SkewFactors(const OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  const std::vector<int64_t> from = Values(context.Type(context.Tensor(0)).sizes);
  const std::vector<int64_t> to = context.ResultSizes();
  if (from.size() != to.size()) return std::nullopt;
  const auto i = static_cast<size_t>(std::ranges::mismatch(from, to).in1 - from.begin());
  if (i + 1 >= from.size() || std::abs(from[i] - from[i + 1]) != 1) return std::nullopt;
  std::vector<int64_t> turned = from;
  std::swap(turned[i], turned[i + 1]);
  std::swap(dims[i], dims[i + 1]);
  if (turned != to || !context.table().FollowsRoot(dims[i])) return std::nullopt;
  OpFactors factors{.results = {dims}};
  AppendFactors(dims[i], &factors.whole);
  AppendFactors(dims[i + 1], &factors.whole);
  return factors;
}

// A cut that crosses factors: nothing is known of the dimensions that it makes, and those before
// and behind them stay what they are.
absl::StatusOr<OpFactors> InferCrossingCut(OpContext& context) {
  ASSIGN_OR_RETURN(OpFactors factors, InferOpaque(context));
  const FactorDims from = context.Factors(context.Tensor(0));
  const std::vector<int64_t> before = Values(context.Type(context.Tensor(0)).sizes);
  const std::vector<int64_t> after = context.ResultSizes();
  const size_t shared = std::min(before.size(), after.size());
  size_t first = 0;
  while (first < shared && before[first] == after[first]) ++first;
  size_t behind = 0;
  while (first + behind < shared && before.rbegin()[behind] == after.rbegin()[behind]) ++behind;
  FactorDims& dims = factors.results[0];
  std::copy_n(from.begin(), first, dims.begin());
  std::copy_n(from.rbegin(), behind, dims.rbegin());
  factors.whole.clear();
  for (size_t i = first; i + behind < from.size(); ++i) AppendFactors(from[i], &factors.whole);
  for (size_t i = first; i + behind < dims.size(); ++i) AppendFactors(dims[i], &factors.whole);
  return factors;
}

// view, reshape, flatten, unflatten: the flattened factors are cut anew at the result's sizes.
absl::StatusOr<OpFactors> InferRegroup(OpContext& context) {
  if (std::optional<OpFactors> skew = SkewFactors(context)) return *std::move(skew);
  std::optional<FactorDims> dims =
      context.table().Regroup(context.Factors(context.Tensor(0)), context.ResultSizes());
  if (!dims) return InferCrossingCut(context);
  for (size_t i = 0; i < dims->size(); ++i) {
    const SymExpr& expr = context.ResultType().sizes[i].expr;
    const FactorDim parts = context.table().Resolve((*dims)[i]);
    if (!expr.empty() && parts.size() == 1) context.table().SetExpression(parts[0], expr);
  }
  return OpFactors{.results = {*std::move(dims)}};
}

absl::StatusOr<OpFactors> InferSame(OpContext& context) {
  return OpFactors{.results = {context.Factors(context.Tensor(0))}};
}

absl::StatusOr<OpFactors> InferTranspose(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  const int64_t rank = static_cast<int64_t>(dims.size());
  std::swap(dims[context.Dim(1, rank)], dims[context.Dim(2, rank)]);
  return OpFactors{.results = {dims}};
}

absl::StatusOr<OpFactors> InferT(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  std::reverse(dims.begin(), dims.end());
  return OpFactors{.results = {dims}};
}

absl::StatusOr<OpFactors> InferPermute(OpContext& context) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  FactorDims dims;
  for (int64_t dim : context.DimList(1, static_cast<int64_t>(from.size()))) {
    dims.push_back(from[dim]);
  }
  return OpFactors{.results = {dims}};
}

absl::StatusOr<OpFactors> InferUnsqueeze(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  dims.insert(dims.begin() + context.Dim(1, static_cast<int64_t>(dims.size()) + 1), FactorDim{});
  return OpFactors{.results = {dims}};
}

absl::StatusOr<OpFactors> InferSqueeze(OpContext& context) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  const TensorType& type = context.Type(context.Tensor(0));
  const std::vector<int64_t> chosen = context.DimList(1, type.rank());
  FactorDims dims;
  for (int64_t i = 0; i < type.rank(); ++i) {
    const bool squeezed = type.sizes[i].value == 1 && std::ranges::count(chosen, i) > 0;
    if (!squeezed) dims.push_back(from[i]);
  }
  return OpFactors{.results = {dims}};
}

absl::StatusOr<OpFactors> InferExpand(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const FactorDims& from = context.Factors(self);
  const std::vector<int64_t> sizes = context.ResultSizes();
  const size_t added = sizes.size() - from.size();
  OpFactors factors;
  FactorDims dims;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const bool kept = i >= added && context.Type(self).sizes[i - added].value == sizes[i];
    dims.push_back(kept ? from[i - added] : FactorOfSize(context, context.ResultType().sizes[i]));
    if (!kept) AppendFactors(dims.back(), &factors.generated);
  }
  factors.results = {dims};
  return factors;
}

// Whether a slice takes all but a constant number of places at the front or the end.
bool CutsConstant(const OpContext& context, const SymInt& from) {
  const SymInt end = context.Sym(3).value_or(SymInt(std::numeric_limits<int64_t>::max()));
  const bool is_moved = !end.expr.empty() && end.expr != from.expr;
  return context.Int(4).value_or(1) == 1 && !HasSymbols(context, 2) && !is_moved &&
         context.Int(2).value_or(0) >= 0 && (end.value < 0 || end.value >= from.value);
}

// Whether a slice takes the front half of a constant size that follows the batch or sequence.
bool IsFrontHalf(const OpContext& context, const FactorDim& from, const SymInt& size) {
  const int64_t half = context.Int(3).value_or(0);
  return size.expr.empty() && !HasSymbols(context, 2) && !HasSymbols(context, 3) && half > 1 &&
         context.Int(2).value_or(0) == 0 && context.Int(4).value_or(1) == 1 &&
         2 * half == size.value && context.table().FollowsRoot(from);
}

// A slice that takes all of a dimension keeps its factor; any other needs the dimension whole.
absl::StatusOr<OpFactors> InferSlice(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  const int64_t dim = context.Dim(1, context.Rank(self));
  const int64_t from = context.Type(self).sizes[dim].value;
  const int64_t to = context.ResultType().sizes[dim].value;
  if (to == from && context.Int(4).value_or(1) == 1) return factors;
  FactorDim& factor = factors.results[0][dim];
  AppendFactors(factor, &factors.whole);
  if (IsFrontHalf(context, factor, context.Type(self).sizes[dim])) {
    factor = context.table().NewFrontHalf(factor);
  } else if (to > 1 && CutsConstant(context, context.Type(self).sizes[dim])) {
    factor = context.table().NewDerived(factor, to - from);
  } else {
    factor = FactorOfSize(context, context.ResultType().sizes[dim]);
  }
  AppendFactors(factors.results[0][dim], &factors.whole);
  return factors;
}

absl::StatusOr<OpFactors> InferSelect(OpContext& context) {
  const ValueId self = context.Tensor(0);
  FactorDims dims = context.Factors(self);
  const int64_t dim = context.Dim(1, context.Rank(self));
  OpFactors factors;
  AppendFactors(dims[dim], &factors.whole);
  dims.erase(dims.begin() + dim);
  factors.results = {dims};
  return factors;
}

// The factor of each of the parts that chunk(n) cuts a constant size into which follows the batch
// or sequence, where n divides it; nullopt: of another cut.
std::optional<FactorDim> EqualPart(OpContext& context, const FactorDim& from, const SymInt& size) {
  const int64_t count = context.Int(1).value_or(0);
  const bool is_chunk = context.node().op == "aten.chunk.default" && count > 1 &&
                        static_cast<int64_t>(context.node().outputs.size()) == count;
  if (!is_chunk || !size.expr.empty() || size.value % count != 0 || size.value == count ||
      !context.table().FollowsRoot(from)) {
    return std::nullopt;
  }
  return context.table().NewPart(from, count);
}

// split, chunk, unbind: the cut dimension is whole; the parts have factors of their own, but equal
// parts of tokens have one.
absl::StatusOr<OpFactors> InferSplit(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const bool is_unbind = context.node().op == "aten.unbind.int";
  const int64_t dim = context.Dim(is_unbind ? 1 : 2, context.Rank(self));
  const FactorDims& from = context.Factors(self);
  OpFactors factors;
  AppendFactors(from[dim], &factors.whole);
  const std::optional<FactorDim> part =
      EqualPart(context, from[dim], context.Type(self).sizes[dim]);
  for (size_t i = 0; i < context.node().outputs.size(); ++i) {
    FactorDims dims = from;
    if (is_unbind) {
      dims.erase(dims.begin() + dim);
    } else {
      dims[dim] = part ? *part : FactorOfSize(context, context.ResultType(i).sizes[dim]);
      AppendFactors(dims[dim], &factors.whole);
    }
    factors.results.push_back(dims);
  }
  return factors;
}

// The dimension along which parts were put together. Where parts follow the batch or sequence (the
// patches behind a class token, two views of a batch), so does the whole.
FactorDim JoinedDim(OpContext& context, const std::vector<ValueId>& parts, int64_t dim) {
  const SymInt& total = context.ResultType().sizes[dim];
  std::vector<ValueId> followers;
  for (ValueId part : parts) {
    if (context.table().FollowsRoot(context.Factors(part)[dim])) followers.push_back(part);
  }
  if (!total.expr.empty() || followers.empty()) return FactorOfSize(context, total);
  int64_t rest = total.value;
  FactorDims dims;
  for (ValueId part : followers) {
    rest -= context.Type(part).sizes[dim].value;
    dims.push_back(context.Factors(part)[dim]);
  }
  return dims.size() == 1 ? context.table().NewDerived(dims[0], rest)
                          : context.table().NewSum(dims, rest);
}

absl::StatusOr<OpFactors> InferCat(OpContext& context) {
  const std::vector<ValueId> parts = context.Tensors(0);
  if (parts.empty()) return InvalidArgument("cat of no tensors");
  FactorDims dims = context.Factors(parts[0]);
  const int64_t dim = context.Dim(1, static_cast<int64_t>(dims.size()));
  OpFactors factors;
  for (ValueId part : parts) {
    const FactorDims& from = context.Factors(part);
    if (from.size() != dims.size()) return InferOpaque(context);  // legacy: empty 1-d operands
    for (size_t i = 0; i < dims.size(); ++i) {
      if (static_cast<int64_t>(i) == dim) {
        AppendFactors(from[i], &factors.whole);
      } else {
        RETURN_IF_ERROR(ShareDim(context.table(), from[i], &dims[i], &factors.whole));
        // A batch of one beside what says nothing of it.
        if (dims[i].empty()) dims[i] = from[i];
      }
    }
  }
  dims[dim] = JoinedDim(context, parts, dim);
  AppendFactors(dims[dim], &factors.whole);
  factors.results = {dims};
  return factors;
}

// stack(parts, dim): as exported; canonicalisation leaves a cat.
absl::StatusOr<OpFactors> InferStack(OpContext& context) {
  const std::vector<ValueId> parts = context.Tensors(0);
  if (parts.empty()) return InvalidArgument("stack of no tensors");
  OpFactors factors;
  FactorDims dims = context.Factors(parts[0]);
  for (ValueId part : parts) {
    const FactorDims& from = context.Factors(part);
    for (size_t i = 0; i < dims.size(); ++i) {
      RETURN_IF_ERROR(ShareDim(context.table(), from[i], &dims[i], &factors.whole));
      if (dims[i].empty()) dims[i] = from[i];
    }
  }
  const int64_t dim = context.Dim(1, static_cast<int64_t>(dims.size()) + 1);
  dims.insert(dims.begin() + dim, FactorOfSize(context, context.ResultType().sizes[dim]));
  factors.results = {dims};
  AppendFactors(dims[dim], &factors.whole);
  return factors;
}

// Padding: sizes are [before, after] pairs from the last dimension on. What is as long as the
// sequence (S - 1 zeros before a convolution over everything so far) makes a dimension that the
// archive's expression names.
absl::StatusOr<OpFactors> InferPad(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  const IntList pads = context.Ints(1);
  const int64_t rank = context.Rank(self);
  for (size_t i = 0; i + 1 < pads.size(); i += 2) {
    const int64_t dim = rank - 1 - static_cast<int64_t>(i / 2);
    const bool is_symbolic = !pads[i].expr.empty() || !pads[i + 1].expr.empty();
    if (!is_symbolic && pads[i].value == 0 && pads[i + 1].value == 0) continue;
    FactorDim& factor = factors.results[0][dim];
    AppendFactors(factor, &factors.whole);
    factor = is_symbolic ? FactorOfSize(context, context.ResultType().sizes[dim])
                         : context.table().NewDerived(factor, pads[i].value + pads[i + 1].value);
    AppendFactors(factor, &factors.whole);
  }
  return factors;
}

// flip, roll: the moved dimensions are whole.
absl::StatusOr<OpFactors> Moved(OpContext& context, size_t dims_arg) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  for (int64_t dim : context.DimList(dims_arg, context.Rank(self))) {
    AppendFactors(factors.results[0][dim], &factors.whole);
  }
  return factors;
}
absl::StatusOr<OpFactors> InferFlip(OpContext& context) { return Moved(context, 1); }
absl::StatusOr<OpFactors> InferRoll(OpContext& context) { return Moved(context, 2); }

// repeat_interleave(self, copies, dim), which canonicalize replaces where there is one dimension to
// repeat along: the copies are a minor factor. Without one, all dimensions are one.
absl::StatusOr<OpFactors> InferRepeatInterleave(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const std::optional<int64_t> copies = context.Int(1);
  if (!copies) return InferOpaque(context);
  OpFactors factors{.results = {context.Factors(self)}};
  FactorDims& dims = factors.results[0];
  if (!context.Has(2)) {
    FactorDim all;
    for (const FactorDim& dim : dims) AppendFactors(dim, &all);
    if (dims.size() != 1) factors.whole = all;
    dims = {all};
  }
  const FactorVar copy = context.table().NewFactor(*copies);
  dims[context.Has(2) ? context.Dim(2, context.Rank(self)) : 0].push_back(copy);
  factors.whole.push_back(copy);
  return factors;
}

// repeat(self, repeats), tile(self, repeats), which canonicalize replaces: new dimensions come
// first, and the copies of one that is repeated are its major factor.
absl::StatusOr<OpFactors> InferRepeat(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const std::vector<SymInt>& to = context.ResultType().sizes;
  const size_t added = to.size() - static_cast<size_t>(context.Rank(self));
  OpFactors factors{.results = {{}}};
  for (size_t i = 0; i < to.size(); ++i) {
    const FactorDim from = i < added ? FactorDim{} : context.Factors(self)[i - added];
    const int64_t size = i < added ? 1 : context.Type(self).sizes[i - added].value;
    FactorDim dim;
    if (from.empty()) {
      dim = FactorOfSize(context, to[i]);
    } else if (to[i].value != size) {
      dim = {context.table().NewFactor(to[i].value / size)};
    }
    AppendFactors(dim, &factors.whole);
    AppendFactors(from, &dim);
    factors.results[0].push_back(std::move(dim));
  }
  return factors;
}

// slice_scatter, select_scatter: a write to a part of dimension `dim`, out of place. What
// functionalization makes of writes through views.
absl::StatusOr<OpFactors> InferPartWritten(OpContext& context) {
  const FactorDims& dims = context.Factors(context.Tensor(0));
  FactorDims part = context.Factors(context.Tensor(1));
  const int64_t dim = context.Dim(2, static_cast<int64_t>(dims.size()));
  OpFactors factors{.results = {dims}};
  AppendFactors(dims[dim], &factors.whole);
  if (context.node().op == "aten.select_scatter.default") {
    part.insert(part.begin() + dim, FactorDim{});
  }
  if (part.size() != dims.size()) return InferOpaque(context);
  AppendFactors(part[dim], &factors.whole);
  for (size_t i = 0; i < dims.size(); ++i) {
    if (static_cast<int64_t>(i) != dim) RETURN_IF_ERROR(context.table().Unify(dims[i], part[i]));
  }
  return factors;
}

constexpr ResultLayout kView = ResultLayout::kView;
constexpr ResultLayout kMaybe = ResultLayout::kMaybeView;
constexpr Derivative kExplicit = Derivative::kExplicit;

OpRule View(std::string_view op, InferFactorsFn infer, ResultLayout layout = kView) {
  return {op, infer, layout, kExplicit, "", 0, true};
}

}  // namespace

std::vector<OpRule> ViewRules() {
  return {
      View("aten.view.default", InferRegroup, kMaybe),
      View("aten.reshape.default", InferRegroup, kMaybe),
      View("aten._unsafe_view.default", InferRegroup, kMaybe),
      View("aten.flatten.using_ints", InferRegroup, kMaybe),
      View("aten.unflatten.int", InferRegroup, kMaybe),
      View("aten.contiguous.default", InferSame, kMaybe),
      View("aten.transpose.int", InferTranspose),
      View("aten.t.default", InferT),
      View("aten.permute.default", InferPermute),
      View("aten.unsqueeze.default", InferUnsqueeze),
      View("aten.squeeze.dim", InferSqueeze),
      View("aten.squeeze.dims", InferSqueeze),
      View("aten.squeeze.default", InferSqueeze),
      View("aten.expand.default", InferExpand),
      View("aten.slice.Tensor", InferSlice),
      View("aten.select.int", InferSelect),
      View("aten.split.Tensor", InferSplit),
      View("aten.split_with_sizes.default", InferSplit),
      View("aten.chunk.default", InferSplit),
      View("aten.unbind.int", InferSplit),
      {"aten.cat.default", InferCat, ResultLayout::kContiguous, kExplicit},
      {"aten.stack.default", InferStack},
      {"aten.constant_pad_nd.default", InferPad, ResultLayout::kContiguous, kExplicit, "", 0, true},
      // Canonicalisation leaves the other modes, which are several ops.
      {.op = "aten.pad.default", .infer = InferPad, .vjp_workspace_halves = 4},
      {"aten.flip.default", InferFlip, ResultLayout::kElementwise, Derivative::kTaped, "", 0, true},
      {"aten.roll.default", InferRoll, ResultLayout::kContiguous, Derivative::kTaped, "", 0, true},
      {.op = "aten.slice_scatter.default", .infer = InferPartWritten, .vjp_workspace_halves = 1},
      {"aten.repeat.default", InferRepeat},
      {"aten.repeat_interleave.self_int", InferRepeatInterleave},
      {"aten.tile.default", InferRepeat},
      {.op = "aten.select_scatter.default", .infer = InferPartWritten, .vjp_workspace_halves = 1},
  };
}

}  // namespace autosp
