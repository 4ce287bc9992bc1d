#include "compiler/planner/first_proved.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;

const std::vector<Mesh> kMeshes = {
    {.ring = 8}, {.ulysses = 8}, {.dp = 8}, {.ring = 4, .ulysses = 2}, {.ring = 2, .ulysses = 4}};

// Takes the first mesh that is left, and refuses those with a ring.
absl::StatusOr<CheckedPlan> FirstWithoutRing(const std::vector<Mesh>& meshes) {
  CheckedPlan checked{meshes.front(), {}, {}};
  checked.plan.summary.ring_size = checked.mesh.ring;
  checked.plan.summary.warnings = {"known"};
  if (checked.mesh.ring > 1) {
    checked.verdict = absl::InternalError(absl::StrCat("ring ", checked.mesh.ring, " is wrong"));
  }
  return checked;
}

TEST(FirstProved, TakesTheBestWhereItIsProved) {
  const auto plan = FirstProved({{.ulysses = 8}, {.ring = 8}}, FirstWithoutRing);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->summary.warnings, ElementsAre("known"));
}

TEST(FirstProved, TakesTheNextWithAWarning) {
  const auto plan = FirstProved(kMeshes, FirstWithoutRing);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->summary.ring_size, 1);
  EXPECT_THAT(plan->summary.warnings,
              ElementsAre("known",
                          "the best mesh would be dp 1 x ring 8 x ulysses 1, which is "
                          "left out: ring 8 is wrong"));
}

TEST(FirstProved, RefusesWithTheFirstVerdictWhereNoneIsProved) {
  const auto plan = FirstProved({{.ring = 8}, {.ring = 4, .ulysses = 2}}, FirstWithoutRing);
  EXPECT_EQ(plan.status(), absl::InternalError("ring 8 is wrong"));
}

TEST(FirstProved, GivesUpAfterFourMeshes) {
  int tried = 0;
  const auto refuse = [&](const std::vector<Mesh>& meshes) -> absl::StatusOr<CheckedPlan> {
    ++tried;
    return CheckedPlan{meshes.back(), {}, absl::InternalError("wrong")};
  };
  EXPECT_FALSE(FirstProved(kMeshes, refuse).ok());
  EXPECT_EQ(tried, 4);
}

TEST(FirstProved, SaysWhyThereIsNoPlanAtAll) {
  const auto none = [](const std::vector<Mesh>&) -> absl::StatusOr<CheckedPlan> {
    return absl::ResourceExhaustedError("too small");
  };
  EXPECT_EQ(FirstProved(kMeshes, none).status(), absl::ResourceExhaustedError("too small"));
}

// The refusal is what a user can report; that the others do not fit is only its consequence.
TEST(FirstProved, NamesTheRefusalWhereTheOthersDoNotFit) {
  const auto best = [](const std::vector<Mesh>& meshes) -> absl::StatusOr<CheckedPlan> {
    if (meshes.size() < kMeshes.size()) return absl::ResourceExhaustedError("too small");
    return FirstWithoutRing(meshes);
  };
  EXPECT_EQ(FirstProved(kMeshes, best).status(), absl::InternalError("ring 8 is wrong"));
}

}  // namespace
}  // namespace autosp
