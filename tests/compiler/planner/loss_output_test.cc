// A forward that returns more than the loss: only what the loss is made of is planned, and trained.
#include <string>

#include "common/status_macros.h"
#include "compiler/ir/graph.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::Not;

// `beside`: nodes that the loss does not need; `outputs`: what is returned.
absl::StatusOr<CompiledPlan> Plan(const std::string& beside, const std::string& outputs,
                                  const std::string& loss_output = "") {
  ImportedModel model;
  ASSIGN_OR_RETURN(
      model.graph,
      ParseGraph("graph \"m\" {\n"
                 "  param %w \"embed.weight\" : f32[11, 4]\n"
                 "  param %v \"probe\" : f32[4]\n"
                 "  input %input_ids \"input_ids\" : i64[2, 8]\n"
                 "  %x = aten.embedding.default(%w, %input_ids, -1, false, false) : f32[2, 8, 4]\n"
                 "  %m = aten.mean.default(%x, none) : f32[]\n" +
                 beside + "  return " + outputs + "\n}\n"));
  JobSpec job;
  job.model.loss_output = loss_output;
  job.training.seq_len = 16;
  job.training.global_batch_size = 4;
  job.training.micro_batch_size = 1;
  job.training.steps = 1;
  job.parallelism = {.ranks = 2, .dp = 1, .ulysses = 2, .ring = 1, .zero = 0};
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "node",
                           .address = {},
                           .devices = 2,
                           .device_memory_bytes = int64_t{1} << 30,
                           .kind = DeviceKind::kCpu});
  return CompileModel(model, job, cluster);
}

TEST(LossOutputTest, NumbersToLogDoNotStandInTheWayOfAccumulation) {
  const auto plan = Plan(
      "  %d = aten.detach.default(%m) : f32[]\n"
      "  %e = aten.tanh.default(%d) : f32[]\n",
      "%m \"loss\", %d \"detached\", %e \"squashed\"", "loss");
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->program_text, Not(HasSubstr("aten.tanh")));
}

// Its gradient would be zero, and the optimizer's decay would move it all the same.
TEST(LossOutputTest, WhatOnlyOthersReadIsNotTrained) {
  const auto plan = Plan(
      "  %p = aten.mul.Tensor(%x, %v) : f32[2, 8, 4]\n"
      "  %q = aten.median.default(%p) : f32[]\n",
      "%q \"probed\", %m \"loss\"", "1");
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->program_text, HasSubstr("grad:embed.weight"));
  EXPECT_THAT(plan->program_text, Not(HasSubstr("grad:probe")));
  EXPECT_THAT(plan->program_text, Not(HasSubstr("aten.median")));
}

TEST(LossOutputTest, OneOfSeveralScalarsIsNamed) {
  const auto plan =
      Plan("  %n = aten.mean.default(%v, none) : f32[]\n", "%m \"loss\", %n \"norm\"");
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("2 scalar outputs (loss, norm); name the loss in model.loss_output"));
}

}  // namespace
}  // namespace autosp
