// What is split how: tokens before all else, weights and what is made of them nowhere.
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "compiler/ir/graph.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr DimRole kBatch = DimRole::kBatch;
constexpr DimRole kOther = DimRole::kOther;
constexpr DimRole kSequence = DimRole::kSequence;

absl::StatusOr<CompiledPlan> Plan(const std::string& text, int64_t ulysses, int64_t ring,
                                  std::vector<DimRole> roles,
                                  std::optional<int64_t> micro_batch = std::nullopt) {
  ASSIGN_OR_RETURN(Graph graph, ParseGraph(text));
  ImportedModel model;
  model.graph = std::move(graph);
  JobSpec job;
  job.training.seq_len = 16;
  job.training.global_batch_size = 2;
  job.training.steps = 1;
  job.training.micro_batch_size = micro_batch;
  const int64_t ranks = ulysses * ring;
  job.parallelism = {.ranks = ranks, .dp = 1, .ulysses = ulysses, .ring = ring, .zero = 0};
  job.data.inputs["x"] = {.source = InputSource::kOnes, .dims = std::move(roles)};
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "node",
                           .address = {},
                           .devices = ranks,
                           .device_memory_bytes = int64_t{1} << 30,
                           .kind = DeviceKind::kCpu});
  return CompileModel(model, job, cluster);
}

absl::StatusOr<CompiledPlan> Plan(const std::string& text, int64_t ulysses, int64_t ring,
                                  DimRole tokens = kSequence) {
  return Plan(text, ulysses, ring, std::vector<DimRole>{kBatch, tokens, kOther});
}

// Bytes that a rank receives in the forward and the backward by collectives of a kind.
int64_t Received(const CompiledPlan& plan, std::string_view kind) {
  int64_t bytes = 0;
  for (const CollectiveTotals& each : plan.summary.collectives) {
    const bool is_of_tokens = each.phase == "forward" || each.phase == "backward";
    if (each.kind == kind && is_of_tokens) bytes += each.bytes_received_per_rank;
  }
  return bytes;
}

// Attention of 4 heads of 8 over 17 tokens: a class token, then 16 of the input.
std::string BehindClassToken(const std::string& causal) {
  return absl::StrReplaceAll(R"(graph "behind_a_class_token" {
  param %c "class_token" : f32[1, 1, 32]
  param %p "positions" : f32[1, 17, 32]
  param %w "w" : f32[32, 32]
  param %v "v" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %e = aten.expand.default(%c, [2, 1, 32], false) : f32[2, 1, 32]{strides=0,32,1}
  %t = aten.cat.default([%e, %l], 1) : f32[2, 17, 32]
  %a = aten.add.Tensor(%t, %p, 1) : f32[2, 17, 32]
  %s = aten.view.default(%a, [2, 17, 4, 8]) : f32[2, 17, 4, 8]
  %h = aten.transpose.int(%s, 1, 2) : f32[2, 4, 17, 8]{strides=544,8,32,1}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, CAUSAL, none, false))"
                             R"( : f32[2, 4, 17, 8]{strides=544,8,32,1} @ "model.attn" "m.py:9"
  %u = aten.transpose.int(%o, 1, 2) : f32[2, 17, 4, 8]
  %r = aten.view.default(%u, [2, 17, 32]) : f32[2, 17, 32]
  %y = aten.linear.default(%r, %v, none) : f32[2, 17, 32]
  %m = aten.mean.default(%y, none) : f32[]
  return %m "loss"
}
)",
                             {{"CAUSAL", causal}});
}

TEST(LayoutsTest, TokensBehindAClassTokenAreSplitThoughNoInputHasThem) {
  for (DimRole tokens : {kSequence, kOther}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(BehindClassToken("false"), 2, 1, tokens));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
    EXPECT_THAT(plan.program_text, HasSubstr("factor seq = 17"));
    EXPECT_EQ(Received(plan, "all_gather"), 0);
    EXPECT_EQ(Received(plan, "reduce_scatter"), 0);
    EXPECT_GT(Received(plan, "all_to_all"), 0);
  }
}

TEST(LayoutsTest, ARingSplitsThemToo) {
  for (DimRole tokens : {kSequence, kOther}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(BehindClassToken("false"), 1, 2, tokens));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
    EXPECT_THAT(plan.program_text, HasSubstr("factor seq = 17 zigzag"));
    EXPECT_THAT(plan.program_text, HasSubstr("autosp.attend_block_"));
  }
}

// [B * S, S]: as many rows as there are tokens, which are no blocks of a ring's.
TEST(LayoutsTest, AttentionAlongRowsOfPairsIsNotThatOfARing) {
  const std::string text = R"(graph "rows_of_pairs" {
  param %w "w" : f32[8, 8]
  input %x "x" : f32[2, 16, 8]
  %i = aten.unsqueeze.default(%x, 2) : f32[2, 16, 1, 8]
  %j = aten.unsqueeze.default(%x, 1) : f32[2, 1, 16, 8]
  %p = aten.add.Tensor(%i, %j, 1) : f32[2, 16, 16, 8]
  %f = aten.reshape.default(%p, [32, 16, 8]) : f32[32, 16, 8]
  %l = aten.linear.default(%f, %w, none) : f32[32, 16, 8]
  %s = aten.view.default(%l, [32, 16, 2, 4]) : f32[32, 16, 2, 4]
  %h = aten.transpose.int(%s, 1, 2) : f32[32, 2, 16, 4]{strides=128,4,8,1}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, false, none, false))"
                           R"( : f32[32, 2, 16, 4]{strides=128,4,8,1}
  %y = aten.mean.default(%o, none) : f32[]
  return %y "loss"
}
)";
  for (int64_t ring : {2, 4}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(text, 1, ring));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
    EXPECT_THAT(plan.program_text, Not(HasSubstr("autosp.attend_block_")));
  }
}

// Patches that lie in rows are shared by rows, so that nothing moves where columns are apart.
// Two blocks for each rank would be padded to 16 of 4 chunks, and serve no attention.
TEST(LayoutsTest, ARingThatNoAttentionRunsOnHasNoZigzag) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(R"(graph "chunks" {
  param %w "w" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %c = aten.view.default(%l, [2, 4, 4, 32]) : f32[2, 4, 4, 32]
  %s = aten.cumsum.default(%c, 2, none) : f32[2, 4, 4, 32]
  %q = aten.square.default(%s) : f32[2, 4, 4, 32]
  %m = aten.mean.default(%q, none) : f32[]
  return %m "loss"
}
)",
                                                     1, 4));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(plan.program_text, HasSubstr("factor seq = 4\n"));
  EXPECT_THAT(plan.program_text, Not(HasSubstr("zigzag")));
  EXPECT_THAT(plan.summary.shardings, ElementsAre(HasSubstr("each rank holds 4 of 16 tokens")));
}

// Sums in pieces of 2 or 4 tokens, then attention of 4 heads of 8 over all.
absl::StatusOr<CompiledPlan> PlanOfPieces(int64_t pieces, int64_t ulysses, int64_t ring) {
  const std::string text = R"(graph "pieces" {
  param %w "w" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %c = aten.view.default(%l, [2, PIECES, LENGTH, 32]) : f32[2, PIECES, LENGTH, 32]
  %s = aten.cumsum.default(%c, 2, none) : f32[2, PIECES, LENGTH, 32]
  %r = aten.view.default(%s, [2, 16, 4, 8]) : f32[2, 16, 4, 8]
  %h = aten.transpose.int(%r, 1, 2) : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, true, none, false))"
                           R"( : f32[2, 4, 16, 8]{strides=512,8,32,1} @ "model.attn" "m.py:9"
  %q = aten.square.default(%o) : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %m = aten.mean.default(%q, none) : f32[]
  return %m "loss"
}
)";
  return Plan(absl::StrReplaceAll(
                  text, {{"PIECES", absl::StrCat(pieces)}, {"LENGTH", absl::StrCat(16 / pieces)}}),
              ulysses, ring);
}

TEST(LayoutsTest, AttentionRunsOnARingOfWholePieces) {
  for (const auto& [ulysses, ring] : {std::pair(1, 4), std::pair(2, 2)}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, PlanOfPieces(8, ulysses, ring));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
    EXPECT_THAT(plan.program_text, HasSubstr("factor seq = 8 zigzag"));
    EXPECT_THAT(plan.program_text, HasSubstr("piece=2"));
    EXPECT_THAT(plan.summary.warnings, IsEmpty());
  }
}

// Keys that are the means of pieces are not the tokens of queries.
TEST(LayoutsTest, KeysOfWholePiecesAreNotBlocksOfTokens) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(R"(graph "means" {
  param %w "w" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %c = aten.view.default(%l, [2, 8, 2, 32]) : f32[2, 8, 2, 32]
  %k = aten.mean.dim(%c, [2], false, none) : f32[2, 8, 32]
  %r = aten.view.default(%l, [2, 16, 4, 8]) : f32[2, 16, 4, 8]
  %q = aten.transpose.int(%r, 1, 2) : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %s = aten.view.default(%k, [2, 8, 4, 8]) : f32[2, 8, 4, 8]
  %h = aten.transpose.int(%s, 1, 2) : f32[2, 4, 8, 8]{strides=256,8,32,1}
  %o = aten.scaled_dot_product_attention.default(%q, %h, %h, none, 0.0, false, none, false))"
                                                     R"( : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %z = aten.square.default(%o) : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %m = aten.mean.default(%z, none) : f32[]
  return %m "loss"
}
)",
                                                     1, 2));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
}

// Four pieces make no eight blocks.
TEST(LayoutsTest, ARingOfFewPiecesHasNoZigzag) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, PlanOfPieces(4, 1, 4));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(plan.program_text, HasSubstr("factor seq = 4\n"));
  EXPECT_THAT(plan.program_text, HasSubstr("attend_block_"));
}

// A head of a rank has the size of the one that all share.
TEST(LayoutsTest, OneKeyHeadIsSharedByRanksOfOneHead) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(R"(graph "one_key_head" {
  param %w "w" : f32[32, 32]
  param %v "v" : f32[8, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %r = aten.view.default(%l, [2, 16, 4, 8]) : f32[2, 16, 4, 8]
  %q = aten.transpose.int(%r, 1, 2) : f32[2, 4, 16, 8]{strides=512,8,32,1}
  %k = aten.linear.default(%x, %v, none) : f32[2, 16, 8]
  %u = aten.unsqueeze.default(%k, 1) : f32[2, 1, 16, 8]
  %t = aten.transpose.int(%u, 2, 3) : f32[2, 1, 8, 16]{strides=128,128,1,8}
  %s = aten.matmul.default(%q, %t) : f32[2, 4, 16, 16]
  %a = aten.tanh.default(%s) : f32[2, 4, 16, 16]
  %o = aten.matmul.default(%a, %u) : f32[2, 4, 16, 8]
  %z = aten.square.default(%o) : f32[2, 4, 16, 8]
  %m = aten.mean.default(%z, none) : f32[]
  return %m "loss"
}
)",
                                                     4, 1));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
}

TEST(LayoutsTest, PatchesAreSharedByRowsOfTheImage) {
  const char kModel[] = R"(graph "rows" {
  param %w "w" : f32[32, 32]
  input %x "x" : f32[2, 8, 4, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 8, 4, 32]
  %s = aten.view.default(%l, [2, 32, 4, 8]) : f32[2, 32, 4, 8]
  %h = aten.transpose.int(%s, 1, 2) : f32[2, 4, 32, 8]{strides=1024,8,32,1}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, false, none, false))"
                        R"( : f32[2, 4, 32, 8]{strides=1024,8,32,1}
  %u = aten.transpose.int(%o, 1, 2) : f32[2, 32, 4, 8]
  %r = aten.view.default(%u, [2, 8, 4, 32]) : f32[2, 8, 4, 32]
  %c = aten._softmax.default(%r, 2, false) : f32[2, 8, 4, 32]
  %y = aten.linear.default(%c, %w, none) : f32[2, 8, 4, 32]
  %m = aten.mean.default(%y, none) : f32[]
  return %m "loss"
}
)";
  const std::vector<DimRole> roles = {kBatch, kOther, kOther, kOther};
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(kModel, 2, 1, roles));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  for (const CollectiveTotals& each : plan.summary.collectives) {
    if (each.phase != "forward") continue;
    EXPECT_EQ(each.kind, "all_to_all");
    EXPECT_EQ(each.calls, 2) << "queries, keys and values are one; and the result";
  }
  ASSERT_OK_AND_ASSIGN(const CompiledPlan ring, Plan(kModel, 1, 2, roles));
  EXPECT_GT(ring.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(ring.program_text, HasSubstr("autosp.attend_block_"));
}

// Columns are in the midst of the tokens of a ring, and ranks may share them beside it.
TEST(LayoutsTest, ARingOverPatchesThatAttendInWindowsTooIsPlanned) {
  const char kModel[] = R"(graph "windows" {
  param %p "p" : f32[16, 3, 4, 4]
  param %w "w" : f32[16, 16]
  input %x "x" : f32[2, 3, 32, 32]
  %i = aten.conv2d.default(%x, %p, none, [4, 4], [0, 0], [1, 1], 1) : f32[2, 16, 8, 8]
  %f = aten.flatten.using_ints(%i, 2, -1) : f32[2, 16, 64]
  %t = aten.transpose.int(%f, 1, 2) : f32[2, 64, 16]{strides=1024,1,64}
  %v = aten.view.default(%t, [2, 64, 4, 4]) : f32[2, 64, 4, 4]{strides=1024,1,256,64}
  %h = aten.transpose.int(%v, 1, 2) : f32[2, 4, 64, 4]{strides=1024,256,1,64}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, false, none, false))"
                        R"( : f32[2, 4, 64, 4]
  %u = aten.transpose.int(%o, 1, 2) : f32[2, 64, 4, 4]{strides=1024,4,256,1}
  %r = aten.reshape.default(%u, [2, 64, 16]) : f32[2, 64, 16]
  %a = aten.add.Tensor(%t, %r, 1) : f32[2, 64, 16]{strides=1024,1,64}
  %c = aten.view.default(%a, [2, 2, 4, 2, 4, 16]))"
                        R"( : f32[2, 2, 4, 2, 4, 16]{strides=1024,32,8,4,1,64}
  %d = aten.permute.default(%c, [0, 1, 3, 2, 4, 5]))"
                        R"( : f32[2, 2, 2, 4, 4, 16]{strides=1024,32,4,8,1,64}
  %e = aten.reshape.default(%d, [-1, 16, 16]) : f32[8, 16, 16]
  %s = aten.scaled_dot_product_attention.default(%e, %e, %e, none, 0.0, false, none, false))"
                        R"( : f32[8, 16, 16]
  %y = aten.linear.default(%s, %w, none) : f32[8, 16, 16]
  %m = aten.mean.default(%y, none) : f32[]
  return %m "loss"
}
)";
  const std::vector<DimRole> roles = {kBatch, kOther, kOther, kOther};
  for (const auto& [ulysses, ring] : {std::pair(1, 2), std::pair(2, 1), std::pair(2, 2)}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(kModel, ulysses, ring, roles));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  }
}

// Four heads over eight ranks: each has the rows of its queries. In causal order it would need to
// know where they stand, which rings do.
TEST(LayoutsTest, RanksThatOutnumberHeadsShareRows) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan rows, Plan(BehindClassToken("false"), 8, 1));
  EXPECT_GT(rows.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(rows.program_text, HasSubstr("f32[batch, 4, seq@ulysses, 8]"));
  EXPECT_THAT(rows.summary.warnings, IsEmpty());
}

TEST(LayoutsTest, WhatEveryRankComputesIsWarnedOf) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(BehindClassToken("true"), 8, 1));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(plan.summary.warnings,
              ElementsAre(testing::AllOf(
                  HasSubstr("model.attn"), HasSubstr("m.py:9"), HasSubstr("has 4 heads"),
                  HasSubstr("ulysses (8) does not divide"), HasSubstr("parallelism.ring to 2"),
                  HasSubstr("parallelism.ulysses to 4"))));
}

// The derivative of an einsum keeps its result, in which that of the loss may not be written.
TEST(LayoutsTest, LogitsOfAnEinsumAreKept) {
  const char kModel[] = R"(graph "einsum_head" {
  param %v "v" : f32[48, 32]
  param %w "w" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %y = aten.einsum.default("bsd,vd->bsv", [%l, %v], none) : f32[2, 16, 48]
  %f = aten.view.default(%y, [32, 48]) : f32[32, 48]
  %t = aten.zeros.default([32], i64, none, none, none) : i64[32]
  %m = aten.cross_entropy_loss.default(%f, %t, none, 1, -100, 0.0) : f32[]
  return %m "loss"
}
)";
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(kModel, 2, 1));
  EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  EXPECT_EQ(Received(plan, "all_gather"), 0);
}

// As nn.MultiheadAttention writes it: batch and heads in one dimension, and weights that it gives
// back beside the result.
constexpr char kWithWeightsGivenBack[] = R"(graph "multihead" {
  param %w "w" : f32[32, 32]
  param %v "v" : f32[32, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %t = aten.transpose.int(%l, 0, 1) : f32[16, 2, 32]{strides=32,512,1}
  %c = aten.contiguous.default(%t, !contiguous_format) : f32[16, 2, 32]
  %s = aten.view.default(%c, [16, 8, 8]) : f32[16, 8, 8]
  %h = aten.transpose.int(%s, 0, 1) : f32[8, 16, 8]{strides=8,64,1}
  %q = aten.mul.Tensor(%h, 0.5) : f32[8, 16, 8]{strides=8,64,1}
  %k = aten.transpose.int(%h, -2, -1) : f32[8, 8, 16]{strides=8,1,64}
  %p = aten.bmm.default(%q, %k) : f32[8, 16, 16]
  %a = aten.softmax.int(%p, -1, none) : f32[8, 16, 16]
  %o = aten.bmm.default(%a, %h) : f32[8, 16, 8]
  %u = aten.transpose.int(%o, 0, 1) : f32[16, 8, 8]{strides=8,128,1}
  %r = aten.reshape.default(%u, [32, 32]) : f32[32, 32]
  %y = aten.linear.default(%r, %v, none) : f32[32, 32]
  %z = aten.view.default(%a, [2, 4, 16, 16]) : f32[2, 4, 16, 16]
  %n = aten.mean.dim(%z, [1], false, none) : f32[2, 16, 16]
  %m = aten.mean.default(%y, none) : f32[]
  return %m "loss"
}
)";

TEST(LayoutsTest, WeightsThatNobodyReadsAreNoMatrixOfPairs) {
  ASSERT_OK_AND_ASSIGN(const CompiledPlan heads, Plan(kWithWeightsGivenBack, 2, 1));
  EXPECT_GT(heads.summary.num_checked_values, 0) << "not proved";
  EXPECT_GT(Received(heads, "all_to_all"), 0);
  EXPECT_EQ(Received(heads, "all_gather"), 0);
  ASSERT_OK_AND_ASSIGN(const CompiledPlan ring, Plan(kWithWeightsGivenBack, 1, 2));
  EXPECT_GT(ring.summary.num_checked_values, 0) << "not proved";
  EXPECT_THAT(ring.program_text, HasSubstr("autosp.attend_block"));
}

// `%y` is the model's own, of tokens [2, 16, 32] and a weight [32, 32].
std::string WithWeights(const std::string& nodes) {
  return absl::StrCat(R"(graph "weights" {
  param %s "scale" : f32[32]
  param %w "w" : f32[32, 32]
  param %v "v" : f32[48, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
)",
                      nodes, R"(  %m = aten.mean.default(%y, none) : f32[]
  return %m "loss"
}
)");
}

TEST(LayoutsTest, WhatIsMadeOfWeightsAloneIsOnEveryRank) {
  const std::string kNodes[] = {
      // 1 + scale, as some norms have it.
      "  %a = aten.add.Tensor(%s, 1.0, 1) : f32[32]\n"
      "  %y = aten.mul.Tensor(%l, %a) : f32[2, 16, 32]\n",
      "  %a = aten.exp.default(%s) : f32[32]\n"
      "  %b = aten.neg.default(%a) : f32[32]\n"
      "  %y = aten.mul.Tensor(%l, %b) : f32[2, 16, 32]\n",
      "  %a = aten.t.default(%v) : f32[32, 48]{strides=1,32}\n"
      "  %y = aten.matmul.default(%l, %a) : f32[2, 16, 48]\n",
      "  %a = aten.transpose.int(%v, 0, 1) : f32[32, 48]{strides=1,32}\n"
      "  %b = aten.cat.default([%a, %w], 1) : f32[32, 80]\n"
      "  %y = aten.matmul.default(%l, %b) : f32[2, 16, 80]\n",
  };
  for (const std::string& nodes : kNodes) {
    for (int64_t ring : {1, 2}) {
      ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(WithWeights(nodes), 2, ring));
      EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
      for (const CollectiveTotals& each : plan.summary.collectives) {
        EXPECT_EQ(each.phase, "reduce") << each.kind << "\n" << nodes;
      }
    }
  }
}

// Casts to a half type of a number that is a part of a sum of ranks.
int NumRoundedParts(const Program& program, const std::vector<Instruction>& body) {
  int count = 0;
  for (const Instruction& instruction : body) {
    count += NumRoundedParts(program, instruction.body);
    if (instruction.op != "aten.to.dtype") continue;
    const ProgramValue& from = program.value(OperandsOf(instruction)[0]);
    const bool rounds =
        IsHalf(program.value(instruction.results[0]).dtype) && from.dtype == DType::kF32;
    if (rounds && from.partial.axes != AxisList{} && from.partial.axes != AxisList{Axis::kAccum}) {
      ++count;
    }
  }
  return count;
}

// Sums of halves over tokens, a weight and what all tokens read in bf16, losses of bf16 that are
// weighed and added.
TEST(LayoutsTest, HalvesAreRoundedWhereAllRanksHaveAdded) {
  const std::string graph = WithWeights(R"(
  %q = aten.to.dtype(%w, bf16, false, false, none) : bf16[32, 32]
  %f = aten.to.dtype(%q, f32, false, false, none) : f32[32, 32]
  %a = aten.matmul.default(%l, %f) : f32[2, 16, 32]
  %b = aten.to.dtype(%a, bf16, false, false, none) : bf16[2, 16, 32]
  %c = aten.mean.dim(%b, [1], true, none) : bf16[2, 1, 32]
  %d = aten.tanh.default(%c) : bf16[2, 1, 32]
  %e = aten.add.Tensor(%b, %d, 1) : bf16[2, 16, 32]
  %g = aten.sum.default(%e, none) : bf16[]
  %h = aten.mul.Tensor(%g, 0.5) : bf16[]
  %i = aten.mean.default(%b, none) : bf16[]
  %j = aten.add.Tensor(%h, %i, 1) : bf16[]
  %y = aten.to.dtype(%j, f32, false, false, none) : f32[]
)");
  for (int64_t micro_batch : {2, 1}) {
    for (int64_t ring : {1, 2}) {
      ASSERT_OK_AND_ASSIGN(const CompiledPlan plan,
                           Plan(graph, 2, ring, {kBatch, kSequence, kOther}, micro_batch));
      EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
      ASSERT_OK_AND_ASSIGN(const Program program, ParseProgram(plan.program_text));
      for (const Section& section : program.sections) {
        EXPECT_EQ(NumRoundedParts(program, section.body), 0) << plan.program_text;
      }
    }
  }
}

// A rank of half the heads reads half of a bias of heads, whose gradient has the type that it has
// on one device.
TEST(LayoutsTest, GradientsOfPartsOfHalfParametersAreThoseOfTheWhole) {
  const std::string graph = R"(graph "bias_of_heads" {
  param %w "w" : bf16[32, 32]
  param %s "s" : bf16[4, 1, 8]
  input %x "x" : bf16[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : bf16[2, 16, 32]
  %v = aten.view.default(%l, [2, 16, 4, 8]) : bf16[2, 16, 4, 8]
  %h = aten.transpose.int(%v, 1, 2) : bf16[2, 4, 16, 8]{strides=512,8,32,1}
  %o = aten.scaled_dot_product_attention.default(%h, %h, %h, none, 0.0, true, none, false)"
                            R"() : bf16[2, 4, 16, 8]{strides=512,8,32,1}
  %a = aten.add.Tensor(%o, %s, 1) : bf16[2, 4, 16, 8]{strides=512,8,32,1}
  %m = aten.mean.default(%a, none) : bf16[]
  return %m "loss"
}
)";
  for (int64_t ulysses : {2, 4}) {
    ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(graph, ulysses, 1));
    EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved";
  }
}

// What is added to gradients of parameters and is a part of a sum of ranks, in a half type.
std::vector<std::string> RoundedPartsOfGradients(const Program& program) {
  std::set<StorageId> gradients;
  for (const Persistent& persistent : program.persistents) {
    if (persistent.name.starts_with("grad:")) {
      gradients.insert(program.value(persistent.value).storage);
    }
  }
  std::vector<std::string> rounded;
  const std::function<void(const std::vector<Instruction>&)> visit =
      [&](const std::vector<Instruction>& body) {
        for (const Instruction& instruction : body) {
          visit(instruction.body);
          if (instruction.kind != InstructionKind::kAccumulate) continue;
          const std::vector<ValueId> operands = OperandsOf(instruction);
          if (!gradients.contains(program.value(operands[0]).storage)) continue;
          if (IsHalf(program.value(operands[1]).dtype)) {
            rounded.push_back(PrintInstruction(program, instruction));
          }
        }
      };
  for (const Section& section : program.sections) visit(section.body);
  return rounded;
}

// Parameters that are stretched, promoted, in kernels of norms, looked up in, transposed, sliced,
// padded for ranks and copied.
TEST(LayoutsTest, GradientsOfHalfParametersAreAddedInF32) {
  const std::string kUses[] = {
      "  %y = aten.mul.Tensor(%l, %s) : bf16[2, 16, 32]\n",
      "  %y = aten.div.Tensor(%l, %s) : bf16[2, 16, 32]\n",
      "  %y = aten.lerp.Scalar(%l, %s, 0.5) : bf16[2, 16, 32]\n",
      "  %c = aten.gt.Scalar(%l, 0) : bool[2, 16, 32]\n"
      "  %y = aten.where.self(%c, %l, %s) : bf16[2, 16, 32]\n",
      "  %f = aten.to.dtype(%l, f32, false, false, none) : f32[2, 16, 32]\n"
      "  %y = aten.mul.Tensor(%f, %s) : f32[2, 16, 32]\n",
      "  %y = aten.layer_norm.default(%l, [32], %s, %b, 1e-05, true) : bf16[2, 16, 32]\n",
      "  %y = aten.rms_norm.default(%l, [32], %s, 1e-06) : bf16[2, 16, 32]\n",
      "  %y = aten.linear.default(%l, %w, %b) : bf16[2, 16, 32]\n",
      "  %t = aten.t.default(%m) : bf16[32, 48]{strides=1,32}\n"
      "  %y = aten.matmul.default(%l, %t) : bf16[2, 16, 48]\n",
      "  %i = aten.arange.default(16, i64, none, none, none) : i64[16]\n"
      "  %e = aten.embedding.default(%m, %i, -1, false, false) : bf16[16, 32]\n"
      "  %y = aten.mul.Tensor(%l, %e) : bf16[2, 16, 32]\n",
      "  %i = aten.arange.default(16, i64, none, none, none) : i64[16]\n"
      "  %j = aten.remainder.Scalar(%i, 7) : i64[16]\n"
      "  %e = aten.index.Tensor(%m, [%j]) : bf16[16, 32]\n"
      "  %y = aten.mul.Tensor(%l, %e) : bf16[2, 16, 32]\n",
      "  %p = aten.slice.Tensor(%m, 0, 0, 16, 1) : bf16[16, 32]\n"
      "  %y = aten.mul.Tensor(%l, %p) : bf16[2, 16, 32]\n",
      "  %h = aten.slice.Tensor(%s, 0, 0, 16, 1) : bf16[16]\n"
      "  %a = aten.slice.Tensor(%l, 2, 0, 16, 1) : bf16[2, 16, 16]{strides=512,32,1}\n"
      "  %y = aten.mul.Tensor(%a, %h) : bf16[2, 16, 16]\n",
  };
  for (const std::string& use : kUses) {
    const std::string graph = absl::StrReplaceAll(R"(graph "half_parameters" {
  param %w "w" : bf16[32, 32]
  param %s "s" : bf16[32]
  param %b "b" : bf16[32]
  param %m "m" : bf16[48, 32]
  input %x "x" : bf16[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : bf16[2, 16, 32]
USE  %q = aten.mean.default(%y, f32) : f32[]
  return %q "loss"
}
)",
                                                  {{"USE", use}});
    for (const auto& [ulysses, ring] : {std::pair(2, 1), std::pair(2, 2), std::pair(3, 1)}) {
      ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(graph, ulysses, ring));
      EXPECT_GT(plan.summary.num_checked_values, 0) << "not proved: " << use;
      ASSERT_OK_AND_ASSIGN(const Program program, ParseProgram(plan.program_text));
      EXPECT_THAT(RoundedPartsOfGradients(program), IsEmpty()) << use;
    }
  }
}

// What is kept for each sequence of a batch is whole on every rank: it is cut where it meets them,
// and has no part for each micro-step.
TEST(LayoutsTest, AStateOfTheBatchMeetsItsSequences) {
  const std::string graph = R"(graph "state_of_the_batch" {
  param %w "w" : f32[32, 32]
  buffer %m "memory" : f32[2, 32]
  input %x "x" : f32[2, 16, 32]
  %l = aten.linear.default(%x, %w, none) : f32[2, 16, 32]
  %u = aten.unsqueeze.default(%m, 1) : f32[2, 1, 32]
  %y = aten.mul.Tensor(%l, %u) : f32[2, 16, 32]
  %q = aten.mean.default(%y, none) : f32[]
  return %q "loss"
}
)";
  ASSERT_OK_AND_ASSIGN(const CompiledPlan plan, Plan(graph, 2, 1));
  EXPECT_GT(plan.summary.num_checked_values, 0);
  const auto refused = Plan(graph, 2, 1, {kBatch, kSequence, kOther}, /*micro_batch=*/1);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("memory is kept for all sequences of a batch, which "));
}

}  // namespace
}  // namespace autosp
