// Which values may hold infinities, and what the lowering puts beside them.
#include "compiler/lowering/infinite_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/lowering/padded_domain.h"

namespace autosp {
namespace {

using ::testing::Eq;
using ::testing::Optional;

// `%r = OP`, of data %x and a condition %m of it, a parameter %w, and a constant %b of the model.
Graph GraphOf(const std::string& op, const std::string& type) {
  auto graph = ParseGraph(
      absl::StrCat("graph \"g\" {\n  input %x \"x\" : f32[8]\n  param %w \"w\" : f32[8]\n",
                   "  buffer %b \"b\" : f32[8]\n  %m = aten.gt.Scalar(%x, 0) : bool[8]\n",
                   "  %i = aten.to.dtype(%m, i64, false, false, none) : i64[8]\n",
                   "  %s = aten.add.Tensor(%x, %b, 1) : f32[8]\n",
                   "  %o = aten.ones.default([8], f32, none, none, none) : f32[8]\n", "  %r = ", op,
                   " : ", type, "\n  return %r\n}\n"));
  EXPECT_TRUE(graph.ok()) << graph.status();
  return graph.ok() ? *std::move(graph) : Graph{};
}

bool MayBeInfinite(const std::string& op, const std::string& type = "f32[8]") {
  const Graph graph = GraphOf(op, type);
  return ValuesOfInfinities(graph)[graph.nodes.back().outputs[0].index];
}

bool MustBeReplaced(const std::string& op) {
  const Graph graph = GraphOf(op, "f32[8]");
  return MayGiveInfinity(graph, graph.nodes.back(), ValuesOfInfinities(graph));
}

std::optional<Argument> Beside(const std::string& op, size_t operand) {
  const Graph graph = GraphOf(op, "f32[8]");
  return NumberBesideInfinity(graph, graph.nodes.back(), operand, ValuesOfInfinities(graph));
}

TEST(InfiniteValues, WhatIsMadeOfConstantsMayBeInfiniteByAnyOp) {
  EXPECT_TRUE(MayBeInfinite("aten.neg.default(%b)"));
  EXPECT_TRUE(MayBeInfinite("aten.select.int(%b, 0, 1)", "f32[]"));
  EXPECT_TRUE(MayBeInfinite("aten.log.default(%o)"));
  EXPECT_TRUE(MayBeInfinite("aten.mul.Tensor(%o, -inf)"));
  EXPECT_FALSE(MayBeInfinite("aten.exp.default(%o)"));
  EXPECT_FALSE(MayBeInfinite("aten.gt.Scalar(%b, 0)", "bool[8]"));
}

TEST(InfiniteValues, WhatDataIsAddedToMayBeInfinite) {
  EXPECT_TRUE(MayBeInfinite("aten.mul.Tensor(%s, %x)"));
  EXPECT_TRUE(MayBeInfinite("aten.add.Tensor(%w, %b, 1)"));
  EXPECT_FALSE(MayBeInfinite("aten.log.default(%x)"));
  EXPECT_FALSE(MayBeInfinite("aten._softmax.default(%s, 0, false)"));
  EXPECT_FALSE(MayBeInfinite("aten.where.self(%m, %s, %x)"));  // see to the choice
}

TEST(InfiniteValues, AConditionHidesWhatMayBeInfinite) {
  EXPECT_THAT(Beside("aten.where.self(%m, %x, %s)", 0), Optional(Argument(true)));
  EXPECT_THAT(Beside("aten.where.Scalar(%m, -inf, 0.0)", 0), Optional(Argument(false)));
  EXPECT_THAT(Beside("aten.masked_fill.Tensor(%x, %m, %b)", 1), Optional(Argument(false)));
  EXPECT_THAT(Beside("aten.where.self(%m, %x, %w)", 0), Eq(std::nullopt));
  EXPECT_FALSE(MustBeReplaced("aten.where.self(%m, %x, %s)"));
}

TEST(InfiniteValues, AChoiceAmongThemAndALookUpAreReplaced) {
  EXPECT_THAT(Beside("aten.where.self(%m, %b, %s)", 0), Eq(std::nullopt));
  EXPECT_TRUE(MustBeReplaced("aten.where.self(%m, %b, %s)"));
  EXPECT_TRUE(MustBeReplaced("aten.masked_fill.Scalar(%s, %m, -inf)"));
  EXPECT_TRUE(MustBeReplaced("aten.index.Tensor(%b, [%i])"));
  EXPECT_FALSE(MustBeReplaced("aten.index.Tensor(%w, [%i])"));
}

}  // namespace
}  // namespace autosp
