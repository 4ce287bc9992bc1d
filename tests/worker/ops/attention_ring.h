// Blockwise attention on a ring in one process, and dense attention in fp64 to hold it against.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "tests/worker/ops/own_op_runner.h"

namespace autosp {

struct AttentionCase {
  int64_t ring = 1;
  int64_t ulysses = 1;  // of the mesh; attention is over the ring
  Layout layout = Layout::kContiguous;
  int64_t piece = 1;  // tokens for each one of the factor that is split; divides the sizes
  int64_t q_size = 64;
  int64_t k_size = 0;  // 0: self-attention, as many keys as queries
  int64_t batch = 2;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 4;
  int64_t head_dim = 16;
  int64_t v_head_dim = 16;
  bool gathered = false;  // one hop has the keys of all members
  bool causal = false;
  int64_t window = 0;
  at::Tensor q_docs = {};  // i64 [batch, size]; undefined: all in document 0
  at::Tensor k_docs = {};
  bool has_docs() const { return q_docs.defined() || k_docs.defined(); }
  at::ScalarType dtype = at::kFloat;
  c10::Device device = at::kCPU;
  std::string kernel = {};  // of a GPU

  int64_t num_keys() const { return k_size == 0 ? q_size : k_size; }
  double scale() const { return 0.3; }
  std::string Name() const;
};

// Whole tensors [batch, heads, tokens, head_dim], in fp64 with values of the case's dtype.
struct WholeOperands {
  at::Tensor q, k, v, grad_out;
};
WholeOperands MakeInputs(const AttentionCase& c);

struct AttentionResults {
  at::Tensor out, lse, dq, dk, dv;
};
AttentionResults DenseAttention(const AttentionCase& c, const WholeOperands& inputs);

// Each member in turn, each hop in turn; shards are put together again. Padding is NaN.
absl::StatusOr<AttentionResults> RingAttention(const AttentionCase& c, const WholeOperands& inputs);

// What one call of an op on the shards of `member` would be, for other tests.
OwnOpRunner AttentionRunner(const AttentionCase& c, const std::string& op, int64_t member);

// The next two arguments of the ops: documents of queries and of keys, or none.
void AddDocs(const AttentionCase& c, OwnOpRunner& runner);

// max |a - b| / max |b|
double MaxError(const at::Tensor& a, const at::Tensor& b);
// |a - b| / |b|
double L2Error(const at::Tensor& a, const at::Tensor& b);

}  // namespace autosp
