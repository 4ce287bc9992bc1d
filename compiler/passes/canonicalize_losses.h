// The part of canonicalize that deals with losses: each becomes ops whose sums add up over shards.
#pragma once

#include <map>
#include <string_view>

#include "absl/status/statusor.h"
#include "compiler/passes/graph_rewriter.h"

namespace autosp {

// Rewrites one node, or returns false to keep it.
using Rewrite = absl::StatusOr<bool> (*)(const Node& node, GraphRewriter& rewriter);
using RewriteTable = std::map<std::string_view, Rewrite>;

// By op.
const RewriteTable& LossRewrites();
const RewriteTable& NormRewrites();  // canonicalize_norms.cc

// As ATen numbers them.
enum class LossReduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// Replaces the result of `node` by `loss`, reduced as the node's argument `reduction_arg` says; the
// mean where there is none.
void ReplaceByReduced(const Node& node, size_t reduction_arg, ValueId loss,
                      GraphRewriter& rewriter);

// canonicalize_cross_entropy.cc
absl::StatusOr<bool> RewriteCrossEntropy(const Node& node, GraphRewriter& rewriter);
absl::StatusOr<bool> RewriteNllLoss(const Node& node, GraphRewriter& rewriter);

}  // namespace autosp
