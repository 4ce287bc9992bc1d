// What gradient accumulation cannot do, since it has one part of the batch at a time: the message
// names the op that takes all of it, and the op that needs that.
#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "compiler/lowering/forward_lowering.h"

namespace autosp {
namespace {

constexpr const char* kRemedy =
    "; gradient accumulation splits the batch: set training.micro_batch_size so that there is one "
    "micro-step";

std::string WhatItDoes(const Node& node, Reduction reduction) {
  if (reduction == Reduction::kSum) return "sums over the whole batch";
  const bool is_least = absl::StrContains(node.op, "min");
  return absl::StrCat("takes the ", is_least ? "minimum" : "maximum", " over the whole batch");
}

}  // namespace

// The node at hand, and those that it is lowered for: 0 is the innermost. nullptr: there is none.
const Node* ForwardLowering::LoweredFor(size_t depth) const {
  if (depth >= lowering_.size()) return nullptr;
  return &in_.graph.nodes[lowering_[lowering_.size() - 1 - depth]];
}

std::string ForwardLowering::NeededBy(const Node* node) const {
  return node == nullptr ? "" : absl::StrCat(", which ", Describe(in_.graph, *node), " needs");
}

// Linear ops hand a sum of parts on: goes back to the op that adds up.
const Node& ForwardLowering::SumOverBatch(ValueId value) {
  int32_t node = definer_[value.index];
  while (!RolesOf(node).Reduces(batch_run_)) {
    const std::vector<ValueId> operands = OperandsOf(in_.graph.nodes[node]);
    const auto carries = [&](ValueId id) {
      const auto is_part = [](const Version& version) {
        return Contains(version.placement.partial.axes, Axis::kAccum);
      };
      return definer_[id.index] >= 0 &&
             (std::ranges::any_of(versions_[id.index], is_part) ||
              std::ranges::any_of(prologue_versions_[id.index], is_part));
    };
    const auto next = std::ranges::find_if(operands, carries);
    if (next == operands.end()) break;
    node = definer_[next->index];
  }
  return in_.graph.nodes[node];
}

absl::Status ForwardLowering::RefuseSum(ValueId value, const Partial& partial) {
  is_told_ = true;
  const Node& node = SumOverBatch(value);
  return Unimplemented(Describe(in_.graph, node), ": ", WhatItDoes(node, partial.reduction),
                       in_prologue_ ? " for another number of the whole batch" : "",
                       NeededBy(LoweredFor(0)), kRemedy);
}

// The node at hand, or one that it is lowered for, takes a value with all sequences.
absl::Status ForwardLowering::RefuseGather(ValueId value) {
  is_told_ = true;
  size_t depth = 0;
  for (size_t i = 0; i < lowering_.size(); ++i) {
    const size_t node = lowering_[lowering_.size() - 1 - i];
    if (!NeedsWholeBatch(node, RolesOf(node))) continue;
    depth = i;
    break;
  }
  const Node* node = LoweredFor(depth);
  const std::string taker = node == nullptr ? "the loss" : Describe(in_.graph, *node);
  return Unimplemented(taker, ": takes all sequences of %", in_.graph.value(value).name,
                       " at once, as it mixes them or has no rule", NeededBy(LoweredFor(depth + 1)),
                       kRemedy);
}

// What was made of all sequences meets those of a micro-step.
absl::Status ForwardLowering::RefuseSplit(ValueId value) {
  is_told_ = true;
  int32_t node = definer_[value.index];
  if (node < 0) {
    return Unimplemented(in_.graph.FindInput(value)->name, " is kept for all sequences of a batch",
                         NeededBy(LoweredFor(0)), kRemedy);
  }
  while (!NeedsWholeBatch(node, RolesOf(node))) {
    const std::vector<ValueId> operands = OperandsOf(in_.graph.nodes[node]);
    const auto has_batch = [&](ValueId id) {
      return definer_[id.index] >= 0 && HasBatch(Dims(id));
    };
    const auto next = std::ranges::find_if(operands, has_batch);
    if (next == operands.end()) break;
    node = definer_[next->index];
  }
  return Unimplemented(Describe(in_.graph, in_.graph.nodes[node]),
                       ": takes all sequences of a batch at once, as it mixes them or has no rule",
                       NeededBy(LoweredFor(0)), kRemedy);
}

}  // namespace autosp
