// Products, attention, embedding and the loss.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "compiler/checker/op_shape.h"

namespace autosp::checker {
namespace {

// x[..., k] w[n, k] (+ b[n]) -> y[..., n]. With a bias a partial sum would count it once per rank.
void DescribeLinear(const OpCall& call, OpShape* shape) {
  const bool has_bias = call.operands.size() > 2;
  std::vector<int> x;
  for (int64_t i = 0; i + 1 < call.rank(0); ++i) x.push_back(shape->NewLabel(Role::kParallel));
  std::vector<int> y = x;
  const int k = shape->NewLabel(has_bias ? Role::kWhole : Role::kSum);
  const int n = shape->NewLabel(Role::kParallel);
  x.push_back(k);
  y.push_back(n);
  shape->operands = {x, {n, k}};
  if (has_bias) shape->operands.push_back({n});
  shape->results = {y};
  shape->linear = has_bias ? Linear::kNo : Linear::kEach;
  shape->keeps_zero = !has_bias;
}

// a[..., m, k] b[..., k, n] -> y[..., m, n]; leading dimensions broadcast. `bias` [n] or [m, n].
absl::Status DescribeMatmul(const OpCall& call, size_t first, OpShape* shape) {
  if (call.operands.size() != first + 2)
    return Unimplemented("a product of other than two matrices");
  const PlacedDims& a = call.operands[first];
  const PlacedDims& b = call.operands[first + 1];
  if (a.size() < 2 || b.size() < 2) {
    return Unimplemented("a product with a vector is not in the checker's table");
  }
  const size_t rank = std::max(a.size(), b.size());
  const bool has_bias = first == 1;
  std::vector<int> result;
  for (size_t i = 0; i + 2 < rank; ++i) result.push_back(shape->NewLabel(Role::kParallel));
  std::vector<bool> held(rank, false);
  const auto leading = [&](const PlacedDims& dims) {
    std::vector<int> labels;
    for (size_t i = 0; i + 2 < dims.size(); ++i) {
      const size_t at = rank - dims.size() + i;
      held[at] = held[at] || !dims[i].empty();
      labels.push_back(dims[i].empty() ? OpShape::kNone : result[at]);
    }
    return labels;
  };
  std::vector<int> left = leading(a);
  std::vector<int> right = leading(b);
  for (size_t i = 0; i + 2 < rank; ++i) {
    if (!held[i]) result[i] = OpShape::kNone;
  }
  const int m = shape->NewLabel(Role::kParallel);
  const int k = shape->NewLabel(has_bias ? Role::kWhole : Role::kSum);
  const int n = shape->NewLabel(Role::kParallel);
  left.insert(left.end(), {m, k});
  right.insert(right.end(), {k, n});
  result.insert(result.end(), {m, n});
  if (has_bias) {
    std::vector<int> bias;
    const PlacedDims& dims = call.operands[0];
    for (size_t i = 0; i < dims.size(); ++i) {
      bias.push_back(dims[i].empty() ? OpShape::kNone : result[rank - dims.size() + i]);
    }
    shape->operands.push_back(bias);
  }
  shape->operands.push_back(left);
  shape->operands.push_back(right);
  shape->results = {result};
  shape->linear = has_bias ? Linear::kNo : Linear::kEach;
  shape->keeps_zero = !has_bias;
  return absl::OkStatus();
}

// einsum("ij,jk->ik", operands): a letter is an index, summed if the result does not have it.
// False: an ellipsis, a diagonal, or no arrow.
bool DescribeEinsum(const OpCall& call, OpShape* shape) {
  const auto* equation =
      call.instruction.args.empty() ? nullptr : std::get_if<std::string>(&call.instruction.args[0]);
  if (equation == nullptr) return false;
  const std::string spelled = absl::StrReplaceAll(*equation, {{" ", ""}});
  const std::vector<std::string> sides = absl::StrSplit(spelled, "->");
  if (sides.size() != 2 || absl::StrContains(spelled, '.')) return false;
  const std::vector<std::string> terms = absl::StrSplit(sides[0], ',');
  if (terms.size() != call.operands.size()) return false;
  OpShape described;
  std::map<char, int> letters;
  std::set<int> held;
  for (size_t i = 0; i < terms.size(); ++i) {
    const PlacedDims& dims = call.operands[i];
    const std::set<char> distinct(terms[i].begin(), terms[i].end());
    if (distinct.size() != dims.size() || terms[i].size() != dims.size()) return false;
    std::vector<int>& labels = described.operands.emplace_back();
    for (size_t j = 0; j < dims.size(); ++j) {
      const auto [letter, is_new] = letters.try_emplace(terms[i][j], OpShape::kNone);
      const bool is_kept = absl::StrContains(sides[1], letter->first);
      if (is_new) letter->second = described.NewLabel(is_kept ? Role::kParallel : Role::kSum);
      labels.push_back(dims[j].empty() ? OpShape::kNone : letter->second);
      held.insert(labels.back());
    }
  }
  std::vector<int>& result = described.results.emplace_back();
  for (char letter : sides[1]) {
    const auto found = letters.find(letter);
    if (found == letters.end()) return false;
    result.push_back(held.contains(found->second) ? found->second : OpShape::kNone);
  }
  described.linear = Linear::kEach;
  described.keeps_zero = true;
  *shape = described;
  return true;
}

// conv(input [b, c, places...], weight [o, c / groups, kernel...], bias [o]?) -> [b, o, places...]:
// the batch is parallel; all else is whole, also where channels are in groups.
bool DescribeConvolution(const OpCall& call, OpShape* shape) {
  const int64_t rank = call.rank(0);
  if (rank < 2 || rank != call.rank(1)) return false;  // without a batch
  const int b = shape->NewLabel(Role::kParallel);
  const int o = shape->NewLabel(Role::kWhole);
  std::vector<int> input = {b};
  std::vector<int> weight = {o};
  std::vector<int> result = {b, o};
  for (int64_t i = 1; i < rank; ++i) {
    input.push_back(shape->NewLabel(Role::kWhole));
    weight.push_back(shape->NewLabel(Role::kWhole));
    if (i > 1) result.push_back(shape->NewLabel(Role::kWhole));
  }
  shape->operands = {input, weight};
  if (call.operands.size() > 2) shape->operands.push_back({o});
  shape->results = {result};
  return true;
}

// conv_transpose(input [b, c, places...], weight [c, o / groups, kernel...], bias [o]?): the same.
bool DescribeTransposed(const OpCall& call, OpShape* shape) {
  if (!DescribeConvolution(call, shape)) return false;
  shape->operands[1][0] = shape->operands[0][1];
  return true;
}

bool IsTransposed(std::string_view op) { return op.starts_with("aten.conv_transpose"); }

bool IsConvolution(std::string_view op) {
  return op.starts_with("aten.conv1d.") || op.starts_with("aten.conv2d.") ||
         op.starts_with("aten.conv3d.");
}

// query [b, n, s, e], key and value [b, nkv, t, e], mask [b?, n?, s?, t] -> out, logsumexp [b, n,
// s]. Consecutive query heads share a key head: the split of the heads is that of the key heads.
struct AttentionLabels {
  int b, n, s, t, e;
};

// `rows`: what a query token is to the op. In causal order its place among all matters.
AttentionLabels LabelAttention(OpShape* shape, Role rows) {
  AttentionLabels labels{};
  labels.b = shape->NewLabel(Role::kParallel);
  labels.n = shape->NewLabel(Role::kParallel);
  labels.s = shape->NewLabel(rows);
  labels.t = shape->NewLabel(Role::kWhole);
  labels.e = shape->NewLabel(Role::kWhole);
  return labels;
}

std::vector<int> MaskLabels(const AttentionLabels& labels, const PlacedDims& mask) {
  const std::vector<int> all = {labels.b, labels.n, labels.s, labels.t};
  std::vector<int> result;
  if (mask.size() > all.size()) return result;  // refused, because the numbers of dimensions differ
  for (size_t i = 0; i < mask.size(); ++i) {
    result.push_back(mask[i].empty() ? OpShape::kNone : all[all.size() - mask.size() + i]);
  }
  return result;
}

bool IsCausal(const OpCall& call, size_t arg) {
  const auto stated = call.instruction.attributes.find("causal");
  if (stated == call.instruction.attributes.end()) return call.Flag(arg);
  const bool* is_causal = std::get_if<bool>(&stated->second);
  return is_causal == nullptr || *is_causal;
}

void DescribeAttention(const OpCall& call, OpShape* shape) {
  const Role rows = IsCausal(call, 4) ? Role::kWhole : Role::kParallel;
  const AttentionLabels l = LabelAttention(shape, rows);
  shape->operands = {{l.b, l.n, l.s, l.e}, {l.b, l.n, l.t, l.e}, {l.b, l.n, l.t, l.e}};
  if (call.operands.size() > 3) shape->operands.push_back(MaskLabels(l, call.operands[3]));
  shape->results = {{l.b, l.n, l.s, l.e}, {l.b, l.n, l.s}};
}

// grad, query, key, value, out, logsumexp, dropout, causal, mask -> grads of query, key, value
void DescribeAttentionBackward(const OpCall& call, OpShape* shape) {
  // Gradients of keys and values are sums over all queries.
  const Role rows = IsCausal(call, 7) ? Role::kWhole : Role::kSum;
  const AttentionLabels l = LabelAttention(shape, rows);
  const std::vector<int> query = {l.b, l.n, l.s, l.e};
  const std::vector<int> key = {l.b, l.n, l.t, l.e};
  shape->operands = {query, query, key, key, query, {l.b, l.n, l.s}};
  if (call.operands.size() > 6) shape->operands.push_back(MaskLabels(l, call.operands[6]));
  shape->results = {query, key, key};
  shape->linear = Linear::kFirst;
  // Whole blocks of tokens may be padding: where no gradient comes in, none leaves.
  shape->keeps_zero_of_first = true;
}

// weight [v, d], indices [...] -> [..., d]
void DescribeEmbedding(const OpCall& call, OpShape* shape) {
  std::vector<int> indices;
  const bool divides = call.Flag(3) && call.instruction.kind == InstructionKind::kRecord;
  const Role role = divides ? Role::kWhole : Role::kParallel;
  for (int64_t i = 0; i < call.rank(1); ++i) indices.push_back(shape->NewLabel(role));
  const int v = shape->NewLabel(Role::kWhole);
  const int d = shape->NewLabel(Role::kParallel);
  shape->operands = {{v, d}, indices};
  indices.push_back(d);
  shape->results = {indices};
}

// grad [..., d], indices [...] -> weight's gradient [v, d]: a sum over all positions. Where it is
// divided by how often a row is met, all positions are counted.
void DescribeEmbeddingBackward(const OpCall& call, OpShape* shape) {
  std::vector<int> indices;
  const Role role = call.Flag(4) ? Role::kWhole : Role::kSum;
  for (int64_t i = 0; i < call.rank(1); ++i) indices.push_back(shape->NewLabel(role));
  const int v = shape->NewLabel(Role::kWhole);
  const int d = shape->NewLabel(Role::kParallel);
  std::vector<int> grad = indices;
  grad.push_back(d);
  shape->operands = {grad, indices};
  shape->results = {{v, d}};
  shape->linear = Linear::kFirst;
}

// x [r..., k], weight [e, k, n], experts [r...] -> [r..., n]: each row with the matrix that its
// index names, so that rows are parallel and matrices whole in number.
bool DescribeExpertMm(const OpCall& call, OpShape* shape) {
  if (call.operands.size() != 3) return false;
  std::vector<int> rows;
  for (int64_t i = 0; i < call.rank(2); ++i) rows.push_back(shape->NewLabel(Role::kParallel));
  const int e = shape->NewLabel(Role::kWhole);
  const int k = shape->NewLabel(Role::kSum);
  const int n = shape->NewLabel(Role::kParallel);
  std::vector<int> x = rows;
  std::vector<int> y = rows;
  x.push_back(k);
  y.push_back(n);
  shape->operands = {x, {e, k, n}, rows};
  shape->results = {y};
  shape->linear = Linear::kFirst;
  shape->keeps_zero_of_first = true;
  return true;
}

// rows [r, k], matrices [g, k, n], ends [g] -> [r, n]: whose matrix a row meets depends on how many
// rows come before it.
bool DescribeGroupedMm(const OpCall& call, OpShape* shape) {
  if (call.operands.size() != 3 || call.HasTensor(3)) return false;
  const int r = shape->NewLabel(Role::kWhole);
  const int g = shape->NewLabel(Role::kWhole);
  const int k = shape->NewLabel(Role::kWhole);
  const int n = shape->NewLabel(Role::kParallel);
  shape->operands = {{r, k}, {g, k, n}, {g}};
  shape->results = {{r, n}};
  return true;
}

// grad [r..., n], x [r..., k], experts [r...] -> weight's gradient [e, k, n], a sum over rows; or
// [e, n, k], transposed.
bool DescribeExpertMmWeightGrad(const OpCall& call, OpShape* shape) {
  if (call.operands.size() != 3 || call.results[0].size() != 3) return false;
  std::vector<int> rows;
  for (int64_t i = 0; i < call.rank(2); ++i) rows.push_back(shape->NewLabel(Role::kSum));
  const int e = shape->NewLabel(Role::kWhole);
  const int k = shape->NewLabel(Role::kParallel);
  const int n = shape->NewLabel(Role::kParallel);
  std::vector<int> grad = rows;
  std::vector<int> x = rows;
  grad.push_back(n);
  x.push_back(k);
  shape->operands = {grad, x, rows};
  const bool is_transposed = call.Flag(4);
  shape->results = {{e, is_transposed ? n : k, is_transposed ? k : n}};
  shape->linear = Linear::kFirst;
  return true;
}

// A discrete Fourier transform along one dimension, of numbers or of pairs of them in the last
// dimension: (operand, dim, ...). It is a product with a matrix, so that all other dimensions are
// parallel; places and frequencies have different numbers.
bool DescribeFourier(const OpCall& call, bool from_pairs, bool to_pairs, OpShape* shape) {
  const int64_t rank = call.rank(0) - (from_pairs ? 1 : 0);
  const int64_t dim = call.Int(1).value_or(-1);
  if (call.operands.size() != 1 || dim < 0 || dim >= rank) return false;
  std::vector<int> from;
  for (int64_t i = 0; i < rank; ++i) {
    from.push_back(shape->NewLabel(i == dim ? Role::kWhole : Role::kParallel));
  }
  std::vector<int> to = from;
  to[dim] = shape->NewLabel(Role::kWhole);
  if (from_pairs) from.push_back(shape->NewLabel(Role::kWhole));
  if (to_pairs) to.push_back(shape->NewLabel(Role::kWhole));
  shape->operands = {from};
  shape->results = {to};
  shape->linear = Linear::kFirst;
  shape->keeps_zero_of_first = true;  // and no sign: the spectrum of what is not negative has any
  return true;
}

// logits [t, v], target [t], weight [v]? -> loss sum, sum of weights, logsumexp [t]; or the loss of
// each token, logsumexp [t]
void DescribeCrossEntropy(const OpCall& call, bool is_sum, OpShape* shape) {
  const int t = shape->NewLabel(is_sum ? Role::kSum : Role::kParallel);
  const int v = shape->NewLabel(Role::kWhole);
  shape->operands = {{t, v}, {t}};
  if (call.HasTensor(3)) shape->operands.push_back({v});
  shape->results = {{t}, {t}};
  if (is_sum) shape->results = {{}, {}, {t}};
}

}  // namespace

bool GroupHeads(const PlacedDims& query, PlacedDims* key) {
  constexpr size_t kHeads = 1;
  if (query.size() != 4 || key->size() != 4) return false;
  const int64_t heads = LogicalSize(query[kHeads]);
  const int64_t kv_heads = LogicalSize((*key)[kHeads]);
  if (kv_heads == 0 || heads % kv_heads != 0) return false;
  PlacedDim& dim = (*key)[kHeads];
  dim.push_back({.size = heads / kv_heads, .local_size = heads / kv_heads});
  dim = Normalized(dim);
  return true;
}

bool DescribeProduct(const OpCall& call, OpShape* shape, absl::Status* status) {
  const std::string& op = call.instruction.op;
  if (op == "aten.linear.default") {
    DescribeLinear(call, shape);
  } else if (op == "aten.matmul.default" || op == "aten.mm.default" || op == "aten.bmm.default") {
    *status = DescribeMatmul(call, 0, shape);
  } else if (op == "aten.einsum.default") {
    return DescribeEinsum(call, shape);
  } else if (IsTransposed(op)) {
    return DescribeTransposed(call, shape);
  } else if (IsConvolution(op)) {
    return DescribeConvolution(call, shape);
  } else if (op == "aten.addmm.default") {
    *status = DescribeMatmul(call, 1, shape);
  } else if (op.starts_with("aten._scaled_dot_product_") &&
             call.Number(op.ends_with("_backward.default") ? 6 : 3) != 0.0) {
    *status = Unimplemented("attention with dropout: every rank would drop other scores");
  } else if (op == "aten._scaled_dot_product_flash_attention_for_cpu.default" ||
             op == "autosp.sdpa") {
    DescribeAttention(call, shape);
  } else if (op == "aten._scaled_dot_product_flash_attention_for_cpu_backward.default" ||
             op == "autosp.sdpa_backward") {
    DescribeAttentionBackward(call, shape);
  } else if (op == "aten.embedding.default") {
    DescribeEmbedding(call, shape);
  } else if (op == "aten.embedding_dense_backward.default") {
    DescribeEmbeddingBackward(call, shape);
  } else if (op == "autosp.expert_mm") {
    return DescribeExpertMm(call, shape);
  } else if (op == "aten._grouped_mm.default") {
    return DescribeGroupedMm(call, shape);
  } else if (op == "autosp.expert_mm_weight_grad") {
    return DescribeExpertMmWeightGrad(call, shape);
  } else if (op == "autosp.fft_c2c") {
    return DescribeFourier(call, true, true, shape);
  } else if (op == "autosp.fft_c2r") {
    return DescribeFourier(call, true, false, shape);
  } else if (op == "autosp.fft_r2c") {
    return DescribeFourier(call, false, true, shape);
  } else if (op == "autosp.cross_entropy_sum" || op == "autosp.cross_entropy") {
    DescribeCrossEntropy(call, op.ends_with("_sum"), shape);
  } else {
    return false;
  }
  return true;
}

}  // namespace autosp::checker
