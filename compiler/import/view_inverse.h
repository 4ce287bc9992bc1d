// Views: which ops return one, and how a write to a view reaches what it shows.
#pragma once

#include "absl/status/statusor.h"
#include "compiler/import/graph_builder.h"
#include "compiler/import/op_schemas.h"

namespace autosp {

enum class Sharing : uint8_t { kFresh, kView, kMayBeView };

// Whether results of the node share the storage of the operand `base`.
struct ViewOf {
  Sharing sharing = Sharing::kFresh;
  ValueId base;
};
ViewOf FindSharing(const GraphBuilder& builder, const Node& node, const OpSchema& schema);

// Whether the result is no view of the operand, but the same tensor. Requires: they share storage.
bool ReturnsOperand(const Node& node);

// Emits what `base` is after `updated` was written to the view that `node` takes of it. Error: the
// view has no inverse here.
absl::StatusOr<ValueId> EmitViewInverse(GraphBuilder& builder, const Node& node, ValueId base,
                                        ValueId updated, const NodeContext& context);

bool IsContiguous(const TensorType& type);

}  // namespace autosp
