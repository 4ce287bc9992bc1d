#include "compiler/import/op_names.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

struct Row {
  std::string before;  // the only node, with its types
  std::string after;
};

std::string GraphOf(const std::string& nodes) {
  return absl::StrCat(
      "graph \"g\" {\n  symbol s0 = 4\n"
      "  input %x \"x\" : f32[2, 4{s0}, 6]\n"
      "  input %y \"y\" : f32[2, 24]\n"
      "  input %m \"m\" : f32[4, 6]\n"
      "  input %v \"v\" : f32[6]\n"
      "  input %i \"i\" : i64[4, 6]\n"
      "  input %w \"w\" : f32[3, 6, 5]\n"
      "  input %o \"o\" : i32[3]\n",
      nodes, "  return %r\n}\n");
}

class OpNamesTest : public testing::TestWithParam<Row> {};

TEST_P(OpNamesTest, AreThoseOfOneForm) {
  absl::StatusOr<Graph> graph = ParseGraph(GraphOf(absl::StrCat("  ", GetParam().before, "\n")));
  ASSERT_TRUE(graph.ok()) << graph.status();
  UnifyOpNames(*graph);
  EXPECT_EQ(PrintGraph(*graph), GraphOf(absl::StrCat("  ", GetParam().after, "\n")));
}

INSTANTIATE_TEST_SUITE_P(
    OtherNames, OpNamesTest,
    testing::Values(
        Row{"%r = transformers.grouped_mm_fallback.default(%m, %w, %o) : f32[4, 5]",
            "%r = aten._grouped_mm.default(%m, %w, %o, none, none) : f32[4, 5]"},
        Row{"%r = aten.numpy_T.default(%m) : f32[6, 4]{strides=1,6}",
            "%r = aten.t.default(%m) : f32[6, 4]{strides=1,6}"},
        Row{"%r = aten.numpy_T.default(%v) : f32[6]", "%r = aten.t.default(%v) : f32[6]"},
        Row{"%r = aten.numpy_T.default(%x) : f32[6, 4{s0}, 2]{strides=1,6,24}",
            "%r = aten.permute.default(%x, [2, 1, 0]) : f32[6, 4{s0}, 2]{strides=1,6,24}"},
        Row{"%r = aten.mT.default(%x) : f32[2, 6, 4{s0}]{strides=24,1,6}",
            "%r = aten.transpose.int(%x, -2, -1) : f32[2, 6, 4{s0}]{strides=24,1,6}"},
        Row{"%r = aten.movedim.int(%x, -1, 0) : f32[6, 2, 4{s0}]{strides=1,24,6}",
            "%r = aten.permute.default(%x, [2, 0, 1]) : f32[6, 2, 4{s0}]{strides=1,24,6}"},
        Row{"%r = aten.moveaxis.intlist(%x, [0, 1], [2, 0]) : f32[4{s0}, 6, 2]{strides=6,1,24}",
            "%r = aten.permute.default(%x, [1, 2, 0]) : f32[4{s0}, 6, 2]{strides=6,1,24}"},
        Row{"%r = aten.swapaxes.default(%m, 0, 1) : f32[6, 4]{strides=1,6}",
            "%r = aten.transpose.int(%m, 0, 1) : f32[6, 4]{strides=1,6}"},
        Row{"%r = aten.view_as.default(%y, %x) : f32[2, 4{s0}, 6]",
            "%r = aten.view.default(%y, [2, 4{s0}, 6]) : f32[2, 4{s0}, 6]"},
        Row{"%r = aten.reshape_as.default(%y, %x) : f32[2, 4{s0}, 6]",
            "%r = aten.reshape.default(%y, [2, 4{s0}, 6]) : f32[2, 4{s0}, 6]"},
        Row{"%r = aten.ravel.default(%m) : f32[24]",
            "%r = aten.reshape.default(%m, [24]) : f32[24]"},
        Row{"%r = aten.broadcast_to.default(%v, [4, 6]) : f32[4, 6]{strides=0,1}",
            "%r = aten.expand.default(%v, [4, 6], false) : f32[4, 6]{strides=0,1}"},
        Row{"%r = aten.narrow.default(%m, 1, 2, 3) : f32[4, 3]{strides=6,1}",
            "%r = aten.slice.Tensor(%m, 1, 2, 5, 1) : f32[4, 3]{strides=6,1}"},
        Row{"%r = aten.narrow.default(%m, -1, -2, 2) : f32[4, 2]{strides=6,1}",
            "%r = aten.slice.Tensor(%m, -1, -2, 6, 1) : f32[4, 2]{strides=6,1}"},
        Row{"%r = aten.narrow.default(%m, 0, 0, 4{s0}) : f32[4{s0}, 6]",
            "%r = aten.slice.Tensor(%m, 0, 0, 4{s0}, 1) : f32[4{s0}, 6]"},
        Row{"%r = aten.narrow.default(%x, 1, 2{s0 - 2}, 2) : f32[2, 2, 6]{strides=24,6,1}",
            "%r = aten.slice.Tensor(%x, 1, 2{s0 - 2}, 4{s0 - 2 + 2}, 1)"
            " : f32[2, 2, 6]{strides=24,6,1}"},
        Row{"%r = aten.narrow.default(%x, 1, 1, 3{s0 - 1})"
            " : f32[2, 3{s0 - 1}, 6]{strides=24,6,1}",
            "%r = aten.slice.Tensor(%x, 1, 1, 4{1 + s0 - 1}, 1)"
            " : f32[2, 3{s0 - 1}, 6]{strides=24,6,1}"},
        Row{"%r = aten.outer.default(%v, %v) : f32[6, 6]",
            "%column = aten.unsqueeze.default(%v, 1) : f32[6, 1]\n"
            "  %r = aten.mul.Tensor(%column, %v) : f32[6, 6]"},
        Row{"%r = aten.max.other(%x, %v) : f32[2, 4{s0}, 6]",
            "%r = aten.maximum.default(%x, %v) : f32[2, 4{s0}, 6]"},
        Row{"%r = aten.bitwise_and.Scalar(%i, 1) : i64[4, 6]",
            "%r = aten.bitwise_and.Tensor(%i, 1) : i64[4, 6]"},
        Row{"%r = aten.new_empty.default(%x, [4, 6], f32, none, none, none) : f32[4, 6]",
            "%r = aten.new_zeros.default(%x, [4, 6], f32, none, none, none) : f32[4, 6]"},
        Row{"%r = aten.empty.memory_format([4, 6], f32, none, !cpu, false, none) : f32[4, 6]",
            "%r = aten.zeros.default([4, 6], f32, none, !cpu, false) : f32[4, 6]"},
        Row{"%r = aten.concat.default([%m, %m], 1) : f32[4, 12]",
            "%r = aten.cat.default([%m, %m], 1) : f32[4, 12]"}));

// What is near, and is something else.
const char* const kLeftAlone[] = {
    "%r, %at = aten.max.dim(%m, 1, false) : f32[4], i64[4]",
    "%r = aten.t.default(%m) : f32[6, 4]{strides=1,6}",
    "%r = aten.inner.default(%m, %v) : f32[4]",
    "%r = aten.remainder.Scalar(%m, 2) : f32[4, 6]",
    "%r = aten.expand_as.default(%v, %m) : f32[4, 6]{strides=0,1}",
    "%r = aten.empty_strided.default([4, 6], [1, 4], f32, none, none, none) : f32[4, 6]",
    "%r = aten.split.Tensor(%v, 6, 0) : f32[6]",
    // The end is counted from one that follows the job.
    "%r = aten.narrow.default(%x, 1, -2, 2) : f32[2, 2, 6]{strides=24,6,1}",
};

TEST(OpNamesTest, OtherOpsAreLeftAlone) {
  for (const char* node : kLeftAlone) {
    const std::string text = GraphOf(absl::StrCat("  ", node, "\n"));
    absl::StatusOr<Graph> graph = ParseGraph(text);
    ASSERT_TRUE(graph.ok()) << graph.status();
    UnifyOpNames(*graph);
    EXPECT_EQ(PrintGraph(*graph), text);
  }
}

}  // namespace
}  // namespace autosp
