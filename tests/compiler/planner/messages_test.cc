// What a user reads whose model or job cannot be planned: the place in the model, the value, the
// rule and what to do.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "compiler/ir/graph.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

// Tokens, a table, a head; `%loss` is the case's own.
std::string ModelWith(const std::string& nodes) {
  return "graph \"m\" {\n"
         "  param %w \"embed.weight\" : f32[11, 4]\n"
         "  param %v \"probe\" : f32[4]\n"
         "  input %input_ids \"input_ids\" : i64[2, 8]\n"
         "  input %labels \"labels\" : i64[2, 8]\n"
         "  %x = aten.embedding.default(%w, %input_ids, -1, false, false) : f32[2, 8, 4] "
         "@ \"model.embed\" \"model.py:5\"\n" +
         nodes + "}\n";
}

const char kMeanLoss[] =
    "  %m = aten.mean.default(%x, none) : f32[] @ \"model.head\" \"model.py:9\"\n"
    "  return %m \"loss\"\n";

absl::StatusOr<CompiledPlan> Plan(const ImportedModel& model,
                                  const std::function<void(JobSpec&)>& change) {
  JobSpec job;
  job.training.seq_len = 8;
  job.training.global_batch_size = 2;
  job.training.steps = 1;
  job.parallelism = {.ranks = 2, .dp = 1, .ulysses = 2, .ring = 1, .zero = 0};
  change(job);
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "node",
                           .address = {},
                           .devices = 2,
                           .device_memory_bytes = int64_t{1} << 30,
                           .kind = DeviceKind::kCpu});
  return CompileModel(model, job, cluster);
}

absl::StatusOr<CompiledPlan> Plan(const std::string& text,
                                  const std::function<void(JobSpec&)>& change) {
  absl::StatusOr<Graph> graph = ParseGraph(text);
  if (!graph.ok()) return graph.status();
  ImportedModel model;
  model.graph = *std::move(graph);
  return Plan(model, change);
}

struct MessageCase {
  const char* what;
  std::string model;
  std::function<void(JobSpec&)> change;
  std::vector<std::string> words;
};

void ExpectRefusal(const MessageCase& c) {
  SCOPED_TRACE(c.what);
  const absl::StatusOr<CompiledPlan> plan = Plan(c.model, c.change);
  ASSERT_FALSE(plan.ok());
  for (const std::string& word : c.words) {
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(word));
  }
}

TEST(MessagesTest, RefusalsNameThePlaceTheValueTheRuleAndTheRemedy) {
  const auto as_it_is = [](JobSpec&) {};
  const MessageCase kCases[] = {
      {"a loss without a trained parameter",
       ModelWith("  %t = aten.to.dtype(%input_ids, f32, false, false, none) : f32[2, 8]\n"
                 "  %m = aten.mean.default(%t, none) : f32[] @ \"model.head\" \"model.py:9\"\n"
                 "  %k = aten.mean.default(%x, none) : f32[]\n"
                 "  return %m \"loss\", %k \"other\"\n"),
       [](JobSpec& job) { job.model.loss_output = "loss"; },
       {"the loss %", " of model.head: ", " at model.py:9 depends on no trained parameter",
        "model.loss_output", "model.frozen"}},
      {"all is frozen",
       ModelWith(kMeanLoss),
       [](JobSpec& job) { job.model.frozen = {"**"}; },
       {"model.frozen freezes every parameter (2, the first is embed.weight)", "leave out"}},
      {"a parameter of float64",
       absl::StrReplaceAll(
           ModelWith("  %d = aten.to.dtype(%x, f64, false, false, none) : f64[2, 8, 4]\n"
                     "  %p = aten.mul.Tensor(%d, %v) : f64[2, 8, 4]\n"
                     "  %m = aten.mean.default(%p, none) : f64[]\n"
                     "  return %m \"loss\"\n"),
           {{"\"probe\" : f32[4]", "\"probe\" : f64[4]"}}),
       as_it_is,
       {"parameter probe is float64", "summed in float32", "model.float()", "model.frozen"}},
      {"a loss of float64",
       ModelWith("  %m = aten.mean.default(%x, none) : f32[]\n"
                 "  %d = aten.to.dtype(%m, f64, false, false, none) : f64[] @ \"model.head\" "
                 "\"model.py:9\"\n"
                 "  return %d \"loss\"\n"),
       as_it_is,
       {"the loss %", " of model.head: ", "is float64", "summed in float32", "loss.float()"}},
      {"a loss that is no number",
       ModelWith("  return %x \"logits\"\n"),
       as_it_is,
       {"no scalar output", "logits", "export a module whose forward returns the loss"}},
      {"two losses",
       ModelWith("  %m = aten.mean.default(%x, none) : f32[]\n"
                 "  %s = aten.sum.default(%x, none) : f32[]\n"
                 "  return %m \"mean\", %s \"sum\"\n"),
       as_it_is,
       {"2 scalar outputs (mean, sum)", "name the loss in model.loss_output"}},
      {"a block that the length does not divide into",
       ModelWith("  %b = aten.view.default(%x, [2, 2, 4, 4]) : f32[2, 2, 4, 4] "
                 "@ \"model.blocks\" \"model.py:7\"\n"
                 "  %m = aten.mean.default(%b, none) : f32[]\n"
                 "  return %m \"loss\"\n"),
       [](JobSpec& job) { job.training.seq_len = 18; },
       {"training.seq_len: 18 is not a multiple of 4",
        "model.blocks: aten.view.default (%b) at model.py:7 cuts it into",
        "set it to 20 or another multiple"}},
      {"too little memory",
       ModelWith(kMeanLoss),
       [](JobSpec& job) { job.memory.device_budget_bytes = 64; },
       {"the smallest plan needs", "64 B of a device", "at model.py:",
        "shorten training.seq_len (8)", "more ranks in parallelism (2)", "memory.device_budget"}},
  };
  for (const MessageCase& c : kCases) ExpectRefusal(c);
}

TEST(MessagesTest, NumbersOfTheJobThatTheModelHasNoPlaceFor) {
  const MessageCase kCases[] = {
      {"a token that fills up sequences and is none of the model's",
       ModelWith(kMeanLoss),
       [](JobSpec& job) { job.data.pad_token = 11; },
       {"data.pad_token: 11 is looked up in embed.weight, which has 11 rows, by model.embed: ",
        "at model.py:5", "set data.pad_token to a token that is there"}},
      {"a token that stands for masked ones and is none of the model's",
       ModelWith(kMeanLoss),
       [](JobSpec& job) { job.data.mask_token = 12; },
       {"data.mask_token: 12 is looked up in embed.weight, which has 11 rows"}},
      {"positions from the data beyond their table",
       ModelWith(kMeanLoss),
       [](JobSpec& job) {
         job.training.seq_len = 12;
         job.data.inputs["input_ids"] = {.source = InputSource::kPositions};
       },
       {"training.seq_len: position 11 is looked up in embed.weight, which has 11 rows"}},
      {"labels that do not count, and are not those that the loss leaves out",
       ModelWith("  %h = aten.linear.default(%x, %w, none) : f32[2, 8, 11]\n"
                 "  %f = aten.view.default(%h, [16, 11]) : f32[16, 11]\n"
                 "  %l = aten.view.default(%labels, [16]) : i64[16]\n"
                 "  %m = aten.cross_entropy_loss.default(%f, %l, none, 1, -100, 0.0) : f32[] "
                 "@ \"model.head\" \"model.py:9\"\n"
                 "  return %m \"loss\"\n"),
       [](JobSpec& job) {
         job.data.mask_token = 3;
         job.data.ignore_index = 0;
       },
       {"data.ignore_index: 0 is not the label that model.head: ", "at model.py:9 leaves out",
        "which is -100; set data.ignore_index to -100"}},
  };
  for (const MessageCase& c : kCases) ExpectRefusal(c);
}

// What the checker has no table for is not disproved: the plan is made, and says so.
TEST(MessagesTest, APlanThatIsNotProvedSaysWhyAndWhatToDo) {
  const std::string model = ModelWith(
      "  %p = aten.poisson.default(%x, none) : f32[2, 8, 4] @ \"model.head\" \"model.py:9\"\n"
      "  %m = aten.mean.default(%p, none) : f32[]\n"
      "  return %m \"loss\"\n");
  const absl::StatusOr<CompiledPlan> plan = Plan(model, [](JobSpec&) {});
  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->summary.warnings.size(), 2);  // the op has no rule
  const std::string& warning = plan->summary.warnings[1];
  for (const char* word :
       {"the plan is not proved to equal one device: ", "aten.poisson.default(",
        " in model.head at model.py:9", "every rank would draw random numbers of its own",
        "autosp-cli verify compares the two by running them"}) {
    EXPECT_THAT(warning, HasSubstr(word));
  }
  EXPECT_EQ(plan->summary.num_checked_values, 0);
  // Where warnings are errors, this is one.
  const absl::StatusOr<CompiledPlan> strict = Plan(model, [](JobSpec& job) { job.strict = true; });
  EXPECT_THAT(strict, IsError(absl::StatusCode::kInvalidArgument, HasSubstr(warning)));
}

// The sizes that the model was exported for are a promise of export, not of the graph.
TEST(MessagesTest, ASizeOutsideOfWhatWasExportedIsRefusedOrWarnedOf) {
  struct RangeCase {
    const char* what;
    SymbolRange batch;
    SymbolRange seq;
    std::string refusal;
    std::string warning;
  };
  const RangeCase kCases[] = {
      {"both within", {1, 2}, {2, 8}, "", ""},
      {"a least size that export wrote itself", {2, 64}, {2, 64}, "", ""},
      {"too long",
       {},
       {2, 7},
       "training.seq_len: input input_ids has 8 in dimension 1, which is above 7, the greatest it "
       "was exported for (s1): what the model does with such a size is not in the graph; set "
       "training.seq_len to 2 to 7, or export with a range that holds it",
       ""},
      {"too short", {}, {9, 64}, "which is below 9, the least it was exported for (s1)", ""},
      {"too large a batch",
       {1, 1},
       {},
       "",
       "the batch: input input_ids has 2 in dimension 0, which is above 1, the greatest it was "
       "exported for (s0)"},
  };
  absl::StatusOr<Graph> graph = ParseGraph(
      "graph \"m\" {\n"
      "  symbol s0 = 1\n"
      "  symbol s1 = 4\n"
      "  param %w \"embed.weight\" : f32[11, 4]\n"
      "  input %input_ids \"input_ids\" : i64[1{s0}, 4{s1}]\n"
      "  %x = aten.embedding.default(%w, %input_ids, -1, false, false) : f32[1{s0}, 4{s1}, 4]\n"
      "  %m = aten.mean.default(%x, none) : f32[]\n"
      "  return %m \"loss\"\n"
      "}\n");
  ASSERT_THAT(graph, IsOk());
  for (const RangeCase& c : kCases) {
    SCOPED_TRACE(c.what);
    ImportedModel model;
    model.graph = *graph;
    model.symbol_ranges = {{"s0", c.batch}, {"s1", c.seq}};
    const absl::StatusOr<CompiledPlan> plan = Plan(model, [](JobSpec&) {});
    if (!c.refusal.empty()) {
      EXPECT_THAT(plan, IsError(absl::StatusCode::kInvalidArgument, HasSubstr(c.refusal)));
      continue;
    }
    ASSERT_THAT(plan, IsOk());
    const std::vector<std::string>& warnings = plan->summary.warnings;
    ASSERT_EQ(warnings.size(), c.warning.empty() ? 0 : 1);
    for (const std::string& warning : warnings) EXPECT_THAT(warning, HasSubstr(c.warning));
  }
}

// Pairs of sequences that softmax relates: ranks that have one of a pair each need all of them.
TEST(MessagesTest, WorkOnGroupsThatRanksCutIsWarnedOf) {
  const std::string pairs = ModelWith(
      "  %g = aten.view.default(%x, [3, 2, 8, 4]) : f32[3, 2, 8, 4] @ \"model.pairs\" \"m.py:9\"\n"
      "  %s = aten._softmax.default(%g, 1, false) : f32[3, 2, 8, 4]\n"
      "  %p = aten.mul.Tensor(%s, %g) : f32[3, 2, 8, 4]\n"
      "  %m = aten.mean.default(%p, none) : f32[]\n"
      "  return %m \"loss\"\n");
  const std::string model = absl::StrReplaceAll(pairs, {{"[2, 8", "[6, 8"}});
  const absl::StatusOr<CompiledPlan> plan = Plan(model, [](JobSpec& job) {
    job.training.global_batch_size = 6;
    job.parallelism = {.ranks = 2, .dp = 2, .ulysses = 1, .ring = 1, .zero = 0};
  });
  ASSERT_THAT(plan, IsOk());
  EXPECT_GT(plan->summary.num_checked_values, 0) << "not proved";
  ASSERT_EQ(plan->summary.warnings.size(), 1);
  EXPECT_THAT(plan->summary.warnings[0],
              HasSubstr("model.pairs: aten.view.default (%g) at m.py:9, as 2 more of its kind, "
                        "has the 6 sequences of a batch in groups, as 3 x 2, and dp (2) does not "
                        "divide 3: every rank computes all of it; set parallelism.dp to 1, or give "
                        "a batch more groups"));
  const auto one_by_one = [](JobSpec& job) {
    job.training.global_batch_size = 6;
    job.training.micro_batch_size = 1;
  };
  EXPECT_THAT(Plan(model, one_by_one),
              IsError(absl::StatusCode::kUnimplemented,
                      HasSubstr("model.pairs: aten.view.default (%g) at m.py:9: takes all "
                                "sequences of %x at once, as "
                                "it mixes them or has no rule; gradient accumulation splits the "
                                "batch: set training.micro_batch_size "
                                "so that there is one micro-step")));
}

// The op that takes the whole batch and the one that needs that are named once, however long the
// chain of nodes is that are made where they are used.
TEST(MessagesTest, WhatAccumulationCannotDoIsNamedOnce) {
  struct Case {
    const char* nodes;  // of the labels and the hidden state %x
    const char* message;
  };
  for (const Case& c : {
           Case{"  %a = aten.amax.default(%f, [], false) : f32[] @ \"scale\" \"m.py:7\"\n"
                "  %b = aten.mul.Tensor(%a, 3.0) : f32[] @ \"scale\" \"m.py:8\"\n"
                "  %c = aten.sqrt.default(%b) : f32[]\n"
                "  %d = aten.add.Tensor(%c, 1.0, 1) : f32[]\n",
                "scale: aten.amax.default (%a) at m.py:7: takes the maximum over the whole batch, "
                "which scale: aten.mul.Tensor (%b) at m.py:8 needs; gradient accumulation splits "
                "the batch: set training.micro_batch_size so that there is one micro-step"},
           Case{"  %a = aten.sum.default(%x, none) : f32[] @ \"scale\" \"m.py:7\"\n"
                "  %b = aten.mul.Tensor(%a, 3.0) : f32[]\n"
                "  %c = aten.tanh.default(%b) : f32[] @ \"scale\" \"m.py:8\"\n"
                "  %d = aten.add.Tensor(%c, 2.0, 1) : f32[]\n",
                "scale: aten.sum.default (%a) at m.py:7: sums over the whole batch, which scale: "
                "aten.tanh.default (%c) at m.py:8 needs; "},
           Case{
               "  %s = aten.cumsum.default(%f, 0, none) : f32[2, 8] @ \"order\" \"m.py:7\"\n"
               "  %b = aten.mul.Tensor(%s, 3.0) : f32[2, 8] @ \"order\" \"m.py:8\"\n"
               "  %c = aten.exp.default(%b) : f32[2, 8]\n"
               "  %d = aten.unsqueeze.default(%c, 2) : f32[2, 8, 1]\n",
               "order: aten.cumsum.default (%s) at m.py:7: takes all sequences of a batch at once, "
               "as it mixes them or has no rule, which order: aten.mul.Tensor (%b) at m.py:8 "
               "needs; "},
       }) {
    const std::string model = ModelWith(absl::StrCat(
        "  %f = aten.to.dtype(%input_ids, f32, false, false, none) : f32[2, 8]\n", c.nodes,
        "  %y = aten.div.Tensor(%x, %d) : f32[2, 8, 4]\n"
        "  %m = aten.mean.default(%y, none) : f32[]\n"
        "  return %m \"loss\"\n"));
    const absl::Status refused =
        Plan(model, [](JobSpec& job) { job.training.micro_batch_size = 1; }).status();
    EXPECT_THAT(refused, IsError(absl::StatusCode::kUnimplemented, HasSubstr(c.message)));
    EXPECT_EQ(std::string(refused.message()).find("aten.div.Tensor"), std::string::npos) << refused;
  }
}

// Six pairs and four triples of 12 tokens are cut at other places.
TEST(MessagesTest, DimensionsThatAreCutInTwoWaysAreGatheredOrRefused) {
  const auto plan_with = [](const std::string& nodes) {
    const std::string model = ModelWith(
        "  %a = aten.view.default(%x, [2, 6, 2, 4]) : f32[2, 6, 2, 4]\n"
        "  %b = aten.flip.default(%a, [2]) : f32[2, 6, 2, 4]\n"
        "  %p = aten.view.default(%b, [2, 12, 4]) : f32[2, 12, 4]\n"
        "  %c = aten.view.default(%x, [2, 4, 3, 4]) : f32[2, 4, 3, 4]\n"
        "  %d = aten.flip.default(%c, [2]) : f32[2, 4, 3, 4]\n"
        "  %t = aten.view.default(%d, [2, 12, 4]) : f32[2, 12, 4]\n" +
        nodes +
        "  %m = aten.mean.default(%s, none) : f32[]\n"
        "  return %m \"loss\"\n");
    return Plan(absl::StrReplaceAll(model, {{"[2, 8", "[2, 12"}}),
                [](JobSpec& job) { job.training.seq_len = 12; });
  };
  for (const char* nodes : {
           "  %s = aten.mul.Tensor(%t, %p) : f32[2, 12, 4]\n",
           "  %s = aten.stack.default([%p, %t], 2) : f32[2, 12, 2, 4]\n",
           "  %s = aten.cat.default([%t, %p], 2) : f32[2, 12, 8]\n",
       }) {
    const absl::StatusOr<CompiledPlan> plan = plan_with(nodes);
    ASSERT_THAT(plan, IsOk()) << nodes;
    EXPECT_GT(plan->summary.num_checked_values, 0) << "not proved: " << nodes;
  }
  EXPECT_THAT(
      plan_with("  %k = aten.transpose.int(%p, 1, 2) : f32[2, 4, 12]{strides=48,1,4}\n"
                "  %s = aten.matmul.default(%k, %t) : f32[2, 4, 4] @ \"model.mix\" \"m.py:9\"\n"),
      IsError(absl::StatusCode::kInvalidArgument,
              HasSubstr("model.mix: aten.matmul.default (%s) at m.py:9: a dimension of 12 is cut "
                        "in two ways, into 6 and into 4 parts, that have no common refinement: cut "
                        "it by sizes of which one divides the other")));
}

// What is well made has no warning.
TEST(MessagesTest, AGoodModelIsPlannedWithoutAWord) {
  const absl::StatusOr<CompiledPlan> plan = Plan(ModelWith(kMeanLoss), [](JobSpec&) {});
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->summary.warnings, testing::IsEmpty());
}

}  // namespace
}  // namespace autosp
