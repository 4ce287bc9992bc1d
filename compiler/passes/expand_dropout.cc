#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/spell_out_attention.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

class DropoutExpander {
 public:
  explicit DropoutExpander(Graph& graph) : graph_(graph), rewriter_(graph) {
    for (const Node& node : graph.nodes) {
      next_ = std::max(next_, NumberOf(node).value_or(-1) + 1);
    }
  }

  absl::StatusOr<bool> Run() {
    for (const Node& node : rewriter_.nodes()) {
      const bool is_dropout = node.op == "aten.dropout.default";
      const double probability = NumberArgument(node.args, is_dropout ? 1 : 4).value_or(0);
      if (!(is_dropout || node.op == kSdpa) || probability == 0) {
        rewriter_.Keep(node);
        continue;
      }
      if (!(probability > 0 && probability < 1)) {
        return InvalidArgument(Describe(graph_, node), ": dropout with probability ", probability,
                               " is not between 0 and 1");
      }
      const ValueId result = is_dropout
                                 ? Dropout(node, std::get<ValueId>(node.args[0]), probability)
                                 : Attention(node, probability);
      rewriter_.Replace(node.outputs[0], result);
    }
    return rewriter_.Finish();
  }

 private:
  const TensorType& Type(ValueId value) const { return graph_.type(value); }

  // That of the draw (random_draws.h); nullopt: it has none.
  static std::optional<int64_t> NumberOf(const Node& node) {
    const std::optional<size_t> argument = DrawNumberArgument(node.op);
    return argument ? IntegerArgument(node.args, *argument) : std::nullopt;
  }

  // Each has a mask of its own, also in graphs whose draws have no numbers.
  ValueId Dropout(const Node& node, ValueId value, double probability) {
    const std::optional<int64_t> number = NumberOf(node);
    const bool always = node.op != kSdpa && ArgumentAs<EnumName>(node.args, 4) != nullptr;
    return rewriter_.EmitOne(node, kDropout,
                             {value, probability, SymInt(number ? *number : next_++), always},
                             Contiguous(Type(rewriter_.Current(value))));
  }

  // What the kernels without dropout fuse, dropped out between the softmax and the product.
  ValueId Attention(const Node& node, double probability) {
    const SpelledAttention spelled = SpellOutWeights(rewriter_, node);
    const ValueId kept = Dropout(node, spelled.weights, probability);
    return EmitWeighted(rewriter_, node, kept, spelled.value);
  }

  Graph& graph_;
  GraphRewriter rewriter_;
  int64_t next_ = 0;
};

}  // namespace

// Dropout becomes an op whose mask is a function of (seed, step, number of the dropout, element),
// so that it is the same for any number of ranks. Attention with dropout is spelled out: its
// weights are dropped out between the softmax and the second product.
//
//   before  %y = aten.dropout.default(%x, 0.1, true, 0)
//   after   %y = autosp.dropout(%x, 0.1, 0)
//
// Requires: dropouts that do nothing are gone (import).
absl::StatusOr<bool> ExpandDropout(Graph& graph, const PassContext& /*context*/) {
  return DropoutExpander(graph).Run();
}

}  // namespace autosp
