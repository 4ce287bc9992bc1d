// What operands of ops that are not defined everywhere must hold in padding.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "compiler/ir/graph.h"
#include "compiler/rules/value_signs.h"

namespace autosp {

// Whether the op is not a number of all numbers. Not of powers: that is up to their exponent.
bool HasDomain(std::string_view op);

// Whether an op looks up integers to check that data are places of a table, as the spelling of
// one_hot does: what stands in padding is no token's class, and must be one all the same.
bool LooksUpClasses(const Graph& graph, const Node& node);

// A number at which the op and its derivative are numbers, where its `operand` (counted over
// tensors) may hold others in padding: a divisor, what a root or a logarithm is taken of. Gradients
// of padding would be no numbers, and so would be the gradient of each weight. Of integers it is
// whole: a fraction would make them floating. Where that operand is the same for all tokens, as a
// base or a scale, it is the other one that gets a number. nullopt: the op is defined wherever its
// operand is, as `signs_of` the graph tell, or padding holds what tokens hold. They are asked for
// only where the op is not defined everywhere: to find them takes a walk over the graph.
std::optional<Argument> NumberInDomain(const Graph& graph, const Node& node, size_t operand,
                                       const std::function<const PaddingSigns&()>& signs_of);

// The same for an operand that says where an op gives an infinity (x.masked_fill(x < t, -inf)), or
// may be infinite where nothing is scattered into it: rows of padding that hold nothing else would
// be no numbers after a softmax. `may_be_infinite`: ValuesOfInfinities of the graph.
std::optional<Argument> NumberBesideInfinity(const Graph& graph, const Node& node, size_t operand,
                                             const std::vector<bool>& may_be_infinite);

// Whether no such operand helps: whatever a condition chooses may be infinite, or a place that was
// computed is looked up in a table that may be. What the result holds in padding must be replaced.
bool MayGiveInfinity(const Graph& graph, const Node& node,
                     const std::vector<bool>& may_be_infinite);

}  // namespace autosp
