// Tokens of a rank together with their neighbours.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/statusor.h"
#include "compiler/program/token_stretches.h"
#include "worker/ops/own_op.h"

namespace autosp {

// Where the tokens of this rank stand, and where the edges of its neighbours lie in what
// autosp.shard_edges of all ranks gives: for each stretch in the order of shards, the last `before`
// tokens and the first `after` of it.
class TokenNeighbors {
 public:
  struct Window {
    int64_t before = 0;
    int64_t after = 0;
    bool wraps = false;
  };
  // `dim` of `tokens` must be whole, or split by tokens into stretches no shorter than the window.
  static absl::StatusOr<TokenNeighbors> Make(const OwnOpContext& context, ValueId tokens,
                                             int64_t dim, Window window);

  int64_t num_local() const { return stretches_.per_shard; }
  int64_t length() const { return stretches_.length; }
  int64_t dim() const { return dim_; }
  bool needs_edges() const { return stretches_.is_split() && window_.before + window_.after > 0; }

  // This rank's share of the edges.
  at::Tensor Edges(const at::Tensor& tokens) const;
  // A local stretch with its neighbours, zeros where there is no token. `edges` is undefined where
  // the tokens are whole.
  at::Tensor Extended(const at::Tensor& tokens, const at::Tensor& edges, int64_t stretch) const;
  // A local stretch alone, zeros for padding.
  at::Tensor Valid(const at::Tensor& tokens, int64_t stretch) const;
  // Puts results of the local stretches side by side, and `pad` where padding is.
  at::Tensor Joined(const std::vector<at::Tensor>& parts, double pad) const;

 private:
  // Of `count` tokens from a global place on, those that are no padding.
  int64_t NumValid(int64_t begin, int64_t count) const;
  int64_t GlobalBegin(int64_t stretch) const { return global_[stretch] * stretches_.length; }
  void CopyNeighbors(const at::Tensor& tokens, const at::Tensor& edges, int64_t stretch,
                     const at::Tensor& extended) const;

  TokenStretches stretches_;
  Window window_;
  int64_t dim_ = 0;
  std::vector<int64_t> global_;  // by local stretch: its number in global order
  std::vector<int64_t> places_;  // by number in global order: its place in the order of shards
};

}  // namespace autosp
