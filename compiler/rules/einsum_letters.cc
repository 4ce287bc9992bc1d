#include "compiler/rules/einsum_letters.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "compiler/ir/argument_access.h"

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

}  // namespace

std::optional<std::string> SpelledEquation(std::string_view equation,
                                           const std::vector<int64_t>& operand_ranks) {
  const std::string spelled = absl::StrReplaceAll(std::string(equation), {{" ", ""}});
  std::vector<std::string> sides = absl::StrSplit(spelled, "->");
  if (sides.size() == 1) sides.push_back(ImpliedResult(sides[0]));
  std::vector<std::string> terms = absl::StrSplit(sides[0], ',');
  if (sides.size() != 2 || terms.size() != operand_ranks.size()) return std::nullopt;
  std::vector<int64_t> ranks;
  for (size_t i = 0; i < terms.size(); ++i) {
    ranks.push_back(EllipsisRank(terms[i], operand_ranks[i]));
    if (ranks.back() < 0) return std::nullopt;
  }
  std::string fresh;
  const int64_t most = *std::ranges::max_element(ranks);
  for (char letter : kLetters) {
    const bool is_taken = spelled.find(letter) != std::string::npos;
    if (!is_taken && std::ssize(fresh) < most) fresh += letter;
  }
  if (std::ssize(fresh) < most) return std::nullopt;
  for (size_t i = 0; i < terms.size(); ++i) {
    const std::string letters = fresh.substr(most - ranks[i]);
    terms[i] = absl::StrReplaceAll(terms[i], {{kEllipsis, letters.c_str()}});
  }
  return absl::StrCat(absl::StrJoin(terms, ","), "->",
                      absl::StrReplaceAll(sides[1], {{kEllipsis, fresh.c_str()}}));
}

std::optional<std::string> SpelledEquation(const OpContext& context) {
  const auto* equation = ArgumentAs<std::string>(context.node().args, 0);
  if (equation == nullptr) return std::nullopt;
  std::vector<int64_t> ranks;
  for (const ValueId operand : context.Tensors(1)) ranks.push_back(context.Rank(operand));
  return SpelledEquation(*equation, ranks);
}

}  // namespace autosp
