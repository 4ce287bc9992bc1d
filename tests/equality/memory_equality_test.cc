// What is given up for memory changes no number: recomputation gives the same bits, and tiles the
// same numbers but for the order of sums.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/analysis/simulate.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

struct StepNumbers {
  double loss = 0;
  NamedTensors gradients;
  int64_t predicted_bytes = 0;
  int64_t predicted_host_bytes = 0;
  int64_t host_bytes = 0;
  int64_t num_tiles = 1;
  int64_t peak_bytes = 0;  // of the rank with the most
};

class MemoryTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto zoo = ZooModel::Load(GetParam());
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference = ReadSafetensors(ZooPath(absl::StrCat(Folder(), "/reference.safetensors")));
    ASSERT_TRUE(reference.ok()) << reference.status();
    inputs_ = WithPrefix(*reference, "input.");
  }

  // The model with dropout has no numbers of its own.
  std::string Folder() const {
    const std::string name = GetParam();
    return name == "gpt2_dropout" ? "gpt2" : name;
  }

  absl::StatusOr<StepNumbers> Run(const Mesh& mesh, const MemoryChoice& memory) {
    const at::Tensor& ids = inputs_.begin()->second;
    JobSpec job = zoo_->Job(ids.size(0), ids.size(1));
    job.memory.recompute = memory.recompute;
    job.memory.tiling = memory.tiling;
    job.memory.offload = memory.offload;
    job.parallelism.zero = memory.zero_stage;
    job.parallelism.ring_exchange = memory.ring_exchange;
    Program program;
    auto ranks = zoo_->Start(job, mesh, &program);
    if (!ranks.ok()) return ranks.status();
    auto predicted = SimulateSection(program, "step");
    if (!predicted.ok()) return predicted.status();
    if (auto status = (*ranks)->SetScalar("step", 1); !status.ok()) return status;
    auto results = (*ranks)->Run("step", inputs_);
    if (!results.ok()) return results.status();
    StepNumbers numbers;
    numbers.predicted_host_bytes = predicted->memory[Account::kPinnedHost].peak_bytes;
    numbers.num_tiles = program.mesh.tile;
    numbers.loss = (*results)[0].Number("loss").value();
    numbers.predicted_bytes = predicted->memory[Account::kDevice].peak_bytes;
    for (const SectionResult& result : *results) {
      numbers.peak_bytes =
          std::max(numbers.peak_bytes, result.memory.at(Account::kDevice).peak_bytes);
      numbers.host_bytes =
          std::max(numbers.host_bytes, result.memory.at(Account::kPinnedHost).peak_bytes);
    }
    for (const Persistent& persistent : program.persistents) {
      if (!persistent.name.starts_with("grad:")) continue;
      auto gradient = (*ranks)->Whole(persistent.name);
      if (!gradient.ok()) return gradient.status();
      numbers.gradients[persistent.name] = gradient->clone();
    }
    return numbers;
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors inputs_;
};

std::string NameOf(const Mesh& mesh) {
  return absl::StrCat("accum ", mesh.accum, " dp ", mesh.dp, " ring ", mesh.ring, " ulysses ",
                      mesh.ulysses);
}

bool IsHalf(const std::string& model) { return model == "llama_bf16" || model == "qwen3_moe"; }

constexpr Mesh kMeshes[] = {{1, 1, 1, 1}, {1, 1, 1, 2}, {1, 1, 2, 1}, {2, 1, 1, 2}, {1, 1, 2, 2}};

void ExpectPredicted(const StepNumbers& numbers, const std::string& where) {
  const auto predicted = static_cast<double>(numbers.predicted_bytes);
  EXPECT_NEAR(static_cast<double>(numbers.peak_bytes), predicted, 0.1 * predicted) << where;
  EXPECT_EQ(numbers.host_bytes, numbers.predicted_host_bytes) << where;
}

TEST_P(MemoryTest, RecomputationAndOffloadGiveTheSameBits) {
  for (const Mesh& mesh : kMeshes) {
    const auto kept = Run(mesh, {});
    ASSERT_TRUE(kept.ok()) << kept.status();
    for (const MemoryChoice& choice :
         {MemoryChoice{.recompute = Recompute::kSelective},
          {.recompute = Recompute::kFull},
          {.offload = Offload::kActivations},
          {.recompute = Recompute::kFull, .offload = Offload::kActivations},
          {.recompute = Recompute::kFull, .offload = Offload::kEveryLayer},
          {.recompute = Recompute::kFull, .offload = Offload::kEveryLayer, .fine_cuts = true}}) {
      const std::string where = absl::StrCat(NameOf(mesh), " ", ToString(choice.recompute), " ",
                                             ToString(choice.offload));
      const auto again = Run(mesh, choice);
      ASSERT_TRUE(again.ok()) << where << ": " << again.status();
      EXPECT_EQ(again->loss, kept->loss) << where;
      ASSERT_EQ(again->gradients.size(), kept->gradients.size());
      for (const auto& [name, gradient] : kept->gradients) {
        EXPECT_TRUE(at::equal(again->gradients.at(name), gradient)) << where << " " << name;
      }
      EXPECT_LE(again->predicted_bytes, kept->predicted_bytes) << where;
      EXPECT_EQ(again->host_bytes > 0, choice.offload != Offload::kNone) << where;
      ExpectPredicted(*again, where);
    }
  }
}

// Parameters in parts leave little but what ops allocate.
TEST_P(MemoryTest, PartsOfStatesNeedWhatIsPredicted) {
  for (const Mesh& mesh : {Mesh{1, 1, 1, 4}, Mesh{1, 1, 2, 2}}) {
    for (const Offload offload : {Offload::kNone, Offload::kEveryLayer}) {
      const std::string where = absl::StrCat(NameOf(mesh), " ", ToString(offload));
      const auto parts =
          Run(mesh, {.recompute = Recompute::kFull, .offload = offload, .zero_stage = 3});
      ASSERT_TRUE(parts.ok()) << where << ": " << parts.status();
      ExpectPredicted(*parts, where);
    }
  }
}

TEST_P(MemoryTest, TilesGiveTheSameNumbers) {
  // bf16 rounds each part of a sum.
  const bool is_half = IsHalf(GetParam());
  const double tolerance = is_half ? 2e-2 : 1e-6;
  for (const Mesh& mesh : kMeshes) {
    const auto whole = Run(mesh, {});
    ASSERT_TRUE(whole.ok()) << whole.status();
    for (const MemoryChoice& choice :
         {MemoryChoice{Recompute::kNone, Tiling::kLoss},
          MemoryChoice{Recompute::kSelective, Tiling::kAll},
          MemoryChoice{Recompute::kFull, Tiling::kAll},
          MemoryChoice{Recompute::kFull, Tiling::kAll, Offload::kNone,
                       /*zero_stage=*/3},
          MemoryChoice{Recompute::kFull, Tiling::kAll, Offload::kEveryLayer, /*zero_stage=*/3}}) {
      const std::string where =
          absl::StrCat(NameOf(mesh), " ", ToString(choice.recompute), " ", ToString(choice.tiling),
                       " ", ToString(choice.offload));
      const auto tiled = Run(mesh, choice);
      ASSERT_TRUE(tiled.ok()) << where << ": " << tiled.status();
      EXPECT_GT(tiled->num_tiles, 1) << where;
      EXPECT_NEAR(tiled->loss, whole->loss, tolerance * whole->loss) << where;
      EXPECT_EQ(CompareGradients(tiled->gradients, whole->gradients, tolerance), "") << where;
      EXPECT_LE(tiled->predicted_bytes, whole->predicted_bytes) << where;
      ExpectPredicted(*tiled, where);
    }
  }
}

TEST_P(MemoryTest, KeysThatAreGatheredGiveTheSameNumbers) {
  const bool is_half = IsHalf(GetParam());
  const double tolerance = is_half ? 2e-2 : 1e-5;
  for (const Mesh& mesh : kMeshes) {
    if (mesh.ring == 1) continue;
    const auto passed_on = Run(mesh, {});
    ASSERT_TRUE(passed_on.ok()) << passed_on.status();
    for (const MemoryChoice& choice : {MemoryChoice{.ring_exchange = RingExchange::kAllGather},
                                       MemoryChoice{.recompute = Recompute::kFull,
                                       .tiling = Tiling::kAll,
                                       .zero_stage = 3,
                                       .ring_exchange = RingExchange::kAllGather}}) {
      const std::string where = absl::StrCat(NameOf(mesh), " ", ToString(choice.recompute));
      const auto gathered = Run(mesh, choice);
      ASSERT_TRUE(gathered.ok()) << where << ": " << gathered.status();
      EXPECT_NEAR(gathered->loss, passed_on->loss, tolerance * passed_on->loss) << where;
      EXPECT_EQ(CompareGradients(gathered->gradients, passed_on->gradients, tolerance), "")
          << where;
      ExpectPredicted(*gathered, where);
    }
  }
}

// Calls of an op that no loop over tiles is around.
int64_t CallsOfWhole(const std::vector<Instruction>& body, std::string_view op) {
  int64_t count = 0;
  for (const Instruction& instruction : body) {
    const bool is_tiles =
        instruction.kind == InstructionKind::kFor && instruction.op == AxisName(Axis::kTile);
    count += instruction.op == op ? 1 : 0;
    if (!is_tiles) count += CallsOfWhole(instruction.body, op);
  }
  return count;
}

// The router, a softmax over experts, is left whole; what it chooses is not.
TEST(TilesOfExpertsTest, ProductsOfExpertsRunInTiles) {
  auto zoo = ZooModel::Load("qwen3_moe");
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  for (const Tiling tiling : {Tiling::kNone, Tiling::kAll}) {
    JobSpec job = (*zoo)->Job(2, 64);
    job.memory.tiling = tiling;
    Program program;
    auto ranks = (*zoo)->Start(job, {1, 1, 1, 2}, &program);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    const std::vector<Instruction>& step = program.FindSection("step")->body;
    for (const char* op : {"autosp.expert_mm", "autosp.expert_mm_weight_grad"}) {
      EXPECT_EQ(CallsOfWhole(step, op) > 0, tiling == Tiling::kNone) << op;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Zoo, MemoryTest,
                         testing::Values("llama", "gpt2", "gpt2_dropout", "bert", "mistral",
                                         "llama_bf16", "qwen3_moe"),
                         [](const testing::TestParamInfo<const char*>& info) {
                           return std::string(info.param);
                         });

}  // namespace
}  // namespace autosp
