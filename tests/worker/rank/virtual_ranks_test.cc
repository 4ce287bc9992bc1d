#include "worker/rank/virtual_ranks.h"

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/rank/rank_fixture.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/data/data_feeder.h"

namespace autosp {
namespace {

using testing::HasSubstr;

struct World {
  std::unique_ptr<WeightFiles> weights;
  std::unique_ptr<VirtualWorld> ranks;
};

World Start(const RankFixture& fixture, const Mesh& mesh) {
  World world;
  world.weights = *WeightFiles::Open(fixture.job().model);
  auto tokens = std::make_shared<TokenFiles>(*TokenFiles::Open(fixture.job().data));
  const auto program = fixture.Compile(mesh);
  EXPECT_TRUE(program.ok()) << program.status();
  auto ranks =
      VirtualWorld::Create(*program, world.weights.get(),
                           [&](int64_t /*rank*/) -> absl::StatusOr<std::unique_ptr<Feeder>> {
                             return *DataFeeder::Make(fixture.job(), tokens);
                           });
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  world.ranks = *std::move(ranks);
  return world;
}

std::vector<double> Losses(const RankFixture& fixture, const Mesh& mesh) {
  World world = Start(fixture, mesh);
  std::vector<double> losses;
  EXPECT_TRUE(world.ranks->SetScalar("learning_rate", 0.5f).ok());
  for (int64_t step = 0; step < 3; ++step) {
    for (int64_t rank = 0; rank < world.ranks->world_size(); ++rank) {
      dynamic_cast<DataFeeder&>(world.ranks->feeder(rank)).SelectTrainingStep(step);
    }
    const auto results = world.ranks->Run("step");
    EXPECT_TRUE(results.ok()) << results.status();
    for (const SectionResult& result : *results) {
      EXPECT_EQ(*result.Number("loss"), *(*results)[0].Number("loss"));
    }
    losses.push_back(*(*results)[0].Number("loss"));
  }
  return losses;
}

TEST(VirtualRanksTest, EveryMeshTrainsAsOneRankDoes) {
  const RankFixture fixture(/*steps=*/3);
  const std::vector<double> expected = Losses(fixture, {.accum = 1});
  EXPECT_LT(expected[2], expected[0]);
  for (const Mesh& mesh : {Mesh{.accum = 1, .ulysses = 2}, Mesh{.accum = 2, .dp = 2},
                           Mesh{.accum = 1, .dp = 2, .ulysses = 2}}) {
    const std::vector<double> losses = Losses(fixture, mesh);
    for (size_t step = 0; step < expected.size(); ++step) {
      EXPECT_NEAR(losses[step], expected[step], 1e-5 * expected[step])
          << "dp " << mesh.dp << " ulysses " << mesh.ulysses << " step " << step;
    }
  }
}

TEST(VirtualRanksTest, TheCauseIsReportedNotItsEchoes) {
  const RankFixture fixture(/*steps=*/1);
  World world = Start(fixture, {.accum = 1, .ulysses = 2});
  const absl::Status status = world.ranks->ForEach([&](int64_t rank) -> absl::Status {
    if (rank == 1) return absl::DataLossError("the disk is gone");
    return world.ranks->executor(rank).Run("step").status();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1: the disk is gone"));
}

}  // namespace
}  // namespace autosp
