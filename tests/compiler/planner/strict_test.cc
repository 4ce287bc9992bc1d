// `strict`: what planning only warns of otherwise is refused, all of it in one message.
#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

absl::StatusOr<CompiledPlan> Plan(const std::string& archive, bool strict, int64_t ulysses) {
  const auto model = ImportZoo(archive);
  if (!model.ok()) return model.status();
  JobSpec job;
  job.strict = strict;
  job.training.seq_len = 16;
  job.training.global_batch_size = 2;
  job.training.steps = 1;
  job.parallelism = {.ranks = ulysses, .dp = 1, .ulysses = ulysses, .ring = 1, .zero = 0};
  for (const GraphInput& input : model->graph.inputs) {
    if (input.kind == InputKind::kUser && !InputFeedFor(job.data, input.name)) {
      job.data.inputs[input.name] = {.source = InputSource::kNextTokens};
    }
  }
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "node",
                           .address = {},
                           .devices = ulysses,
                           .device_memory_bytes = int64_t{8} << 30,
                           .kind = DeviceKind::kCpu});
  return CompileModel(*model, job, cluster);
}

TEST(StrictTest, WarningsAreAnError) {
  const auto lenient = Plan("cases/ops_without_rules", /*strict=*/false, 2);
  ASSERT_TRUE(lenient.ok()) << lenient.status();
  ASSERT_THAT(lenient->summary.warnings, SizeIs(testing::Ge(2)));
  const auto refused = Plan("cases/ops_without_rules", /*strict=*/true, 2);
  ASSERT_TRUE(absl::IsInvalidArgument(refused.status())) << refused.status();
  const std::string message(refused.status().message());
  EXPECT_THAT(message, HasSubstr(absl::StrCat("strict: true allows no warning, and planning has ",
                                              lenient->summary.warnings.size())));
  for (const std::string& warning : lenient->summary.warnings) {
    EXPECT_THAT(message, HasSubstr(warning));
  }
}

// The value, its place in the model, the rule, and what to do.
TEST(StrictTest, WarningsNameThePlaceAndTheRemedy) {
  const auto plan = Plan("cases/ops_without_rules", /*strict=*/false, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string rest =
      " has no rule: it is gathered, computed in full and sliced, which costs memory and "
      "exchanges; write it with ops that have rules, or accept this";
  EXPECT_THAT(
      plan->summary.warnings,
      testing::ElementsAre(
          absl::StrCat("aten.special_ndtr.default (%special_ndtr) at token_cases.py:228",
                       rest),
          absl::StrCat("aten.renorm.default (%renorm) at token_cases.py:229", rest)));
}

TEST(StrictTest, NothingChangesWithoutWarnings) {
  const auto lenient = Plan("llama", /*strict=*/false, 2);
  const auto strict = Plan("llama", /*strict=*/true, 2);
  ASSERT_TRUE(lenient.ok()) << lenient.status();
  ASSERT_TRUE(strict.ok()) << strict.status();
  EXPECT_THAT(lenient->summary.warnings, IsEmpty());
  EXPECT_EQ(strict->program_text, lenient->program_text);
}

}  // namespace
}  // namespace autosp
