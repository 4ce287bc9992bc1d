// The part of canonicalize that deals with einsum: every dimension gets a letter.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_products.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

constexpr const char* kEllipsis = "...";
constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

// How many dimensions the ellipsis of a term stands for; -1: the term does not fit the rank.
int64_t EllipsisRank(const std::string& term, int64_t rank) {
  const auto num_letters = std::ranges::count_if(term, [](char c) { return c != '.'; });
  const bool has_ellipsis = term.find(kEllipsis) != std::string::npos;
  if (num_letters > rank || (!has_ellipsis && num_letters < rank)) return -1;
  return rank - num_letters;
}

// Of an equation without an arrow: what the ellipses stand for, and letters that occur once, in the
// order of the alphabet (capitals first).
std::string ImpliedResult(const std::string& operands) {
  std::string once;
  for (char letter : operands) {
    if (letter == '.' || letter == ',' || std::ranges::count(operands, letter) > 1) continue;
    once += letter;
  }
  std::ranges::sort(once);
  return absl::StrCat(operands.find(kEllipsis) == std::string::npos ? "" : "...", once);
}

// einsum(equation, operands) with ellipses, which stand for the last of the same dimensions, or
// without an arrow. Rules of layout go by letters.
//
//   before  %y = einsum("...qd,...kd", [%q, %k])           %q [2, 4, 8, 16]
//   after   %y = einsum("abqd,abkd->abqk", [%q, %k])
absl::StatusOr<bool> SpellOutEinsum(const Node& node, GraphRewriter& rewriter) {
  const auto* equation = ArgumentAs<std::string>(node.args, 0);
  if (equation == nullptr) return false;
  const OpContext context(rewriter.graph(), node);
  const std::vector<ValueId> operands = context.Tensors(1);
  const std::string spelled = absl::StrReplaceAll(*equation, {{" ", ""}});
  std::vector<std::string> sides = absl::StrSplit(spelled, "->");
  if (sides.size() == 1) sides.push_back(ImpliedResult(sides[0]));
  std::vector<std::string> terms = absl::StrSplit(sides[0], ',');
  if (sides.size() != 2 || terms.size() != operands.size()) return false;
  std::vector<int64_t> ranks;
  for (size_t i = 0; i < terms.size(); ++i) {
    ranks.push_back(EllipsisRank(terms[i], context.Rank(operands[i])));
    if (ranks.back() < 0) return false;
  }
  std::string fresh;
  const int64_t most = *std::ranges::max_element(ranks);
  for (char letter : kLetters) {
    const bool is_taken = spelled.find(letter) != std::string::npos;
    if (!is_taken && std::ssize(fresh) < most) fresh += letter;
  }
  if (std::ssize(fresh) < most) return false;
  for (size_t i = 0; i < terms.size(); ++i) {
    const std::string letters = fresh.substr(most - ranks[i]);
    terms[i] = absl::StrReplaceAll(terms[i], {{kEllipsis, letters.c_str()}});
  }
  const std::string explicit_form = absl::StrCat(
      absl::StrJoin(terms, ","), "->", absl::StrReplaceAll(sides[1], {{kEllipsis, fresh.c_str()}}));
  if (explicit_form == spelled) return false;
  std::vector<Argument> args = node.args;
  args[0] = explicit_form;
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
