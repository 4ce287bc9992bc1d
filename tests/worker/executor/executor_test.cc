#include "worker/executor/executor.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/worker/executor/virtual_ranks.h"
#include "worker/executor/device_memory.h"

namespace autosp {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<VirtualRanks>> Ranks(const std::string& text,
                                                    const NamedTensors& weights = {},
                                                    int64_t budget_bytes = 0) {
  auto program = ParseProgram(text);
  if (!program.ok()) return program.status();
  return VirtualRanks::Create(*program, weights, {.device_budget_bytes = budget_bytes});
}

// Runs section `s` of a program of one rank and gives its output "out".
absl::StatusOr<at::Tensor> RunOne(const std::string& section, const NamedTensors& feeds = {},
                                  const NamedTensors& weights = {},
                                  const std::string& declarations = "") {
  auto ranks = Ranks("program \"t\" {\n mesh accum=1 dp=1 ring=1 ulysses=1\n" + declarations +
                         "\n section s {\n" + section + "\n}\n}",
                     weights);
  if (!ranks.ok()) return ranks.status();
  auto results = (*ranks)->Run("s", feeds);
  if (!results.ok()) return results.status();
  return (*results)[0].outputs["out"];
}

std::string ErrorOf(const absl::Status& status) { return std::string(status.message()); }

TEST(ExecutorTest, CallsOpsWithLiteralsOfEveryKind) {
  const at::Tensor x = at::randn({2, 3, 4});
  const auto out = RunOne(R"(
    %x = feed "x"() : f32[2, 3, 4] ; forward
    %m = call aten.mean.dim(%x, [-1], true, none) : f32[2, 3, 1] ; forward
    %d = call aten.sub.Tensor(%x, %m, 2) : f32[2, 3, 4] ; forward
    %h = call aten._to_copy.default(%d, bf16, none, none, none, false, none)
        : bf16[2, 3, 4] ; forward
    %f = call aten._to_copy.default(%h, f32, none, none, none, false, !contiguous_format)
        : f32[2, 3, 4] ; forward
    %g = call aten.gelu.default(%f, "tanh") : f32[2, 3, 4] ; forward
    %n = call aten.mul.Tensor(%g, 0.5) : f32[2, 3, 4] ; forward
    %c = call aten.cat.default([%n, %x], 1) : f32[2, 6, 4] ; forward
    output "out"(%c) ; forward)",
                          {{"x", x}});
  ASSERT_TRUE(out.ok()) << out.status();
  const at::Tensor d = x.sub(x.mean({-1}, true), 2).to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(out->equal(at::cat({at::gelu(d, "tanh").mul(0.5), x}, 1)));
}

// Attention of 4 tokens to themselves, with `hop` from a loop.
absl::StatusOr<at::Tensor> AttendInALoop(const at::Tensor& x, int64_t count,
                                         const std::string& hop) {
  return RunOne(
      "%x = feed \"x\"() : f32[1, 1, 4, 8] ; forward\n"
      "%acc = feed \"zeros\"() : f32[1, 1, 4, 8] ; forward\n"
      "%lse = feed \"low\"() : f32[1, 1, 4] ; forward\n"
      "for hop {count=" +
          std::to_string(count) +
          "} {\n"
          "  update autosp.attend_block_(%acc, %lse, %x, %x, %x, none, none, " +
          hop +
          ") {axes=\"ring\", causal=true, factor=\"seq\", scale=0.5, window=0} ; forward\n"
          "}\n"
          "output \"out\"(%acc) ; forward",
      {{"x", x}, {"zeros", at::zeros({1, 1, 4, 8})}, {"low", at::full({1, 1, 4}, -INFINITY)}}, {},
      "factor seq = 4 zigzag");
}

TEST(ExecutorTest, LoopVariablesAreArgumentsOfOurOps) {
  const at::Tensor x = at::randn({1, 1, 4, 8});
  const auto out = AttendInALoop(x, 1, "\"hop\"");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(
      at::allclose(*out, at::scaled_dot_product_attention(x, x, x, {}, 0, true, 0.5), 1e-5, 1e-6));
  EXPECT_THAT(ErrorOf(AttendInALoop(x, 2, "\"hop\"").status()),
              HasSubstr("hop (1) must be less than the number of hops, 1"));
  EXPECT_THAT(ErrorOf(AttendInALoop(x, 1, "\"hops\"").status()),
              HasSubstr("argument 7 ('hops') is not the variable of an enclosing for"));
}

TEST(ExecutorTest, NumbersForTensorsDoNotPromote) {
  const auto out = RunOne(R"(
    %x = feed "x"() : bf16[3] ; forward
    %y = call aten.mul.Tensor(%x, 3) : bf16[3] ; forward
    %z = call aten.add.Tensor(%y, 0.25, 2) : bf16[3] ; forward
    output "out"(%z) ; forward)",
                          {{"x", at::ones({3}, at::kBFloat16)}});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(out->equal(at::full({3}, 3.5, at::kBFloat16)));
}

TEST(ExecutorTest, OptionalTensorListsAndManyResults) {
  const at::Tensor x = at::arange(12).reshape({3, 4}).to(at::kFloat);
  const auto out = RunOne(R"(
    %x = feed "x"() : f32[3, 4] ; forward
    %i = feed "i"() : i64[2] ; forward
    %y = call aten.index.Tensor(%x, [none, %i]) : f32[3, 2]{strides=1,3} ; forward
    %a, %b = call aten.split.Tensor(%y, 1, 1) : f32[3, 1], f32[3, 1] ; forward
    %z = call aten.sub.Tensor(%b, %a) : f32[3, 1] ; forward
    output "out"(%z) ; forward)",
                          {{"x", x}, {"i", at::tensor({0, 3}, at::kLong)}});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(out->equal(at::full({3, 1}, 3.0)));
}

TEST(ExecutorTest, ResultsComeInTheDeclaredLayoutAndDoNotShareMemory) {
  auto ranks = Ranks(R"(program "t" {
    mesh accum=1 dp=1 ring=1 ulysses=1
    section s {
      %x = feed "x"() : f32[2, 3] ; forward
      %t = call aten.t.default(%x) : f32[3, 2] ; forward
      %u = call aten.mul.Tensor(%t, 2) : f32[3, 2]{strides=1,3} ; forward
      %v = call aten.view.default(%x, [6]) : f32[6] ; forward
      update aten.zero_.default(%x) ; forward
      output "t"(%t) ; forward
      output "u"(%u) ; forward
      output "v"(%v) ; forward
    } })");
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const at::Tensor x = at::randn({2, 3});
  const auto results = (*ranks)->Run("s", {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();
  const SectionResult& result = (*results)[0];
  EXPECT_EQ(result.num_unshared, 2);   // t and v would have been views.
  EXPECT_EQ(result.num_conformed, 1);  // u is declared column-major.
  EXPECT_TRUE(result.outputs.at("t").equal(x.t()));
  EXPECT_EQ(result.outputs.at("u").strides(), at::IntArrayRef({1, 3}));
  EXPECT_TRUE(result.outputs.at("v").equal(x.view({6})));
}

TEST(ExecutorTest, AliasesAreViewsOfTheStorage) {
  const at::Tensor x = at::arange(24).reshape({2, 3, 4}).to(at::kFloat);
  const auto out = RunOne(R"(
    %x = feed "x"() : f32[2, 3, 4] ; forward
    %t = alias aten.transpose.int(%x, 1, 2) : f32[2, 4, 3]{strides=12,1,4} ; forward
    %s = alias aten.select.int(%t, 0, 1) : f32[4, 3]{strides=1,4 offset=12} ; forward
    update aten.mul_.Tensor(%s, 10) ; forward
    output "out"(%x) ; forward)",
                          {{"x", x}});
  ASSERT_TRUE(out.ok()) << out.status();
  at::Tensor expected = x.clone();
  expected[1].mul_(10);
  EXPECT_TRUE(out->equal(expected));
}

TEST(ExecutorTest, LoopsMoveTheOffsetOfAliasesAndAccumulate) {
  const at::Tensor x = at::arange(12).reshape({4, 3}).to(at::kBFloat16);
  const auto out = RunOne(R"(
    %x = feed "x"() : bf16[4, 3] ; forward
    for tile {count=4} {
      %row = alias aten.select.int(%x, 0, 0) : bf16[3]{strides=- offset=0+3*tile} ; forward
      accumulate(%sum, %row) ; forward
      free(%row) ; forward
    }
    output "out"(%sum) ; forward)",
                          {{"x", x}}, {}, "state %sum \"sum\" : f32[3]");
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(out->equal(x.to(at::kFloat).sum(0)));
}

TEST(ExecutorTest, CopyChangesDtypeAndLayout) {
  const at::Tensor x = at::randn({2, 3});
  const auto out = RunOne(R"(
    %x = feed "x"() : f32[2, 3] ; forward
    %y = copy(%x) : bf16[2, 3]{strides=1,2} ; forward
    output "out"(%y) ; forward)",
                          {{"x", x}});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_TRUE(out->equal(x.to(at::kBFloat16)));
  EXPECT_EQ(out->strides(), at::IntArrayRef({1, 2}));
}

// silu(x * w) summed; its gradients, with frees between.
constexpr char kTapedProgram[] = R"(program "t" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  param %w "w" alias="tied" : f32[4]
  state %gw "grad:w" : f32[4]
  section s {
    %x = feed "x"() : f32[2, 3, 4] ; forward
    %p, %tp = record aten.mul.Tensor(%x, %w) {diff=[0, 1], saves=[%x, %w]}
        : f32[2, 3, 4], tape ; forward
    %y, %ty = record aten.silu.default(%p) {diff=[0], saves=[%p]} : f32[2, 3, 4], tape ; forward
    %l, %tl = record aten.sum.default(%y, none) {diff=[0], saves=values[]} : f32[], tape ; forward
    output "loss"(%l) ; forward
    %g = call aten.ones_like.default(%l, none, none, none, none, none) : f32[] ; backward
    %dy = vjp(%tl, %g) {saved=values[]} : f32[2, 3, 4] ; backward
    free(%tl, %l, %g, %y) ; backward
    %dp = vjp(%ty, %dy) {saved=[%p]} : f32[2, 3, 4] ; backward
    free(%ty, %dy, %p) ; backward
    %dx, %dw = vjp(%tp, %dp) {saved=[%x, %w]} : f32[2, 3, 4], f32[4] ; backward
    free(%tp, %dp, %x) ; backward
    accumulate(%gw, %dw) ; backward
    output "dx"(%dx) ; backward
    free(%dx, %dw) ; backward
  } })";

TEST(ExecutorTest, RecordsAndDifferentiates) {
  const NamedTensors weights = {{"w", at::randn({4})}};
  auto ranks = Ranks(kTapedProgram, weights);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const at::Tensor x = at::randn({2, 3, 4});
  const auto results = (*ranks)->Run("s", {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();

  const at::Tensor lx = x.clone().requires_grad_(true);
  const at::Tensor lw = weights.at("w").clone().requires_grad_(true);
  const at::Tensor loss = at::silu(lx * lw).sum();
  const auto expected = torch::autograd::grad({loss}, {lx, lw});
  EXPECT_TRUE((*results)[0].outputs.at("loss").equal(loss.detach()));
  EXPECT_TRUE((*results)[0].outputs.at("dx").equal(expected[0]));
  EXPECT_TRUE((*ranks)->Whole("grad:w")->equal(expected[1]));
  EXPECT_TRUE((*ranks)->executor(0).Get("tied")->equal(weights.at("w")));
  // Parameters and gradients alone are left: 2 x 4 floats.
  EXPECT_EQ((*results)[0].memory.at(Account::kDevice).live_bytes, 2 * 4 * 4);
}

TEST(ExecutorTest, TheProfileListsWhatRan) {
  auto ranks = Ranks(kTapedProgram, {{"w", at::randn({4})}});
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  Executor& executor = (*ranks)->executor(0);
  EXPECT_EQ(executor.ProfileText(), "");
  executor.EnableProfile();
  ASSERT_TRUE((*ranks)->Run("s", {{"x", at::randn({2, 3, 4})}}).ok());
  EXPECT_THAT(executor.ProfileText(), ContainsRegex("\n +1 .*forward record aten.silu.default"));
  EXPECT_THAT(executor.ProfileText(), HasSubstr("backward vjp"));
  // The first of several runs warmed up.
  for (int i = 0; i < 2; ++i) ASSERT_TRUE((*ranks)->Run("s", {{"x", at::randn({2, 3, 4})}}).ok());
  EXPECT_THAT(executor.ProfileText(), ContainsRegex("\n +2 .*forward record aten.silu.default"));
}

TEST(ExecutorTest, ATrainingStepMovesParametersByScalars) {
  auto ranks = Ranks(R"(program "t" {
    mesh accum=1 dp=1 ring=1 ulysses=1
    param %w "w" : bf16[3]
    state %m "master:w" copy_of="w" : f32[3]
    state %g "grad:w" : f32[3]
    scalar %lr "learning_rate" : f32[]
    section step {
      %x = feed "x"() : f32[3] ; forward
      accumulate(%g, %x) ; backward
      %n = call autosp.grad_norm([%g]) : f32[] ; optimizer
      output "grad_norm"(%n) ; optimizer
      update autosp.clip_([%g], %n) {max_norm=1.0} ; optimizer
      update autosp.sgd_([%w], [%g], none, %lr, [%m]) ; optimizer
      update aten.zero_.default(%g) ; optimizer
      free(%n, %x) ; optimizer
    } })",
                     {{"w", at::full({3}, 1.0009765625)}});
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  ASSERT_TRUE((*ranks)->SetScalar("learning_rate", 0.5).ok());
  const auto results = (*ranks)->Run("step", {{"x", at::tensor({0.0F, 3.0F, 4.0F})}});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].Number("grad_norm").value(), 5);
  // The master keeps the digits that bf16 rounds away.
  const at::Tensor master = *(*ranks)->executor(0).Get("master:w");
  const at::Tensor expected = at::full({3}, 1.0009765625) - 0.5 * at::tensor({0.0F, 0.6F, 0.8F});
  EXPECT_TRUE(at::allclose(master, expected, 1e-6, 1e-6));
  EXPECT_TRUE((*ranks)->executor(0).Get("w")->equal(master.to(at::kBFloat16)));
  EXPECT_THAT(ErrorOf((*ranks)->SetScalar("temperature", 1)), HasSubstr("no scalar 'temperature'"));
  EXPECT_THAT(ErrorOf((*results)[0].Number("loss").status()), HasSubstr("no output 'loss'"));
}

TEST(ExecutorErrorTest, NamesTheInstructionThatCannotBePrepared) {
  EXPECT_THAT(ErrorOf(RunOne("%y = call aten.frobnicate.default() : f32[3] ; forward").status()),
              HasSubstr("%y = call aten.frobnicate.default() : f32[3]: libtorch has no op"));
  EXPECT_THAT(ErrorOf(RunOne("%y = call autosp.frobnicate() : f32[3] ; forward").status()),
              HasSubstr("autosp.frobnicate() : f32[3]: no op of that name is built in"));
  EXPECT_THAT(ErrorOf(RunOne("%y = call aten.ones.default() : f32[3] ; forward").status()),
              HasSubstr("argument 'size' of aten::ones is missing"));
}

TEST(ExecutorErrorTest, NamesTheInstructionThatFailsAndItsSource) {
  const auto out = RunOne(R"(
    %x = feed "x"() : f32[3] ; forward
    %y = call aten.view.default(%x, [2, 2]) : f32[2, 2] ; forward @ "model.mlp" "model.py:7")",
                          {{"x", at::zeros({3})}});
  EXPECT_THAT(ErrorOf(out.status()), HasSubstr("%y = call aten.view.default(%x, [2, 2])"));
  EXPECT_THAT(ErrorOf(out.status()), HasSubstr("[model.mlp at model.py:7]: "));
  EXPECT_THAT(ErrorOf(out.status()), HasSubstr("shape '[2, 2]' is invalid"));
}

TEST(ExecutorErrorTest, ChecksDeclaredTypes) {
  EXPECT_THAT(ErrorOf(RunOne(R"(
    %x = feed "x"() : f32[3] ; forward
    %y = call aten.neg.default(%x) : bf16[3] ; forward)",
                             {{"x", at::zeros({3})}})
                          .status()),
              HasSubstr("the op made Float[3] where the program declares BFloat16[3]"));
}

TEST(ExecutorErrorTest, RefusesValuesThatAreNotLive) {
  const std::string section = R"(
    %x = feed "x"() : f32[3] ; forward
    free(%x) ; forward
    )";
  const NamedTensors feeds = {{"x", at::zeros({3})}};
  EXPECT_THAT(
      ErrorOf(
          RunOne(section + "%y = call aten.neg.default(%x) : f32[3] ; forward", feeds).status()),
      HasSubstr("is not live"));
  EXPECT_THAT(ErrorOf(RunOne(section + "free(%x) ; forward", feeds).status()),
              HasSubstr("%x is not live"));
}

TEST(ExecutorErrorTest, OutOfMemorySaysWhatFilledIt) {
  auto ranks = Ranks(R"(program "t" {
    mesh accum=1 dp=1 ring=1 ulysses=1
    param %w "w" : f32[100]
    section s {
      %x = feed "x"() : f32[500] ; forward
      %y = call aten.neg.default(%x) : f32[500] ; forward @ "model.mlp" "model.py:3"
      %z = call aten.cat.default([%x, %y], 0) : f32[1000] ; forward @ "model.head" "model.py:9"
    } })",
                     {{"w", at::zeros({100})}}, 7000);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const auto results = (*ranks)->Run("s", {{"x", at::zeros({500})}});
  ASSERT_FALSE(results.ok());
  EXPECT_EQ(results.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message = ErrorOf(results.status());
  EXPECT_THAT(message, HasSubstr("%z = call aten.cat.default"));
  EXPECT_THAT(message, HasSubstr("4000 bytes wanted, 4400 bytes live, budget 7000 bytes"));
  EXPECT_THAT(message, HasSubstr("%y 2000 bytes [model.mlp at model.py:3]"));
  EXPECT_THAT(message, HasSubstr("%w 400 bytes (w)"));
  // What was live has gone; the rank could go on with a smaller program.
  EXPECT_EQ((*ranks)->device_memory(0).live_bytes(), 400);
}

TEST(ExecutorErrorTest, WeightsMustHaveTheSizesOfTheProgram) {
  const std::string text =
      "program \"t\" {\n mesh accum=1 dp=1 ring=1 ulysses=1\n param %w \"w\" : f32[4]\n}";
  EXPECT_THAT(ErrorOf(Ranks(text, {{"w", at::zeros({5})}}).status()),
              HasSubstr("w: the tensor is [5], the program has [4]"));
  EXPECT_THAT(ErrorOf(Ranks(text).status()), HasSubstr("w: no weights for 'w'"));
}

}  // namespace
}  // namespace autosp
