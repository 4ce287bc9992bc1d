// Three steps of SGD and of AdamW with clipping give PyTorch's losses, gradient norms and weights;
// and what is frozen stays.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <ostream>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

constexpr int kNumSteps = 3;
constexpr double kSgdRate = 0.1;
constexpr double kAdamRate = 1e-3;

struct Case {
  const char* model;
  const char* optimizer;  // "sgd" or "adamw"
  Mesh mesh;
  int64_t zero = 0;
};

std::string Name(const Case& c) {
  return absl::StrCat(c.model, "_", c.optimizer, "_d", c.mesh.dp, "r", c.mesh.ring, "u",
                      c.mesh.ulysses, "a", c.mesh.accum, c.zero == 0 ? "" : "z",
                      c.zero == 0 ? "" : absl::StrCat(c.zero));
}
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << Name(c); }

// The settings of tests/zoo/references.py.
JobSpec MakeJob(const ZooModel& zoo, const Case& c) {
  JobSpec job = zoo.Job(2, 32);
  job.training.clip_grad_norm = 1.0;
  job.parallelism.zero = c.zero;
  OptimizerSpec& optimizer = job.training.optimizer;
  const bool is_sgd = std::string(c.optimizer) == "sgd";
  optimizer.kind = is_sgd ? OptimizerKind::kSgd : OptimizerKind::kAdamW;
  optimizer.lr = is_sgd ? kSgdRate : kAdamRate;
  optimizer.betas = {0.9, 0.95};
  optimizer.eps = 1e-8;
  optimizer.weight_decay = is_sgd ? 0.0 : 0.1;
  return job;
}

// What the rank holds of a parameter; where that is a part, the parts of all ranks.
absl::StatusOr<at::Tensor> Weight(VirtualRanks& ranks, int rank, const std::string& name) {
  ASSIGN_OR_RETURN(const at::Tensor held, ranks.executor(rank).Get(name));
  ASSIGN_OR_RETURN(const at::Tensor whole, ranks.Whole(name));
  return held.sizes() == whole.sizes() ? held : whole;
}

class TrainingTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto zoo = ZooModel::Load(GetParam().model);
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference =
        ReadSafetensors(ZooPath(absl::StrCat(GetParam().model, "/reference_train.safetensors")));
    ASSERT_TRUE(reference.ok()) << reference.status();
    reference_ = *std::move(reference);
  }

  NamedTensors Batch(int step) const {
    return WithPrefix(reference_, absl::StrCat("step", step, ".input."));
  }
  double Expected(const char* what, int step) const {
    return reference_.at(absl::StrCat(GetParam().optimizer, ".", what))[step].item<double>();
  }

  // Elements that Adam moved by rounding noise may lie two full steps apart; all else as gradients.
  std::string CompareWeights(NamedTensors actual, NamedTensors expected) const {
    for (auto& [name, reference] : expected) {
      reference = reference.flatten();
      const at::Tensor ours = LikeReference(actual.at(name), reference);
      actual[name] = ours;
      const auto stable = reference_.find("adamw.stable." + name);
      if (std::string(GetParam().optimizer) == "sgd" || stable == reference_.end()) continue;
      const at::Tensor is_stable = stable->second.flatten().to(at::kBool);
      const double apart = (ours - reference).abs().max().item<double>();
      if (!(apart <= 2 * kAdamRate * kNumSteps)) return absl::StrCat(name, ": apart by ", apart);
      actual[name] = at::where(is_stable, ours, reference);
    }
    return CompareGradients(actual, expected, 1e-5);
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors reference_;
};

TEST_P(TrainingTest, GivesTheWeightsOfPyTorch) {
  const Case& c = GetParam();
  Program program;
  auto ranks = zoo_->Start(MakeJob(*zoo_, c), c.mesh, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const double rate = std::string(c.optimizer) == "sgd" ? kSgdRate : kAdamRate;
  for (int step = 0; step < kNumSteps; ++step) {
    ASSERT_TRUE((*ranks)->SetScalar("learning_rate", static_cast<float>(rate)).ok());
    ASSERT_TRUE((*ranks)->SetScalar("step", static_cast<float>(step + 1)).ok());
    auto results = (*ranks)->Run("step", Batch(step));
    ASSERT_TRUE(results.ok()) << results.status();
    for (const SectionResult& result : *results) {
      const double loss = Expected("loss", step);
      const double norm = Expected("grad_norm", step);
      EXPECT_NEAR(result.Number("loss").value(), loss, 1e-5 * loss) << "step " << step;
      EXPECT_NEAR(result.Number("grad_norm").value(), norm, 1e-5 * norm) << "step " << step;
    }
  }
  const NamedTensors expected = WithPrefix(reference_, absl::StrCat(c.optimizer, ".weight."));
  ASSERT_FALSE(expected.empty());
  for (int rank = 0; rank < (*ranks)->size(); ++rank) {
    NamedTensors weights;
    for (const auto& [name, tensor] : expected) {
      const auto canonical = zoo_->Canonical(program, name);
      ASSERT_TRUE(canonical.ok()) << canonical.status();
      const auto weight = Weight(**ranks, rank, *canonical);
      ASSERT_TRUE(weight.ok()) << weight.status();
      weights[name] = *weight;
    }
    EXPECT_EQ(CompareWeights(weights, expected), "") << "rank " << rank;
  }
}

// Every stage of ZeRO on every kind of mesh, with gradients that are accumulated too. Two times
// three ranks divide no parameter: each is split over dp, and its gradient summed over the ring as
// well.
std::vector<Case> ZeroCases() {
  std::vector<Case> cases;
  for (int64_t zero : {1, 2, 3}) {
    for (const char* optimizer : {"sgd", "adamw"}) {
      for (const Mesh& mesh : {Mesh{1, 1, 1, 2}, Mesh{1, 1, 2, 1}, Mesh{1, 2, 1, 1},
                               Mesh{1, 2, 1, 2}, Mesh{2, 1, 1, 2}, Mesh{2, 1, 2, 2}}) {
        cases.push_back({"llama", optimizer, mesh, zero});
      }
      for (const char* model : {"gpt2", "bert", "plain"}) {
        cases.push_back({model, optimizer, {.accum = 2, .dp = 1, .ring = 1, .ulysses = 2}, zero});
      }
      cases.push_back({"gpt2", optimizer, {.accum = 1, .dp = 2, .ring = 1, .ulysses = 2}, zero});
    }
  }
  return cases;
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const char* model : {"llama", "gpt2", "bert", "plain"}) {
    for (const char* optimizer : {"sgd", "adamw"}) {
      for (int64_t ulysses : {1, 2, 4}) {
        cases.push_back({model, optimizer, {.accum = 1, .dp = 1, .ring = 1, .ulysses = ulysses}});
      }
      cases.push_back({model, optimizer, {.accum = 1, .dp = 2, .ring = 1, .ulysses = 2}});
      cases.push_back({model, optimizer, {.accum = 2, .dp = 1, .ring = 1, .ulysses = 2}});
      cases.push_back({model, optimizer, {.accum = 1, .dp = 1, .ring = 4, .ulysses = 1}});
      cases.push_back({model, optimizer, {.accum = 2, .dp = 1, .ring = 2, .ulysses = 2}});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, TrainingTest, testing::ValuesIn(AllCases()),
                         [](const auto& info) { return Name(info.param); });

INSTANTIATE_TEST_SUITE_P(Zero, TrainingTest, testing::ValuesIn(ZeroCases()),
                         [](const auto& info) { return Name(info.param); });

// Frozen parameters keep their bits, have no gradient and no state; the others train as before.
class FrozenTest : public testing::TestWithParam<int64_t> {};

TEST_P(FrozenTest, FrozenParametersStay) {
  auto zoo = ZooModel::Load("llama");
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadSafetensors(ZooPath("llama/reference.safetensors"));
  ASSERT_TRUE(reference.ok()) << reference.status();
  JobSpec job = (*zoo)->Job(2, 32);
  job.model.frozen = {"model.layers.0.**", "model.embed_tokens.*"};
  job.parallelism.zero = GetParam();
  Program program;
  auto ranks = (*zoo)->Start(job, {.accum = 1, .dp = 1, .ring = 1, .ulysses = 2}, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  ASSERT_TRUE((*ranks)->SetScalar("learning_rate", 0.5F).ok());
  ASSERT_TRUE((*ranks)->SetScalar("step", 1.0F).ok());
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  int num_frozen = 0;
  int num_trained = 0;
  for (const auto& [name, before] : (*zoo)->weights()) {
    const bool is_frozen = name.starts_with("model.layers.0.") || name.starts_with("model.embed");
    const auto after = Weight(**ranks, 1, name);
    if (!after.ok()) continue;  // a buffer that nothing reads
    const auto gradient = (*ranks)->executor(1).Get("grad:" + name);
    if (!gradient.ok()) {
      EXPECT_TRUE(at::equal(*after, before)) << name;
      num_frozen += is_frozen ? 1 : 0;
      continue;
    }
    EXPECT_FALSE(is_frozen) << name;
    EXPECT_FALSE(at::equal(*after, before)) << name;
    ++num_trained;
  }
  EXPECT_EQ(num_frozen, 10);
  EXPECT_GT(num_trained, 5);
}

INSTANTIATE_TEST_SUITE_P(Stages, FrozenTest, testing::Range(int64_t{0}, int64_t{4}),
                         [](const auto& info) { return absl::StrCat("zero", info.param); });

}  // namespace
}  // namespace autosp
