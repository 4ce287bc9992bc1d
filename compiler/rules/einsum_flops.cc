// FLOPs of einsum: what ATen makes of an equation.
#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_flops.h"

namespace autosp {
namespace {

// By letter. Dimensions of an ellipsis are digits, counted from the right.
using LetterSizes = std::map<char, int64_t>;

// The letters of a term on so many dimensions: "...ij" on 4 is "10ij".
std::string SpellOut(std::string term, size_t num_dims) {
  const size_t ellipsis = term.find("...");
  if (ellipsis == std::string::npos) return term;
  const size_t num_hidden = num_dims - (term.size() - 3);
  std::string hidden;
  for (size_t i = num_hidden; i-- > 0;) hidden += static_cast<char>('0' + i);
  return term.replace(ellipsis, 3, hidden);
}

struct Equation {
  std::vector<LetterSizes> operands;
  std::map<char, int64_t> num_uses;  // in operands, and one more where the result has the letter
};

Equation ReadEquation(const std::string& text, const std::vector<std::vector<int64_t>>& sizes) {
  Equation equation;
  const std::vector<std::string> sides =
      absl::StrSplit(absl::StrReplaceAll(text, {{" ", ""}}), "->");
  const std::vector<std::string> terms = absl::StrSplit(sides[0], ',');
  std::map<char, int64_t> num_named;  // how often terms have a letter, diagonals included
  for (size_t i = 0; i < terms.size() && i < sizes.size(); ++i) {
    const std::string letters = SpellOut(terms[i], sizes[i].size());
    LetterSizes& operand = equation.operands.emplace_back();
    for (size_t d = 0; d < letters.size(); ++d) {
      operand[letters[d]] = sizes[i][d];
      ++num_named[letters[d]];
    }
    for (const auto& [letter, size] : operand) {
      if (size != 1) ++equation.num_uses[letter];
    }
  }
  for (const auto& [letter, count] : num_named) {
    // Without an arrow the result has what an ellipsis hides, and every letter that is there once.
    const bool is_hidden = letter <= '9';
    const bool is_kept = sides.size() == 1
                             ? is_hidden || count == 1
                             : sides[1].find(letter) != std::string::npos ||
                                   (is_hidden && sides[1].find("...") != std::string::npos);
    if (is_kept) ++equation.num_uses[letter];
  }
  return equation;
}

// The product of two operands: 0 where it is elementwise. `left` becomes the result.
double Multiply(std::map<char, int64_t>& num_uses, LetterSizes right, LetterSizes& left) {
  // What only one of them has, and nothing later asks for, is summed before; what both have, in
  // the product.
  bool is_contraction = false;
  LetterSizes product;
  for (LetterSizes* side : {&left, &right}) {
    for (const auto& [letter, size] : *side) {
      int64_t& whole = product.try_emplace(letter, 1).first->second;
      whole = std::max(whole, size);
    }
  }
  LetterSizes result;
  double flops = 2;
  for (const auto& [letter, size] : product) {
    const auto in = [&](const LetterSizes& side) {
      const auto found = side.find(letter);
      return found != side.end() && found->second != 1;
    };
    const bool is_shared = in(left) && in(right);
    if (is_shared) --num_uses[letter];
    const bool is_summed = size != 1 && num_uses[letter] == 1 && !is_shared;
    const bool is_contracted = is_shared && num_uses[letter] == 1;
    is_contraction = is_contraction || is_contracted;
    if (!is_summed) flops *= static_cast<double>(size);
    result[letter] = is_summed || is_contracted ? 1 : size;
  }
  left = std::move(result);
  return is_contraction ? flops : 0;
}

}  // namespace

OpFlops EinsumFlops(const OpCall& call) {
  const auto* text = ArgumentAs<std::string>(call.args, 0);
  if (text == nullptr || call.operands.size() < 2) return {};
  Equation equation = ReadEquation(*text, call.operands);
  OpFlops flops;
  LetterSizes left = equation.operands[0];
  bool left_needs_grad = call.needs_grad[0];
  for (size_t i = 1; i < equation.operands.size(); ++i) {
    const double product = Multiply(equation.num_uses, equation.operands[i], left);
    flops.forward += product;
    if (left_needs_grad) flops.backward += product;
    if (call.needs_grad[i]) flops.backward += product;
    left_needs_grad = left_needs_grad || call.needs_grad[i];
  }
  return flops;
}

}  // namespace autosp
