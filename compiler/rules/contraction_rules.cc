// Matrix products, attention and embedding.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/einsum_letters.h"
#include "compiler/rules/expert_products.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// [..., k] x [n, k] (+ [n]) -> [..., n]
absl::StatusOr<OpFactors> InferLinear(OpContext& context) {
  const FactorDims& input = context.Factors(context.Tensor(0));
  const FactorDims& weight = context.Factors(context.Tensor(1));
  if (weight.size() != 2) return InferOpaque(context);
  RETURN_IF_ERROR(context.table().Unify(input.back(), weight[1]));
  if (context.Tensor(2).valid()) {
    RETURN_IF_ERROR(context.table().Unify(weight[0], context.Factors(context.Tensor(2))[0]));
  }
  OpFactors factors{.results = {input}};
  factors.results[0].back() = weight[0];
  AppendFactors(input.back(), context.Tensor(2).valid() ? &factors.whole : &factors.sum);
  return factors;
}

// A cell of a recurrent layer (x, h, ...) or (x, [h, c], ...), which canonicalisation leaves as
// linear layers: each row by itself, of features that are whole.
absl::StatusOr<OpFactors> InferCell(OpContext& context) {
  std::vector<ValueId> states = context.Tensors(1);
  if (states.empty()) states.push_back(context.Tensor(1));
  const FactorDims input = context.Factors(context.Tensor(0));
  const FactorDims hidden = context.Factors(states[0]);
  if (input.size() != hidden.size() || input.empty()) return InferOpaque(context);
  OpFactors factors;
  for (size_t i = 0; i + 1 < input.size(); ++i) {
    RETURN_IF_ERROR(context.table().Unify(hidden[i], input[i]));
  }
  AppendFactors(input.back(), &factors.whole);
  for (ValueId state : states) {
    const FactorDims& dims = context.Factors(state);
    if (dims.size() != hidden.size()) return InferOpaque(context);
    for (size_t i = 0; i < dims.size(); ++i) {
      RETURN_IF_ERROR(context.table().Unify(dims[i], hidden[i]));
    }
    factors.results.push_back(hidden);
  }
  AppendFactors(hidden.back(), &factors.whole);
  return factors;
}

// A product with a vector, which canonicalisation makes a matrix: the contracted factor sums.
absl::StatusOr<OpFactors> VectorProduct(OpContext& context, FactorDims left, FactorDims right) {
  const auto rows = right.end() - (right.size() == 1 ? 1 : 2);
  const FactorDim inner = left.back();
  RETURN_IF_ERROR(context.table().Unify(inner, *rows));
  left.pop_back();
  right.erase(rows);
  OpFactors factors{.results = {left.empty() ? right : left}};
  AppendFactors(inner, &factors.sum);
  return factors;
}

// Shared by matmul, mm, bmm: the contracted factor sums; equal batch dims are parallel.
absl::StatusOr<OpFactors> Matmul(OpContext& context, ValueId a, ValueId b) {
  FactorDims left = context.Factors(a);
  FactorDims right = context.Factors(b);
  if (left.empty() || right.empty()) return InferOpaque(context);
  if (left.size() == 1 || right.size() == 1) return VectorProduct(context, left, right);
  const FactorDim rows = left[left.size() - 2];
  const FactorDim columns = right.back();
  const FactorDim inner = left.back();
  RETURN_IF_ERROR(context.table().Unify(inner, right[right.size() - 2]));
  const size_t rank = std::max(left.size(), right.size());
  FactorDims dims(rank);
  for (const FactorDims* side : {&left, &right}) {
    for (size_t i = 0; i + 2 < side->size(); ++i) {
      FactorDim& out = dims[rank - side->size() + i];
      if ((*side)[i].empty()) continue;
      if (out.empty()) {
        out = (*side)[i];
      } else {
        RETURN_IF_ERROR(context.table().Unify(out, (*side)[i]));
      }
    }
  }
  dims[rank - 2] = rows;
  dims[rank - 1] = columns;
  OpFactors factors{.results = {dims}};
  AppendFactors(inner, &factors.sum);
  return factors;
}

absl::StatusOr<OpFactors> InferMatmul(OpContext& context) {
  return Matmul(context, context.Tensor(0), context.Tensor(1));
}

// bias + a x b
absl::StatusOr<OpFactors> InferAddmm(OpContext& context) {
  ASSIGN_OR_RETURN(OpFactors factors, Matmul(context, context.Tensor(1), context.Tensor(2)));
  const FactorDims& bias = context.Factors(context.Tensor(0));
  const FactorDims& result = factors.results[0];
  for (size_t i = 0; i < bias.size(); ++i) {
    const FactorDim& out = result[result.size() - bias.size() + i];
    if (!bias[i].empty()) RETURN_IF_ERROR(context.table().Unify(out, bias[i]));
  }
  // A partial sum would count the bias once per shard.
  factors.whole.insert(factors.whole.end(), factors.sum.begin(), factors.sum.end());
  factors.sum.clear();
  return factors;
}

// input [n, m] + a [b, n, k] x b [b, k, m], which canonicalize replaces: summed over b and k.
absl::StatusOr<OpFactors> InferAddbmm(OpContext& context) {
  const FactorDims& left = context.Factors(context.Tensor(1));
  const FactorDims& right = context.Factors(context.Tensor(2));
  RETURN_IF_ERROR(context.table().Unify(left[0], right[0]));
  RETURN_IF_ERROR(context.table().Unify(left[2], right[1]));
  OpFactors factors{.results = {{left[1], right[2]}}};
  const FactorDims& input = context.Factors(context.Tensor(0));
  for (size_t i = 0; i < input.size(); ++i) {
    const FactorDim& out = factors.results[0][2 - input.size() + i];
    if (!input[i].empty()) RETURN_IF_ERROR(context.table().Unify(out, input[i]));
  }
  for (const FactorDim& dim : {left[0], left[2]}) AppendFactors(dim, &factors.whole);
  return factors;
}

// einsum(equation, operands): a letter is a factor; what the result does not have is summed. Forms
// with a diagonal are opaque.
absl::StatusOr<OpFactors> InferEinsum(OpContext& context) {
  const std::optional<std::string> spelled = SpelledEquation(context);
  if (!spelled) return InferOpaque(context);
  const std::vector<std::string> sides = absl::StrSplit(*spelled, "->");
  const std::vector<ValueId> operands = context.Tensors(1);
  const std::vector<std::string> terms = absl::StrSplit(sides[0], ',');
  std::map<char, FactorDim> letters;
  for (size_t i = 0; i < terms.size(); ++i) {
    const FactorDims& dims = context.Factors(operands[i]);
    const std::set<char> distinct(terms[i].begin(), terms[i].end());
    if (distinct.size() != dims.size() || terms[i].size() != dims.size()) {
      return InferOpaque(context);
    }
    for (size_t d = 0; d < dims.size(); ++d) {
      FactorDim& known = letters[terms[i][d]];
      // Size 1 stretches, as in broadcasting.
      if (known.empty()) known = dims[d];
      if (!dims[d].empty()) RETURN_IF_ERROR(context.table().Unify(known, dims[d]));
    }
  }
  OpFactors factors{.results = {{}}};
  for (char letter : sides[1]) factors.results[0].push_back(letters[letter]);
  for (const auto& [letter, dim] : letters) {
    if (!absl::StrContains(sides[1], letter)) AppendFactors(dim, &factors.sum);
    // Two letters of one factor (pairs of tokens) are not split together: each rank would pair its
    // own only.
    for (const auto& [other, other_dim] : letters) {
      for (FactorVar factor : context.table().Resolve(dim)) {
        const FactorDim shared = context.table().Resolve(other_dim);
        if (other != letter && std::ranges::count(shared, factor) > 0) {
          factors.whole.push_back(factor);
        }
      }
    }
  }
  return factors;
}

// weight [v, d], indices [...] -> [..., d]
absl::StatusOr<OpFactors> InferEmbedding(OpContext& context) {
  const FactorDims& weight = context.Factors(context.Tensor(0));
  OpFactors factors{.results = {context.Factors(context.Tensor(1))}};
  factors.results[0].push_back(weight[1]);
  AppendFactors(weight[0], &factors.whole);
  return factors;
}

// Whether some have one sequence (or head) for all of others (shape-attention repeats it): then the
// result has those of the others.
bool StretchFront(std::initializer_list<const FactorDim*> dims, const FactorTable& table,
                  FactorDim* result) {
  int64_t size = 1;
  for (const FactorDim* dim : dims) {
    if (table.Size(*dim) <= size) continue;
    size = table.Size(*dim);
    *result = *dim;
  }
  const auto is_one = [&](const FactorDim* dim) { return table.Size(*dim) == 1; };
  const auto is_whole = [&](const FactorDim* dim) { return table.Size(*dim) == size; };
  return !std::ranges::all_of(dims, is_whole) &&
         std::ranges::all_of(dims,
                             [&](const FactorDim* dim) { return is_one(dim) || is_whole(dim); });
}

// query [..., N, L, E], key [..., Nkv, T, E], value [..., Nkv, T, Ev], without a mask. Attention
// mixes all tokens of a head: T is whole, and L where a row's place among all matters. Heads are
// parallel where query and key count the same heads; grouped heads are cut by the lowering, which
// knows both numbers.
absl::StatusOr<OpFactors> InferUnmaskedAttention(OpContext& context, bool rows_have_places) {
  const FactorDims& query = context.Factors(context.Tensor(0));
  const FactorDims& key = context.Factors(context.Tensor(1));
  const FactorDims& value = context.Factors(context.Tensor(2));
  const size_t rank = query.size();
  if (rank < 2 || key.size() != rank || value.size() != rank) return InferOpaque(context);
  FactorTable& table = context.table();
  OpFactors factors{.results = {query}};
  factors.results[0].back() = value.back();
  for (size_t i = 0; i + 2 < rank; ++i) {
    const bool has_one_head = table.Size(query[i]) == 1 && table.Size(key[i]) > 1;
    const bool stretches = i + 3 < rank || rank == 3 || has_one_head;
    if (stretches && StretchFront({&query[i], &key[i], &value[i]}, table, &factors.results[0][i])) {
      continue;
    }
    RETURN_IF_ERROR(table.Unify(key[i], value[i]));
    const int64_t heads = table.Size(query[i]);
    const int64_t kv_heads = table.Size(key[i]);
    if (heads == kv_heads) {
      RETURN_IF_ERROR(table.Unify(query[i], key[i]));
    } else if (kv_heads > 0 && heads % kv_heads == 0 && i + 3 == rank) {
      // Grouped heads: consecutive query heads share a key head.
      FactorDim grouped = key[i];
      grouped.push_back(table.NewFactor(heads / kv_heads));
      RETURN_IF_ERROR(table.Unify(query[i], grouped));
    }
  }
  RETURN_IF_ERROR(table.Unify(key[rank - 2], value[rank - 2]));
  RETURN_IF_ERROR(table.Unify(query.back(), key.back()));
  if (rows_have_places) AppendFactors(query[rank - 2], &factors.whole);
  AppendFactors(key[rank - 2], &factors.whole);
  AppendFactors(query.back(), &factors.whole);
  AppendFactors(value.back(), &factors.whole);
  return factors;
}

// The mask broadcasts against the scores [..., N, L, T], and rows of it go with rows of queries.
absl::StatusOr<OpFactors> InferAttention(OpContext& context) {
  const bool is_causal = FlagArgument(context.node().args, 5).value_or(false);
  ASSIGN_OR_RETURN(OpFactors factors, InferUnmaskedAttention(context, is_causal));
  const FactorDims& query = context.Factors(context.Tensor(0));
  const FactorDims& key = context.Factors(context.Tensor(1));
  const size_t rank = query.size();
  FactorTable& table = context.table();
  if (const ValueId mask = context.Tensor(3); mask.valid() && key.size() == rank) {
    const FactorDims mask_dims = context.Factors(mask);
    FactorDims scores = query;
    scores.back() = key[rank - 2];
    for (size_t i = 0; i < mask_dims.size(); ++i) {
      const FactorDim& dim = mask_dims[mask_dims.size() - 1 - i];
      const FactorDim& score = scores[rank - 1 - i];
      if (!dim.empty() && table.Size(dim) == table.Size(score)) {
        RETURN_IF_ERROR(table.Unify(score, dim));
      }
    }
  }
  return factors;
}

// Documents [B or 1, S] of queries and keys: the batch is the attention's.
absl::StatusOr<OpFactors> InferMaskedAttention(OpContext& context) {
  ASSIGN_OR_RETURN(OpFactors factors, InferUnmaskedAttention(context, /*rows_have_places=*/true));
  for (size_t arg : {3, 4}) {
    if (!context.Tensor(arg).valid()) continue;
    const FactorDims docs = context.Factors(context.Tensor(arg));
    const FactorDims& tokens = context.Factors(context.Tensor(arg == 3 ? 0 : 1));
    if (!docs[0].empty()) RETURN_IF_ERROR(context.table().Unify(docs[0], tokens[0]));
    RETURN_IF_ERROR(context.table().Unify(docs[1], tokens[tokens.size() - 2]));
  }
  return factors;
}

constexpr Derivative kExplicit = Derivative::kExplicit;

// Of a product of two matrices, operands `a` and `a` + 1; nothing where one is a vector. Each
// gradient is a product of the same three sizes.
OpFlops ProductFlops(const OpCall& call, size_t a) {
  if (call.operands[a].size() < 2 || call.operands[a + 1].size() < 2) return {};
  double flops = 2 * static_cast<double>(call.operands[a].back());
  for (int64_t size : call.results[0]) flops *= static_cast<double>(size);
  const int num_gradients = call.needs_grad[a] + call.needs_grad[a + 1];
  return {.kind = FlopKind::kProduct, .forward = flops, .backward = num_gradients * flops};
}

OpFlops MatmulFlops(const OpCall& call) { return ProductFlops(call, 0); }
OpFlops AddmmFlops(const OpCall& call) { return ProductFlops(call, 1); }

// As of each pair of matrices.
OpFlops AddbmmFlops(const OpCall& call) {
  OpFlops flops = ProductFlops(call, 1);
  const auto num_pairs = static_cast<double>(call.operands[1][0]);
  flops.forward *= num_pairs;
  flops.backward *= num_pairs;
  return flops;
}

// All gates of the input, and of the hidden state; of states the first is it.
OpFlops CellFlops(const OpCall& call) {
  const size_t weight = call.results.size() + 1;
  OpFlops flops{.kind = FlopKind::kProduct};
  for (const size_t side : {0, 1}) {
    const std::vector<int64_t>& from = call.operands[side];
    double product = 2 * static_cast<double>(call.operands[weight + side][0]);
    for (int64_t size : from) product *= static_cast<double>(size);
    flops.forward += product;
    flops.backward += (call.needs_grad[side] + call.needs_grad[weight + side]) * product;
  }
  return flops;
}

// Of both ops, which have `causal` at one place. Masks, where the op has one, are data.
OpFlops FlopsOfAttention(const OpCall& call, int64_t window) {
  const std::vector<int64_t>& q = call.operands[0];
  const std::vector<int64_t>& k = call.operands[1];
  const bool causal = FlagArgument(call.args, 5).value_or(false);
  return AttentionFlops(q, call.operands[2],
                        AttendedPairs(q[q.size() - 2], k[k.size() - 2], causal, window));
}

OpFlops SdpaFlops(const OpCall& call) { return FlopsOfAttention(call, /*window=*/0); }
OpFlops MaskedAttentionFlops(const OpCall& call) {
  return FlopsOfAttention(call, IntegerArgument(call.args, 6).value_or(0));
}

OpRule Product(std::string_view op, InferFactorsFn infer, FlopsFn flops) {
  return {.op = op, .infer = infer, .derivative = kExplicit, .flops = flops};
}

}  // namespace

std::vector<OpRule> ContractionRules() {
  return {
      Product("aten.linear.default", InferLinear, MatmulFlops),
      Product("aten.matmul.default", InferMatmul, MatmulFlops),
      Product("aten.mm.default", InferMatmul, MatmulFlops),
      Product("aten.bmm.default", InferMatmul, MatmulFlops),
      Product("aten.addmm.default", InferAddmm, AddmmFlops),
      // Canonicalisation leaves a product and a sum.
      {.op = "aten.baddbmm.default", .infer = InferAddmm, .flops = AddmmFlops},
      {.op = "aten.addbmm.default",
       .infer = InferAddbmm,
       .vjp_workspace_halves = 2,
       .flops = AddbmmFlops},
      {.op = "aten.gru_cell.default", .infer = InferCell, .flops = CellFlops},
      {.op = "aten.lstm_cell.default", .infer = InferCell, .flops = CellFlops},
      {.op = "aten.rnn_relu_cell.default", .infer = InferCell, .flops = CellFlops},
      {.op = "aten.rnn_tanh_cell.default", .infer = InferCell, .flops = CellFlops},
      // Composite: the tape keeps what is between.
      {.op = "aten.einsum.default", .infer = InferEinsum, .flops = EinsumFlops},
      {.op = kExpertMm,
       .infer = InferExpertMm,
       .derivative = kExplicit,
       .flops = ExpertMmFlops,
       .workspace = ExpertMmWorkspace},
      // What unsort-rows leaves: the tape keeps all.
      {.op = kGroupedMm, .infer = InferGroupedMm, .flops = ExpertMmFlops},
      {.op = "aten.embedding.default", .infer = InferEmbedding, .derivative = kExplicit},
      Product(kSdpa, InferAttention, SdpaFlops),
      Product(kMaskedAttention, InferMaskedAttention, MaskedAttentionFlops),
  };
}

}  // namespace autosp
