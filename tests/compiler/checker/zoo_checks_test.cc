// Every program that the compiler makes of tests/zoo is proved equal to the one-device program.
#include "absl/strings/str_cat.h"
#include "compiler/checker/check_program.h"
#include "gtest/gtest.h"
#include "tests/compiler/checker/zoo_jobs.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

struct Shape {
  int64_t batch;
  int64_t seq_len;
};

// "" where all meshes are proved, or cannot be compiled because accumulation splits the batch. The
// one-device program gives nothing up for memory.
std::string Check(const std::string& name, const std::vector<Shape>& shapes,
                  const std::vector<Mesh>& meshes, const MemoryChoice& memory = {}) {
  const absl::StatusOr<ImportedModel> model = ImportZoo(name);
  if (!model.ok()) return model.status().ToString();
  std::string failures;
  for (const Shape& shape : shapes) {
    const auto prepared = PrepareJob(*model, ZooJob(*model, shape.batch, shape.seq_len));
    if (!prepared.ok()) return prepared.status().ToString();
    const auto one = LowerForMesh(*prepared, Mesh{});
    if (!one.ok()) return one.status().ToString();
    for (const Mesh& mesh : meshes) {
      if (shape.batch % (mesh.dp * mesh.accum) != 0) continue;
      const auto lowered = LowerForMesh(*prepared, mesh, memory);
      if (!lowered.ok() && mesh.accum > 1) continue;
      if (!lowered.ok()) return lowered.status().ToString();
      const absl::StatusOr<Proof> proof = CheckEquivalent(lowered->program, one->program);
      if (proof.ok() && proof->num_results > 0) continue;
      absl::StrAppend(&failures, shape.batch, "x", shape.seq_len, " accum ", mesh.accum, " dp ",
                      mesh.dp, " ring ", mesh.ring, " ulysses ", mesh.ulysses, " recompute ",
                      ToString(memory.recompute), " zero ", memory.zero_stage, ": ",
                      proof.status().ToString(), "\n");
    }
  }
  return failures;
}

const std::vector<Mesh>& Meshes() {
  static const auto& meshes = *new std::vector<Mesh>{
      {1, 1, 1, 1}, {1, 1, 1, 2}, {1, 1, 1, 4}, {1, 2, 1, 1}, {1, 2, 1, 2}, {1, 2, 1, 4},
      {2, 1, 1, 1}, {2, 1, 1, 2}, {2, 2, 1, 2}, {1, 1, 1, 3}, {1, 1, 1, 5}, {2, 2, 1, 3},
      {1, 1, 2, 1}, {1, 1, 3, 1}, {1, 1, 4, 1}, {1, 1, 2, 2}, {1, 2, 2, 1}, {2, 1, 2, 1}};
  return meshes;
}

// Of stages of ZeRO; three ranks divide few parameters, of which all else stays whole.
std::string CheckZero(const std::string& name, const Shape& shape) {
  std::string failures;
  for (int64_t zero : {1, 2, 3}) {
    absl::StrAppend(
        &failures,
        Check(name, {shape}, {{1, 1, 1, 2}, {1, 2, 1, 2}, {2, 1, 1, 2}, {2, 1, 2, 2}, {1, 2, 1, 3}},
              {.zero_stage = zero}));
  }
  return failures;
}

std::string NameOf(const std::string& path) { return path.substr(path.find('/') + 1); }

class ModelChecks : public testing::TestWithParam<std::string> {};

TEST_P(ModelChecks, EveryMeshIsProved) {
  EXPECT_EQ(Check(GetParam(), {{4, 64}, {4, 63}, {2, 32}, {1, 64}}, Meshes()), "");
}

// Beside the rank that keeps everything, on few meshes.
TEST_P(ModelChecks, WhatIsGivenUpForMemoryIsProved) {
  for (const MemoryChoice& memory :
       {MemoryChoice{.tiling = Tiling::kAll}, MemoryChoice{.recompute = Recompute::kSelective},
        MemoryChoice{.recompute = Recompute::kFull, .tiling = Tiling::kAll, .zero_stage = 3}}) {
    EXPECT_EQ(Check(GetParam(), {{2, 32}}, {{1, 1, 1, 1}, {2, 1, 1, 2}, {1, 1, 2, 2}}, memory), "");
  }
}

TEST_P(ModelChecks, RingsThatGatherKeysAreProved) {
  const MemoryChoice gathers = {.ring_exchange = RingExchange::kAllGather};
  const std::vector<Mesh> meshes = {{1, 1, 2, 1}, {1, 1, 3, 1}, {1, 1, 4, 1},
                                    {1, 1, 2, 2}, {1, 2, 2, 1}, {2, 1, 2, 1}};
  EXPECT_EQ(Check(GetParam(), {{4, 64}, {2, 31}}, meshes, gathers), "");
}

TEST_P(ModelChecks, EveryStageOfZeroIsProved) { EXPECT_EQ(CheckZero(GetParam(), {4, 64}), ""); }

class CaseChecks : public testing::TestWithParam<std::string> {};

TEST_P(CaseChecks, EveryMeshIsProved) {
  // An odd number of blocks, where a length that nothing divides is none of the model's.
  const int64_t odd = CasesInBlocksOfFour().contains(NameOf(GetParam())) ? 12 : 13;
  EXPECT_EQ(Check(GetParam(), {{4, 16}, {2, odd}, {4, 24}}, Meshes()), "");
}

TEST_P(CaseChecks, EveryStageOfZeroIsProved) { EXPECT_EQ(CheckZero(GetParam(), {4, 16}), ""); }

INSTANTIATE_TEST_SUITE_P(Zoo, ModelChecks, testing::ValuesIn(ZooModelNames()),
                         [](const auto& info) { return NameOf(info.param); });
INSTANTIATE_TEST_SUITE_P(Zoo, CaseChecks, testing::ValuesIn(ZooCaseNames()),
                         [](const auto& info) { return NameOf(info.param); });

// The planner checks what it chooses, and says how much that was.
TEST(PlanTest, SaysWhatWasProved) {
  const absl::StatusOr<ImportedModel> model = ImportZoo("llama");
  ASSERT_TRUE(model.ok()) << model.status();
  ClusterSpec cluster;
  cluster.nodes = {
      {.name = "node", .address = "", .devices = 2, .device_memory_bytes = int64_t{1} << 30}};
  const auto plan = CompileModel(*model, ZooJob(*model, 2, 31), cluster);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->summary.world_size, 2);
  EXPECT_GT(plan->summary.num_checked_values, 100);
  EXPECT_GT(plan->summary.num_checked_results, 20);
}

// The texts of two jobs are not taken for one another.
TEST(PlanTest, AnotherJobIsRefused) {
  const absl::StatusOr<ImportedModel> model = ImportZoo("llama");
  ASSERT_TRUE(model.ok()) << model.status();
  JobSpec job = ZooJob(*model, 2, 32);
  const auto one = CompileForMesh(*model, job, Mesh{}, nullptr);
  ASSERT_TRUE(one.ok()) << one.status();
  job.training.optimizer.weight_decay += 0.5;
  const auto other = CompileForMesh(*model, job, {1, 1, 1, 2}, nullptr);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(CheckEquivalent(other->program, one->program).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckEquivalent(one->program, other->program).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace autosp
