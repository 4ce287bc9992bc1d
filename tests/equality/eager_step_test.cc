// The graph as it was exported, run op by op, computes what PyTorch computed: loss and gradients.
// No plan is involved; plans are held against these runs (autosp-cli verify, tests/random_graphs).
#include "worker/verify/eager_step.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/planner/exported_graph.h"
#include "tests/common/status_matchers.h"
#include "tests/equality/case_jobs.h"
#include "worker/verify/rounding_noise.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

// By first name, as the run has them.
NamedTensors GradientsByFirstName(const Graph& graph, const NamedTensors& reference,
                                  const EagerStep& step) {
  NamedTensors gradients;
  for (const auto& [name, tensor] : WithPrefix(reference, "grad.")) {
    for (const GraphInput& input : graph.inputs) {
      const bool is_alias = std::ranges::count(input.aliases, name) > 0;
      if (input.name != name && !is_alias) continue;
      const auto found = step.gradients.find(input.name);
      if (found != step.gradients.end()) gradients[name] = found->second;
    }
  }
  return gradients;
}

// "" where loss and gradients are PyTorch's.
std::string Compare(const ZooModel& zoo, const JobSpec& job, const std::string& reference_path) {
  const auto reference = ReadSafetensors(ZooPath(reference_path));
  if (!reference.ok()) return reference.status().ToString();
  const auto exported = MakeExportedGraph(zoo.model(), job);
  if (!exported.ok()) return exported.status().ToString();
  MapWeights weights(zoo.weights());
  const auto step =
      RunEagerly(exported->graph, job.model, weights, WithPrefix(*reference, "input."));
  if (!step.ok()) return step.status().ToString();
  const double expected = reference->at("loss").item<double>();
  if (!(std::abs(step->loss - expected) <= 1e-6 * std::abs(expected))) {
    return absl::StrCat("loss ", step->loss, ", expected ", expected);
  }
  return CompareGradients(GradientsByFirstName(exported->graph, *reference, *step),
                          WithPrefix(*reference, "grad."), 1e-5);
}

struct ModelCase {
  const char* name;
  const char* reference;
  int64_t batch;
  int64_t seq_len;
};

TEST(EagerStepTest, ModelsAreThoseOfPyTorch) {
  const ModelCase kCases[] = {
      {"llama", "llama/reference.safetensors", 2, 32},
      {"llama", "llama/reference_b1_s64.safetensors", 1, 64},
      {"llama_static", "llama/reference.safetensors", 2, 32},
      {"llama_mask", "llama_mask/reference.safetensors", 2, 32},
      {"gpt2", "gpt2/reference.safetensors", 2, 32},
      {"bert", "bert/reference.safetensors", 2, 32},
      {"plain", "plain/reference.safetensors", 2, 32},
      {"plain", "plain/reference_b1_s64.safetensors", 1, 64},
  };
  for (const ModelCase& c : kCases) {
    SCOPED_TRACE(absl::StrCat(c.name, " ", c.batch, " x ", c.seq_len));
    ASSERT_OK_AND_ASSIGN(const auto zoo, ZooModel::Load(c.name));
    EXPECT_EQ(Compare(*zoo, zoo->Job(c.batch, c.seq_len), c.reference), "");
  }
}

TEST(EagerStepTest, CasesAreThoseOfPyTorch) {
  for (const std::string& name : ZooFolders("cases")) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(const auto zoo, ZooModel::Load("cases/" + name));
    JobSpec job = zoo->Job(4, 16);
    FeedCaseInputs(zoo->model(), &job);
    EXPECT_EQ(Compare(*zoo, job, absl::StrCat("cases/", name, "/reference_b4_s16.safetensors")),
              "");
  }
}

TEST(EagerStepTest, ResizesOnlyWhereTheJobHasOtherSizes) {
  ASSERT_OK_AND_ASSIGN(const auto zoo, ZooModel::Load("llama_static"));
  ASSERT_OK_AND_ASSIGN(const ExportedGraph same, MakeExportedGraph(zoo->model(), zoo->Job(2, 32)));
  EXPECT_FALSE(same.is_resized);
  EXPECT_EQ(PrintGraph(same.graph), PrintGraph(zoo->model().graph));
  for (const auto& [batch, seq_len] : {std::pair<int64_t, int64_t>{1, 32}, {2, 64}}) {
    ASSERT_OK_AND_ASSIGN(const ExportedGraph other,
                         MakeExportedGraph(zoo->model(), zoo->Job(batch, seq_len)));
    EXPECT_TRUE(other.is_resized);
  }
}

// Gradients of what is not trained are not made.
TEST(EagerStepTest, FrozenParametersHaveNoGradient) {
  ASSERT_OK_AND_ASSIGN(const auto zoo, ZooModel::Load("llama"));
  JobSpec job = zoo->Job(2, 32);
  ASSERT_OK_AND_ASSIGN(const NamedTensors reference,
                       ReadSafetensors(ZooPath("llama/reference.safetensors")));
  const NamedTensors inputs = WithPrefix(reference, "input.");
  MapWeights weights(zoo->weights());
  ASSERT_OK_AND_ASSIGN(const EagerStep all,
                       RunEagerly(zoo->model().graph, job.model, weights, inputs));
  job.model.frozen = {"model.layers.0.**"};
  ASSERT_OK_AND_ASSIGN(const EagerStep step,
                       RunEagerly(zoo->model().graph, job.model, weights, inputs));
  EXPECT_EQ(all.gradients.size() - step.gradients.size(), 9);
  EXPECT_LT(step.grad_norm, all.grad_norm);
  EXPECT_EQ(step.loss, all.loss);
}

// Zeros stand for it: a plan has none, or zeros.
TEST(EagerStepTest, ParametersOfWhichOnlyTheTypeIsReadAreNamed) {
  ASSERT_OK_AND_ASSIGN(const auto zoo, ZooModel::Load("cases/types_of_others"));
  JobSpec job = zoo->Job(4, 16);
  FeedCaseInputs(zoo->model(), &job);
  ASSERT_OK_AND_ASSIGN(const ExportedGraph exported, MakeExportedGraph(zoo->model(), job));
  ASSERT_OK_AND_ASSIGN(
      const NamedTensors reference,
      ReadSafetensors(ZooPath("cases/types_of_others/reference_b4_s16.safetensors")));
  MapWeights weights(zoo->weights());
  ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(exported.graph, job.model, weights,
                                                        WithPrefix(reference, "input.")));
  EXPECT_THAT(step.without_gradient, testing::ElementsAre("kind"));
  EXPECT_TRUE(step.gradients.contains("kind"));
}

Program ProgramThatDraws(int64_t number, int64_t elements) {
  Program program;
  ProgramValue value;
  value.dims = {{{.size = elements}}};
  program.values.push_back(value);
  Instruction draw;
  draw.results = {ValueId{0}};
  draw.attributes = {{"node", SymInt(number)}};
  program.sections.push_back({.name = "step", .body = {draw}});
  return program;
}

// A plan that keeps tokens which the model cuts off drops elements of more of them.
TEST(EagerStepTest, DrawsOfOtherElementsAreNamed) {
  ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(R"(graph "g" {
  input %x "x" : f32[2, 3]
  %y = aten.dropout.default(%x, 0.5, true, 7) : f32[2, 3]
  return %y
})"));
  EXPECT_EQ(WhyNotComparable(graph, ProgramThatDraws(7, 6)), "");
  EXPECT_EQ(WhyNotComparable(graph, ProgramThatDraws(6, 8)), "");
  EXPECT_THAT(WhyNotComparable(graph, ProgramThatDraws(7, 8)),
              HasSubstr("draws 6 random numbers, and the plan 8"));
}

// Half precision, computed in fp32: exactly, or rounded where the graph says so.
TEST(EagerStepTest, RoundsWhereItIsAsked) {
  ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[1]
  %h = aten.to.dtype(%w, bf16, false, false, none) : bf16[1]
  %f = aten.to.dtype(%h, f32, false, false, none) : f32[1]
  %s = aten.mul.Tensor(%f, 1.001) : f32[1]
  %y = aten.sum.default(%s, none) : f32[]
  return %y
})"));
  Graph trained = graph;
  trained.inputs[0].requires_grad = true;
  const float number = 1.00390625F - 0x1p-20F;  // rounds to 1 or 1.0078125
  const NamedTensors whole = {{"w", at::ones({1}).mul(number)}};
  MapWeights weights(whole);
  const auto loss = [&](EagerTypes types) {
    const auto step = RunEagerly(trained, ModelSpec(), weights, {}, {.types = types});
    EXPECT_TRUE(step.ok()) << step.status();
    return step.ok() ? step->loss : 0;
  };
  EXPECT_NEAR(loss(EagerTypes::kExact), number * 1.001, 1e-7);
  EXPECT_NEAR(loss(EagerTypes::kRounded), 1.001, 1e-7);
  EXPECT_EQ(loss(EagerTypes::kRounded), loss(EagerTypes::kDeclared));
  EXPECT_EQ(loss(EagerTypes::kRoundedToBf16), 1);
}

// As ATen has it: 0.6 is 0.6015625 in bf16, which is not above itself.
TEST(EagerStepTest, NumbersThatHalvesAreComparedWithAreRounded) {
  ASSERT_OK_AND_ASSIGN(Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[1]
  %h = aten.to.dtype(%w, bf16, false, false, none) : bf16[1]
  %c = aten.gt.Scalar(%h, 0.6) : bool[1]
  %f = aten.to.dtype(%c, f32, false, false, none) : f32[1]
  %s = aten.mul.Tensor(%w, %f) : f32[1]
  %y = aten.sum.default(%s, none) : f32[]
  return %y
})"));
  graph.inputs[0].requires_grad = true;
  const NamedTensors whole = {{"w", at::ones({1}).mul(0.6015625)}};
  MapWeights weights(whole);
  for (const EagerTypes types : {EagerTypes::kDeclared, EagerTypes::kRounded}) {
    ASSERT_OK_AND_ASSIGN(const EagerStep step,
                         RunEagerly(graph, ModelSpec(), weights, {}, {.types = types}));
    EXPECT_EQ(step.loss, 0);
  }
}

// A random number just below 1 must not become 1, of which 1 - u has no logarithm.
TEST(EagerStepTest, RoundsWhatIsMadeOfParametersAlone) {
  ASSERT_OK_AND_ASSIGN(Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[1]
  buffer %b "b" : f32[1]
  %c = aten.mul.Tensor(%b, 1.0) : f32[1]
  %f = aten.floor.default(%c) : f32[1]
  %s = aten.add.Tensor(%w, %f, 1) : f32[1]
  %y = aten.sum.default(%s, none) : f32[]
  return %y
})"));
  graph.inputs[0].requires_grad = true;
  const NamedTensors whole = {{"w", at::ones({1})}, {"b", at::ones({1}).mul(0.9999)}};
  MapWeights weights(whole);
  ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(graph, ModelSpec(), weights, {},
                                                        {.types = EagerTypes::kRoundedToBf16}));
  EXPECT_EQ(step.loss, 1);
}

// A bias before a difference: its gradient is zero whatever the weights are, and what is left of it
// depends on the order of its terms. A gradient that is none of such keeps its digits.
TEST(EagerStepTest, MovedGradientsShowWhatRoundingLeavesOfTermsThatCancel) {
  ASSERT_OK_AND_ASSIGN(Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[64]
  param %b "b" : f32[1]
  buffer %s "sign" : f32[64]
  %a = aten.add.Tensor(%w, %b, 1) : f32[64]
  %p = aten.mul.Tensor(%a, %s) : f32[64]
  %y = aten.sum.default(%p, none) : f32[]
  return %y
})"));
  for (GraphInput& input : graph.inputs) input.requires_grad = input.name != "sign";
  const at::Tensor sign = at::ones({64});
  sign.slice(0, 0, 64, 2).neg_();
  const NamedTensors whole = {{"w", at::ones({64})}, {"b", at::ones({1})}, {"sign", sign}};
  MapWeights weights(whole);
  ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(graph, ModelSpec(), weights, {}));
  EXPECT_EQ(step.gradients.at("b").item<double>(), 0);
  const auto noise_of = [&](bool moves_gradients) {
    const auto run = [&, seed = uint64_t{0}](WeightSource& moved) mutable {
      const std::optional<uint64_t> own = seed++;
      return RunEagerly(graph, ModelSpec(), moved, {},
                        {.moved_gradients = moves_gradients ? own : std::nullopt});
    };
    const auto noise = MeasureRoundingNoise(weights, step, run);
    EXPECT_TRUE(noise.ok()) << noise.status();
    return noise.value_or(RoundingNoise());
  };
  EXPECT_EQ(noise_of(false).gradients.at("b"), 0);
  const RoundingNoise noise = noise_of(true);
  // Of a hundredth of the largest, which is 1: 64 terms of 1, each off by a part of 6e-8.
  EXPECT_GT(noise.gradients.at("b"), 1e-5);
  EXPECT_LT(noise.gradients.at("b"), 1e-3);
  EXPECT_LT(noise.gradients.at("w"), 1e-6);
}

// The mean of advantages, of sums of an input: whatever the weight is, it is what rounding leaves.
TEST(EagerStepTest, MovedValuesShowWhatRoundingLeavesOfALoss) {
  ASSERT_OK_AND_ASSIGN(Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[1]
  input %x "x" : f32[8, 64]
  %r = aten.sum.dim_IntList(%x, [1], false, none) : f32[8]
  %m = aten.mean.default(%r, none) : f32[]
  %a = aten.sub.Tensor(%r, %m, 1) : f32[8]
  %p = aten.mul.Tensor(%a, %w) : f32[8]
  %y = aten.mean.default(%p, none) : f32[]
  return %y
})"));
  graph.inputs[0].requires_grad = true;
  const NamedTensors whole = {{"w", at::ones({1})}};
  MapWeights weights(whole);
  const auto noise_of = [&](bool moves_values) {
    const NamedTensors inputs = {{"x", at::arange(512).view({8, 64}) * 0.1}};
    const auto expected = RunEagerly(graph, ModelSpec(), weights, inputs);
    EXPECT_TRUE(expected.ok()) << expected.status();
    const auto run = [&, seed = uint64_t{0}](WeightSource& moved) mutable {
      const std::optional<uint64_t> own = seed++;
      return RunEagerly(graph, ModelSpec(), moved, inputs,
                        {.moved_values = moves_values ? own : std::nullopt});
    };
    const auto noise = MeasureRoundingNoise(weights, expected.value_or(EagerStep()), run);
    EXPECT_TRUE(noise.ok()) << noise.status();
    return noise.value_or(RoundingNoise()).loss_apart;
  };
  // Sums of up to 3,000 of which a last bit is 1e-4, and advantages of 1,600 at most.
  EXPECT_LT(noise_of(false), 1e-5);
  EXPECT_GT(noise_of(true), 1e-5);
  EXPECT_LT(noise_of(true), 1e-3);
}

// Export leaves `contiguous` out where PyTorch lays a result out so that nothing is to copy.
TEST(EagerStepTest, ViewsThatStridesDoNotAllowAreCopies) {
  ASSERT_OK_AND_ASSIGN(Graph graph, ParseGraph(R"(graph "g" {
  param %w "w" : f32[2, 3]
  buffer %c "c" : f32[6]
  %t = aten.permute.default(%w, [1, 0]) : f32[3, 2]
  %v = aten.view.default(%t, [6]) : f32[6]
  %p = aten.mul.Tensor(%v, %c) : f32[6]
  %y = aten.sum.default(%p, none) : f32[]
  return %y
})"));
  graph.inputs[0].requires_grad = true;
  const NamedTensors whole = {{"w", at::arange(6).view({2, 3}).to(at::kFloat)},
                              {"c", at::arange(6).to(at::kFloat)}};
  MapWeights weights(whole);
  ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(graph, ModelSpec(), weights, {}));
  EXPECT_EQ(step.loss, 50);  // of 0, 3, 1, 4, 2, 5
  EXPECT_TRUE(at::equal(step.gradients.at("w"), whole.at("c").view({3, 2}).t()));
}

// Terms of 2 and -2, as such and as logits; half of the number is the loss.
TEST(EagerStepTest, TheMagnitudeOfWhatALossAddsIsKnown) {
  const struct {
    const char* node;
    double added;
  } kCases[] = {
      {"aten.mean.default(%w, none)", 1},
      {"aten.sum.default(%w, none)", 2},
      {"aten.binary_cross_entropy_with_logits.default(%w, %t, none, none, 1)", 1},
      {"aten.amax.default(%w, [0], false)", 0},
      {"aten.sub.Tensor(%a, %b, 1)", 2},
      {"aten.add.Tensor(%a, %b, 3)", 4},
      {"aten.mul.Tensor(%a, %b)", 0},
  };
  NamedTensors whole = {{"w", at::ones({2}) * 2}, {"t", at::ones({2})}};
  whole["w"][1] = -2;
  MapWeights weights(whole);
  for (const auto& c : kCases) {
    ASSERT_OK_AND_ASSIGN(Graph graph,
                         ParseGraph(absl::StrCat("graph \"g\" {\n  param %w \"w\" : f32[2]\n"
                                                 "  buffer %t \"t\" : f32[2]\n"
                                                 "  %a = aten.select.int(%w, 0, 0) : f32[]\n"
                                                 "  %b = aten.select.int(%w, 0, 1) : f32[]\n"
                                                 "  %n = ",
                                                 c.node,
                                                 " : f32[]\n"
                                                 "  %l = aten.mul.Tensor(%n, 0.5) : f32[]\n"
                                                 "  return %l\n}\n")));
    for (GraphInput& input : graph.inputs) input.requires_grad = input.name == "w";
    ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(graph, ModelSpec(), weights, {}));
    EXPECT_DOUBLE_EQ(step.added, c.added) << c.node;
  }
}

// Graphs that declare what ATen does not give, or that no run can repeat.
TEST(EagerStepTest, RefusesWhatIsNotAsDeclared) {
  struct Refusal {
    const char* what;
    const char* node;
    const char* message;
  };
  const Refusal kRefusals[] = {
      {"sizes", "aten.add.Tensor(%w, 1, 1) : f32[3]", "%y is Float[2] and declared as f32[3]"},
      {"type", "aten.add.Tensor(%w, 1, 1) : f64[2]", "%y is Float[2] and declared as f64[2]"},
      {"dropout", "aten.dropout.default(%w, 0.5, true) : f32[2]", "draws random numbers"},
      {"no op", "aten.nothing.default(%w) : f32[2]", "libtorch has no op aten.nothing.default"},
      {"ATen's own error", "aten.select.int(%w, 0, 7) : f32[]", "aten.select.int"},
  };
  NamedTensors whole = {{"w", at::ones({2})}};
  MapWeights weights(whole);
  for (const Refusal& c : kRefusals) {
    SCOPED_TRACE(c.what);
    ASSERT_OK_AND_ASSIGN(
        const Graph graph,
        ParseGraph(absl::StrCat("graph \"g\" {\n  param %w \"w\" : f32[2]\n  %y = ", c.node,
                                "\n  %l = aten.mean.default(%y, none) : f32[]\n"
                                "  return %l\n}\n")));
    EXPECT_THAT(RunEagerly(graph, ModelSpec(), weights, {}).status().message(),
                HasSubstr(c.message));
  }
  ASSERT_OK_AND_ASSIGN(const Graph kept,
                       ParseGraph("graph \"g\" {\n  param %w \"w\" : f32[2]\n"
                                  "  %y = aten.dropout.default(%w, 0.5, false) : f32[2]\n"
                                  "  %l = aten.mean.default(%y, none) : f32[]\n  return %l\n}\n"));
  ASSERT_OK_AND_ASSIGN(const EagerStep step, RunEagerly(kept, ModelSpec(), weights, {}));
  EXPECT_EQ(step.loss, 1);
}

}  // namespace
}  // namespace autosp
