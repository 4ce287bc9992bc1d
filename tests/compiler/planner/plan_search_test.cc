// The planner gives up time for memory only where it must.
#include "compiler/planner/plan_search.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::HasSubstr;

class PlanSearchTest : public testing::Test {
 protected:
  void SetUp() override {
    auto model = ImportArchive(absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/zoo/llama/model.pt2"));
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  absl::StatusOr<CompiledPlan> Plan(int64_t budget_bytes, Recompute recompute,
                                    int64_t batch = 1) const {
    JobSpec job;
    job.training.seq_len = 4096;
    job.training.global_batch_size = batch;
    job.training.steps = 1;
    job.parallelism = {.ranks = 2, .dp = 1, .ulysses = 2, .ring = 1};
    job.memory = {.device_budget_bytes = budget_bytes, .recompute = recompute};
    ClusterSpec cluster;
    cluster.nodes.push_back({.name = "node",
                             .address = {},
                             .devices = 2,
                             .device_memory_bytes = int64_t{8} << 30,
                             .kind = DeviceKind::kCpu});
    return CompileModel(model_, job, cluster);
  }

  int64_t Needed(Recompute recompute) const {
    const auto plan = Plan(int64_t{1} << 40, recompute);
    EXPECT_TRUE(plan.ok()) << plan.status();
    const auto& peaks = plan->summary.predicted_peak_bytes;
    return peaks.at("device") + peaks.at("communication");
  }

  ImportedModel model_;
};

TEST_F(PlanSearchTest, MakesAgainAsLittleAsFits) {
  const int64_t none = Needed(Recompute::kNone);
  const int64_t selective = Needed(Recompute::kSelective);
  const int64_t full = Needed(Recompute::kFull);
  EXPECT_LT(selective, none);
  EXPECT_LT(full, selective);
  const struct {
    int64_t budget_bytes;
    const char* expected;
  } cases[] = {{none, "none"},
               {none - 1, "selective"},
               {selective, "selective"},
               {selective - 1, "full"},
               {full, "full"}};
  for (const auto& each : cases) {
    const auto plan = Plan(each.budget_bytes, Recompute::kAuto);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->summary.recompute, each.expected) << each.budget_bytes;
    EXPECT_GT(plan->summary.num_checked_results, 20) << "not proved";
  }
  const auto refused = Plan(full - 1, Recompute::kAuto);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
}

TEST_F(PlanSearchTest, TakesTheJobAtItsWord) {
  const int64_t none = Needed(Recompute::kNone);
  const auto refused = Plan(none - 1, Recompute::kNone);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  const auto full = Plan(none, Recompute::kFull);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->summary.recompute, "full");
  EXPECT_THAT(full->summary.ToText(), HasSubstr("recompute    full: the backward makes all but"));
}

// A smaller micro-batch costs less than making values again.
TEST_F(PlanSearchTest, SplitsTheBatchFirst) {
  const int64_t none = Needed(Recompute::kNone);
  const auto plan = Plan(none + none / 4, Recompute::kAuto, /*batch=*/4);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->summary.recompute, "none");
  EXPECT_EQ(plan->summary.micro_batch_size, 1);
}

}  // namespace
}  // namespace autosp
