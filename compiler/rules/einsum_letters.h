// Equations of einsum in which every dimension has a letter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/rules/op_context.h"

namespace autosp {

// Without spaces, ellipses, which stand for the last of the same dimensions, and with an arrow:
//
//   "...qd,...kd" of ranks 4 and 4  ->  "abqd,abkd->abqk"
//
// nullopt: it does not fit the ranks, or has too few letters.
std::optional<std::string> SpelledEquation(std::string_view equation,
                                           const std::vector<int64_t>& ranks);
// Of the einsum of a node.
std::optional<std::string> SpelledEquation(const OpContext& context);

}  // namespace autosp
