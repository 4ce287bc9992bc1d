// Reductions, normalisations and scans along dimensions.
#include <algorithm>
#include <map>

#include "compiler/checker/op_shape.h"

namespace autosp::checker {
namespace {

// What is done with the dimensions that the op runs along.
struct Row {
  Role role = Role::kWhole;
  int dims_arg = 1;  // of the dimensions; -1: all dimensions; -2: the last two
  int keep_arg = 2;  // of the flag that keeps them as size 1; -1: the result has the shape
  Linear linear = Linear::kNo;
  bool keeps_zero = false;
  bool is_last = false;  // along the last dimension where none is named, not along all
  bool gives_non_negative = false;
  bool gives_positive = false;
  bool keeps_positive = false;
};
constexpr int kSameShape = -1;
constexpr int kLastTwo = -2;

// Spreads and norms, which are numbers of numbers, and not negative.
Row NotNegative(int dims_arg) {
  Row row{.dims_arg = dims_arg, .keep_arg = 3};
  row.gives_non_negative = true;
  return row;
}

// Weights, of numbers.
Row Softmax() {
  Row row{.keep_arg = kSameShape};
  row.gives_positive = true;
  return row;
}

// Sums and means.
Row Added(Role role, int dims_arg, int keep_arg) {
  Row row{role, dims_arg, keep_arg, Linear::kFirst, /*keeps_zero=*/true};
  row.keeps_positive = true;
  return row;
}

Row Sorted(int dims_arg) {
  Row row{.dims_arg = dims_arg, .keep_arg = kSameShape};
  row.is_last = true;
  return row;
}

Row LastReduced(int dims_arg) {
  Row row{.dims_arg = dims_arg, .keep_arg = dims_arg + 1};
  row.is_last = true;
  return row;
}

const std::map<std::string_view, Row>& Rows() {
  static const auto& rows = *new std::map<std::string_view, Row>{
      {"aten.sum.default", Added(Role::kSum, -1, 9)},
      {"aten.sum.dim_IntList", Added(Role::kSum, 1, 2)},
      {"aten.mean.default", Added(Role::kWhole, -1, 9)},
      {"aten.mean.dim", Added(Role::kWhole, 1, 2)},
      {"aten.amax.default", {Role::kMax, 1, 2}},
      {"aten.amin.default", {Role::kWhole, 1, 2}},
      {"aten.max.default", {Role::kMax, -1, 9}},
      {"aten.max.dim", {Role::kWhole, 1, 2}},
      {"aten.min.dim", {Role::kWhole, 1, 2}},
      {"aten.median.dim", {Role::kWhole, 1, 2}},
      {"aten.nanmedian.dim", {Role::kWhole, 1, 2}},
      {"aten.quantile.scalar", {Role::kWhole, 2, 3}},
      {"aten.nanquantile.scalar", {Role::kWhole, 2, 3}},
      {"aten.mode.default", LastReduced(1)},
      {"aten.kthvalue.default", LastReduced(2)},
      {"aten.any.default", {Role::kWhole, -1, 9}},
      {"aten.all.default", {Role::kWhole, -1, 9}},
      {"aten.tril.default", {Role::kWhole, kLastTwo, kSameShape, Linear::kFirst, true}},
      {"aten.triu.default", {Role::kWhole, kLastTwo, kSameShape, Linear::kFirst, true}},
      {"aten.any.dim", {Role::kWhole, 1, 2}},
      {"aten.all.dim", {Role::kWhole, 1, 2}},
      {"aten.argmax.default", {Role::kWhole, 1, 2}},
      {"aten.argmin.default", {Role::kWhole, 1, 2}},
      {"aten.prod.dim_int", {Role::kWhole, 1, 2}},
      {"aten.logsumexp.default", {Role::kWhole, 1, 2}},
      {"aten.var.dim", NotNegative(1)},
      {"aten.var.correction", NotNegative(1)},
      {"aten.std.dim", NotNegative(1)},
      {"aten.std.correction", NotNegative(1)},
      {"aten.linalg_vector_norm.default", NotNegative(2)},
      {"aten._softmax.default", Softmax()},
      {"aten._log_softmax.default", {Role::kWhole, 1, kSameShape}},
      {"aten.softmax.int", Softmax()},
      {"aten.log_softmax.int", {Role::kWhole, 1, kSameShape}},
      {"aten.cumsum.default", {Role::kWhole, 1, kSameShape, Linear::kFirst, true}},
      {"aten.cumprod.default", {Role::kWhole, 1, kSameShape}},
      {"aten.cummax.default", {Role::kWhole, 1, kSameShape}},
      {"aten.cummin.default", {Role::kWhole, 1, kSameShape}},
      {"aten.logcumsumexp.default", {Role::kWhole, 1, kSameShape}},
      {"aten.sort.default", Sorted(1)},
      {"aten.sort.stable", Sorted(2)},
      {"aten.argsort.default", Sorted(1)},
      {"aten.flip.default", {Role::kWhole, 1, kSameShape, Linear::kFirst, true}},
      {"aten.roll.default", {Role::kWhole, 2, kSameShape, Linear::kFirst, true}},
  };
  return rows;
}

// native_layer_norm(x, shape, w, b, eps) -> out, mean, rstd; rms_norm(x, shape, w, eps) -> out:
// the last dimensions are whole.
void DescribeNorm(const OpCall& call, OpShape* shape) {
  // None stands for the smallest step of the dtype.
  const size_t eps_arg = call.instruction.op == "aten.rms_norm.default" ? 3 : 4;
  shape->needs_spread = call.Number(eps_arg) == 0.0;
  const auto rank = call.rank(0);
  const auto normed = std::min(rank, static_cast<int64_t>(call.Ints(1).size()));
  std::vector<int> labels;
  std::vector<int> kept;
  for (int64_t i = 0; i < rank; ++i) {
    const bool whole = i >= rank - normed;
    labels.push_back(shape->NewLabel(whole ? Role::kWhole : Role::kParallel));
    kept.push_back(whole ? OpShape::kNone : labels.back());
  }
  shape->operands.push_back(labels);
  for (size_t i = 1; i < call.operands.size(); ++i) {
    shape->operands.emplace_back(labels.end() - normed, labels.end());
  }
  shape->results.push_back(labels);
  for (size_t i = 1; i < call.results.size(); ++i) shape->results.push_back(kept);
}

// group_norm(x [n, c, places...], groups, w?, b?, ...), instance_norm(x, w?, b?, ...): statistics
// over places, of one or more channels. Only the first dimension may be split.
void DescribeGroupNorm(const OpCall& call, OpShape* shape) {
  shape->needs_spread =
      call.Number(call.instruction.op == "aten.group_norm.default" ? 4 : 7) == 0.0;
  std::vector<int> labels;
  for (int64_t i = 0; i < call.rank(0); ++i) {
    labels.push_back(shape->NewLabel(i == 0 ? Role::kParallel : Role::kWhole));
  }
  shape->operands.assign(call.operands.size(), {labels[1]});
  shape->operands[0] = labels;
  shape->results = {labels};
}

// _weight_norm(v, g, dim) -> v in lengths g: everything is whole.
void DescribeWeightNorm(const OpCall& call, OpShape* shape) {
  for (size_t i = 0; i < call.operands.size(); ++i) {
    std::vector<int>& labels = shape->operands.emplace_back();
    for (const PlacedDim& dim : call.operands[i]) {
      labels.push_back(dim.empty() ? OpShape::kNone : shape->NewLabel(Role::kWhole));
    }
  }
  shape->results = {shape->operands[0]};
}

// Pools over the last places of x [..., places], and by windows: places are whole, and what stands
// before them is parallel.
void DescribePool(const OpCall& call, int64_t num_places, OpShape* shape) {
  std::vector<int> labels;
  std::vector<int> result;
  for (int64_t i = 0; i < call.rank(0); ++i) {
    const bool is_place = i >= call.rank(0) - num_places;
    labels.push_back(shape->NewLabel(is_place ? Role::kWhole : Role::kParallel));
    result.push_back(is_place ? shape->NewLabel(Role::kWhole) : labels.back());
  }
  shape->operands = {labels};
  shape->results = {result};
}

// im2col, col2im, pixel_shuffle, pixel_unshuffle: the last dimensions of the operand are made anew
// from all that stands in them, and those before are parallel.
bool DescribeRearranged(const OpCall& call, OpShape* shape) {
  const std::string& op = call.instruction.op;
  const int64_t num_from = op == "aten.col2im.default" ? 2 : 3;
  const int64_t num_to = op == "aten.im2col.default" ? 2 : 3;
  const int64_t kept = call.rank(0) - num_from;
  if (kept < 0) return false;
  std::vector<int> labels;
  for (int64_t i = 0; i < kept; ++i) labels.push_back(shape->NewLabel(Role::kParallel));
  std::vector<int> result = labels;
  for (int64_t i = 0; i < num_from; ++i) labels.push_back(shape->NewLabel(Role::kWhole));
  for (int64_t i = 0; i < num_to; ++i) result.push_back(shape->NewLabel(Role::kWhole));
  shape->operands = {labels};
  shape->results = {result};
  return true;
}

bool IsRearrangement(std::string_view op) {
  return op == "aten.im2col.default" || op == "aten.col2im.default" ||
         op == "aten.pixel_shuffle.default" || op == "aten.pixel_unshuffle.default";
}

// How many dimensions a pool or an interpolation goes over; 0: the op is none.
int64_t NumPooled(std::string_view op) {
  if (op == "aten.upsample_nearest1d.vec" || op == "aten.upsample_linear1d.vec" ||
      op == "aten._upsample_nearest_exact1d.vec") {
    return 1;
  }
  if (op == "aten.upsample_nearest2d.vec" || op == "aten.upsample_bilinear2d.vec" ||
      op == "aten.upsample_bicubic2d.vec" || op == "aten._upsample_nearest_exact2d.vec") {
    return 2;
  }
  if (op == "aten.max_pool1d.default" || op == "aten.avg_pool1d.default" ||
      op == "aten.adaptive_avg_pool1d.default") {
    return 1;
  }
  const bool is_2d = op == "aten.max_pool2d.default" || op == "aten.avg_pool2d.default" ||
                     op == "aten.adaptive_avg_pool2d.default";
  return is_2d ? 2 : 0;
}

// Comparisons of vectors along a dimension, which is whole: one number for each, or for each group
// of operands that are stretched to one another.
//
// cosine_similarity(x1, x2, dim = 1, eps), pairwise_distance(x1, x2, p, eps, keepdim);
// cosine_embedding_loss(x1, x2, target, margin, reduction), triplet_margin_loss(anchor, positive,
// negative, margin, p, eps, swap, reduction), without a reduction.
bool DescribeVectors(const OpCall& call, OpShape* shape) {
  const std::string& op = call.instruction.op;
  const bool is_cosine_loss = op == "aten.cosine_embedding_loss.default";
  const bool is_triplet_loss = op == "aten.triplet_margin_loss.default";
  if (is_cosine_loss && call.Int(4) != 0) return false;
  if (is_triplet_loss && call.Int(7) != 0) return false;
  const size_t num_vectors = is_triplet_loss ? 3 : 2;
  if (call.operands.size() < num_vectors) return false;
  int64_t rank = 0;
  for (size_t i = 0; i < num_vectors; ++i) rank = std::max(rank, call.rank(i));
  int64_t along = op == "aten.cosine_similarity.default" ? call.Int(2).value_or(1) : rank - 1;
  if (along < 0) along += rank;
  if (along < 0 || along >= rank) return false;
  std::vector<int> labels;
  std::vector<int> result;
  for (int64_t i = 0; i < rank; ++i) {
    labels.push_back(shape->NewLabel(i == along ? Role::kWhole : Role::kParallel));
    if (i != along) result.push_back(labels.back());
  }
  const auto stretched = [&](size_t i, const std::vector<int>& to) {
    const PlacedDims& dims = call.operands[i];
    std::vector<int>& operand = shape->operands.emplace_back();
    for (size_t d = 0; d < dims.size() && dims.size() <= to.size(); ++d) {
      operand.push_back(dims[d].empty() ? OpShape::kNone : to[to.size() - dims.size() + d]);
    }
  };
  for (size_t i = 0; i < num_vectors; ++i) stretched(i, labels);
  if (is_cosine_loss) stretched(num_vectors, result);
  if (op == "aten.pairwise_distance.default" && call.Flag(4)) result.push_back(OpShape::kNone);
  shape->results = {result};
  return true;
}

bool ComparesVectors(std::string_view op) {
  return op == "aten.cosine_similarity.default" || op == "aten.pairwise_distance.default" ||
         op == "aten.cosine_embedding_loss.default" || op == "aten.triplet_margin_loss.default";
}

// histc(x, bins, min, max) -> [bins]: how many elements are in each bin, wherever they stand. Where
// no range is given it is that of all elements.
void DescribeHistogram(const OpCall& call, OpShape* shape) {
  const bool has_range = call.Number(2).value_or(0) < call.Number(3).value_or(0);
  std::vector<int> labels;
  for (int64_t i = 0; i < call.rank(0); ++i) {
    labels.push_back(shape->NewLabel(has_range ? Role::kSum : Role::kWhole));
  }
  shape->operands = {labels};
  shape->results = {{shape->NewLabel(Role::kWhole)}};
}

}  // namespace

bool DescribeReduction(const OpCall& call, OpShape* shape, absl::Status* /*status*/) {
  const std::string& op = call.instruction.op;
  if (op == "aten.native_layer_norm.default" || op == "aten.rms_norm.default" ||
      op == "aten.layer_norm.default") {
    DescribeNorm(call, shape);
    return true;
  }
  if (op == "aten.group_norm.default" || op == "aten.instance_norm.default") {
    // More operands are running statistics.
    if (call.rank(0) < 2 || call.operands.size() > 3) return false;
    DescribeGroupNorm(call, shape);
    return true;
  }
  if (op == "aten._weight_norm.default") {
    if (call.operands.size() != 2) return false;
    DescribeWeightNorm(call, shape);
    return true;
  }
  if (const int64_t num_places = NumPooled(op); num_places > 0) {
    if (call.operands.size() != 1 || call.rank(0) < num_places) return false;
    DescribePool(call, num_places, shape);
    return true;
  }
  if (IsRearrangement(op)) return DescribeRearranged(call, shape);
  if (ComparesVectors(op)) return DescribeVectors(call, shape);
  if (op == "aten.histc.default") {
    DescribeHistogram(call, shape);
    return true;
  }
  const auto found = Rows().find(op);
  if (found == Rows().end()) return false;
  const Row& row = found->second;
  const int64_t rank = call.rank(0);
  const size_t dims_arg =
      row.dims_arg < 0 ? call.instruction.args.size() : static_cast<size_t>(row.dims_arg);
  std::vector<int64_t> along = call.Dims(dims_arg, rank);
  if (row.dims_arg == kLastTwo) along = {rank - 2, rank - 1};
  if (row.is_last && call.Ints(dims_arg).empty()) along = {rank - 1};
  const bool keep = row.keep_arg > 0 && call.Flag(row.keep_arg);
  std::vector<int> labels;
  std::vector<int> result;
  for (int64_t i = 0; i < rank; ++i) {
    const bool is_along = std::ranges::count(along, i) > 0;
    labels.push_back(shape->NewLabel(is_along ? row.role : Role::kParallel));
    if (!is_along || row.keep_arg == kSameShape) {
      result.push_back(labels.back());
    } else if (keep) {
      result.push_back(OpShape::kNone);
    }
  }
  shape->operands.push_back(labels);
  shape->results.assign(call.results.size(), result);
  shape->linear = row.linear;
  shape->keeps_zero = row.keeps_zero;
  shape->gives_non_negative = row.gives_non_negative;
  shape->gives_positive = row.gives_positive;
  shape->keeps_positive = row.keeps_positive;
  return true;
}

}  // namespace autosp::checker
