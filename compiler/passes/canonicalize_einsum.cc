// The part of canonicalize that deals with einsum: every dimension gets a letter.
#include <string>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_products.h"
#include "compiler/rules/einsum_letters.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// einsum(equation, operands) with ellipses, which stand for the last of the same dimensions, or
// without an arrow. Rules of layout go by letters.
//
//   before  %y = einsum("...qd,...kd", [%q, %k])           %q [2, 4, 8, 16]
//   after   %y = einsum("abqd,abkd->abqk", [%q, %k])
absl::StatusOr<bool> SpellOutEinsum(const Node& node, GraphRewriter& rewriter) {
  const auto* equation = ArgumentAs<std::string>(node.args, 0);
  const std::optional<std::string> spelled = SpelledEquation(OpContext(rewriter.graph(), node));
  if (!spelled || *spelled == *equation) return false;
  std::vector<Argument> args = node.args;
  args[0] = *spelled;
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, node.op, std::move(args),
                                                     rewriter.graph().type(node.outputs[0])));
  return true;
}

}  // namespace

const RewriteTable& EinsumRewrites() {
  static const auto& rewrites = *new RewriteTable{{"aten.einsum.default", SpellOutEinsum}};
  return rewrites;
}

}  // namespace autosp
