// Collectives of programs, on virtual ranks: what each rank gets, and what is counted.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/worker/executor/virtual_ranks.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<SectionResult>> RunText(const std::string& mesh,
                                                   const std::string& section,
                                                   const NamedTensors& feeds) {
  auto program =
      ParseProgram("program \"t\" {\n mesh " + mesh +
                   "\n factor seq = 8\n factor odd = 5\n section s {\n" + section + "\n}\n}");
  if (!program.ok()) return program.status();
  auto ranks = VirtualRanks::Create(*program, {});
  if (!ranks.ok()) return ranks.status();
  return (*ranks)->Run("s", feeds);
}

constexpr char kUlysses2[] = "accum=1 dp=1 ring=1 ulysses=2";

TEST(CollectiveStepsTest, AllToAllTradesOneShardForAnother) {
  // q and k are fused, and differ in dtype and heads; batch 2 makes both packings real.
  const at::Tensor q = at::randn({2, 8, 4, 3});
  const at::Tensor k = at::randn({2, 8, 2, 3}).to(at::kBFloat16);
  const auto results = RunText(kUlysses2, R"(
    %q = feed "q"() : f32[2, seq@ulysses, 4, 3] ; forward
    %k = feed "k"() : bf16[2, seq@ulysses, 2, 3] ; forward
    %q2, %k2 = start all_to_all(%q, %k) {axes="ulysses", concat=[1, 1], split=[2, 2]}
        : f32[2, seq, 4@ulysses, 3], bf16[2, seq, 2@ulysses, 3] ; forward
    wait(%q2, %k2) ; forward
    output "q"(%q2) ; forward
    output "k"(%k2) ; forward
    %q3 = start all_to_all(%q2) {axes="ulysses", concat=[2], split=[1]}
        : f32[2, seq@ulysses, 4, 3] ; backward
    wait(%q3) ; backward
    output "back"(%q3) ; backward)",
                               {{"q", q}, {"k", k}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (int rank = 0; rank < 2; ++rank) {
    const auto& outputs = (*results)[rank].outputs;
    EXPECT_TRUE(outputs.at("q").equal(q.narrow(2, rank * 2, 2)));
    EXPECT_TRUE(outputs.at("k").equal(k.narrow(2, rank, 1)));
    EXPECT_TRUE(outputs.at("back").equal(q.narrow(1, rank * 4, 4)));
    const auto& uses = (*results)[rank].collectives;
    ASSERT_EQ(uses.size(), 2);
    EXPECT_EQ(uses[0].kind, CollectiveKind::kAllToAll);
    EXPECT_EQ(uses[0].phase, Phase::kForward);
    EXPECT_EQ(uses[0].axes, AxisList{Axis::kUlysses});
    EXPECT_EQ(uses[0].calls, 1);
    EXPECT_EQ(uses[0].bytes_received, (2 * 4 * 4 * 3 * 4 + 2 * 4 * 2 * 3 * 2) / 2);
    EXPECT_EQ(uses[1].phase, Phase::kBackward);
    EXPECT_EQ(uses[1].bytes_received, 2 * 8 * 2 * 3 * 4 / 2);
  }
}

TEST(CollectiveStepsTest, PackingIsSkippedWhereTheMemoryIsTheBuffer) {
  const at::Tensor q = at::randn({4, 8, 3});
  const auto results = RunText(kUlysses2, R"(
    %q = feed "q"() : f32[4, seq@ulysses, 3] ; forward
    %q2 = start all_to_all(%q) {axes="ulysses", concat=[1], split=[0]}
        : f32[4@ulysses, seq, 3] ; forward
    wait(%q2) ; forward
    output "q"(%q2) ; forward)",
                               {{"q", q}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (int rank = 0; rank < 2; ++rank) {
    const SectionResult& result = (*results)[rank];
    EXPECT_TRUE(result.outputs.at("q").equal(q.narrow(0, rank * 2, 2)));
    // Sent in place; received into a buffer, because dim 0 is outside of what is joined.
    EXPECT_EQ(result.memory.at(Account::kCommunication).peak_bytes, 2 * 8 * 3 * 4);
    EXPECT_EQ(result.memory.at(Account::kCommunication).live_bytes, 0);
  }
}

TEST(CollectiveStepsTest, AllGatherKeepsPaddingAndReduceScatterUndoesIt) {
  const at::Tensor x = at::arange(10).reshape({2, 5}).to(at::kFloat);
  const auto results = RunText(kUlysses2, R"(
    %x = feed "x"() {pad=-1} : f32[2, odd@ulysses] ; forward
    %all = start all_gather(%x) {axes="ulysses", dim=[1]} : f32[2, pad(odd@ulysses)] ; forward
    wait(%all) ; forward
    output "all"(%all) ; forward
    %part = start reduce_scatter(%all) {axes="ulysses", dim=[1], reduction="sum"}
        : f32[2, odd@ulysses] ; forward
    wait(%part) ; forward
    output "part"(%part) ; forward)",
                               {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();
  const at::Tensor padded = at::cat({x, at::full({2, 1}, -1.0)}, 1);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_TRUE((*results)[rank].outputs.at("all").equal(padded));
    EXPECT_TRUE((*results)[rank].outputs.at("part").equal(padded.narrow(1, rank * 3, 3) * 2));
  }
}

TEST(CollectiveStepsTest, AllReduceOverTheWholeMesh) {
  const at::Tensor x = at::randn({8});
  const auto results = RunText("accum=1 dp=2 ring=1 ulysses=2", R"(
    %x = feed "x"() : f32[seq@dp+ulysses] ; forward
    %n = call aten.sum.default(%x, none) : f32[]sum@dp+ulysses ; forward
    %m = call aten.amax.default(%x, [0], false) : f32[]max@dp+ulysses ; forward
    %c = call aten.ones_like.default(%n, none, none, none, none, none)
        : f32[]sum@dp+ulysses ; forward
    %sum, %count = start all_reduce(%n, %c) {axes="dp+ulysses", reduction="sum"}
        : f32[], f32[] ; forward
    %max = start all_reduce(%m) {axes="dp+ulysses", reduction="max"} : f32[] ; forward
    wait(%sum, %count) ; forward
    wait(%max) ; forward
    output "sum"(%sum) ; forward
    output "count"(%count) ; forward
    output "max"(%max) ; forward)",
                               {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (const SectionResult& result : *results) {
    EXPECT_NEAR(result.Number("sum").value(), x.sum().item<double>(), 1e-5);
    EXPECT_EQ(result.Number("count").value(), 4);
    EXPECT_EQ(result.Number("max").value(), x.max().item<double>());
    ASSERT_EQ(result.collectives.size(), 1);  // One kind, phase and group.
    EXPECT_EQ(result.collectives[0].calls, 2);
    EXPECT_EQ(result.collectives[0].bytes_received, 2 * 8 * 3 / 4 + 2 * 4 * 3 / 4);
  }
}

TEST(CollectiveStepsTest, AllReduceInPlaceOverAList) {
  const auto results = RunText("accum=1 dp=2 ring=1 ulysses=1", R"(
    %x = feed "x"() : f32[seq@dp] ; forward
    %b = copy(%x) : bf16[seq@dp] ; forward
    update autosp.all_reduce_(%x, %b) {axes="dp", reduction="sum"} ; reduce
    output "x"(%x) ; forward
    output "b"(%b) ; forward)",
                               {{"x", at::arange(8).to(at::kFloat)}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (const SectionResult& result : *results) {
    const at::Tensor expected = at::tensor({4.0F, 6.0F, 8.0F, 10.0F});
    EXPECT_TRUE(result.outputs.at("x").equal(expected));
    EXPECT_TRUE(result.outputs.at("b").equal(expected.to(at::kBFloat16)));
    ASSERT_EQ(result.collectives.size(), 1);
    EXPECT_EQ(result.collectives[0].calls, 2);
    EXPECT_EQ(result.collectives[0].phase, Phase::kReduce);
    EXPECT_EQ(result.collectives[0].bytes_received, 16 + 8);
    EXPECT_EQ(result.memory.at(Account::kCommunication).peak_bytes, 0);
  }
}

// Every rank doubles its part of what all of them hold, in rows and in columns.
TEST(CollectiveStepsTest, AllGatherInPlaceOfParts) {
  const at::Tensor x = at::randn({8, 6});
  const auto results = RunText("accum=1 dp=1 ring=1 ulysses=2", R"(
    %fed = feed "x"() : f32[8, 6] ; forward
    %x = copy(%fed) : f32[8, 6] ; forward
    %y = copy(%fed) : f32[8, 6] ; forward
    %rows = alias aten.slice.Tensor(%x, 0, 0, 4, 1)
        : f32[8@ulysses, 6]{strides=6,1 offset=0+24*rank.ulysses} ; optimizer
    %columns = alias aten.slice.Tensor(%y, 1, 0, 3, 1)
        : f32[8, 6@ulysses]{strides=6,1 offset=0+3*rank.ulysses} ; optimizer
    accumulate(%rows, %rows) ; optimizer
    accumulate(%columns, %columns) ; optimizer
    update autosp.all_gather_([%x, %y], [%rows, %columns]) {axes="ulysses", dim=[0, 1]} ; optimizer
    output "x"(%x) ; forward
    output "y"(%y) ; forward)",
                               {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (const SectionResult& result : *results) {
    EXPECT_TRUE(result.outputs.at("x").equal(x * 2));
    EXPECT_TRUE(result.outputs.at("y").equal(x * 2));
    ASSERT_EQ(result.collectives.size(), 1);
    EXPECT_EQ(result.collectives[0].calls, 2);
    EXPECT_EQ(result.collectives[0].bytes_received, 2 * 4 * 8 * 6 / 2);
    // Columns are no run of memory, and go through buffers.
    EXPECT_EQ(result.memory.at(Account::kCommunication).peak_bytes, 4 * (8 * 6 + 8 * 3));
  }
}

TEST(CollectiveStepsTest, RefusesPartsThatAreNone) {
  const auto results = RunText("accum=1 dp=1 ring=1 ulysses=2", R"(
    %x = feed "x"() : f32[8, 6] ; forward
    %p = alias aten.slice.Tensor(%x, 0, 0, 4, 1)
        : f32[8@ulysses, 6]{strides=6,1 offset=0+24*rank.ulysses} ; optimizer
    update autosp.all_gather_([%x], [%p]) {axes="ulysses", dim=[1]} ; optimizer)",
                               {{"x", at::zeros({8, 6})}});
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("dim 1: 2 times part 0 is not the whole"));
}

TEST(CollectiveStepsTest, SendRecvAndBroadcast) {
  const auto results = RunText("accum=1 dp=1 ring=2 ulysses=2", R"(
    %x = feed "x"() : f32[seq@ring+ulysses] ; forward
    %from = start send_recv(%x) {axes="ring+ulysses", shift=1} : f32[seq@ring+ulysses] ; forward
    %root = start broadcast(%x) {axes="ring+ulysses", root=2} : f32[seq@ring+ulysses] ; forward
    wait(%root) ; forward
    wait(%from) ; forward
    output "from"(%from) ; forward
    output "root"(%root) ; forward)",
                               {{"x", at::arange(8).to(at::kFloat)}});
  ASSERT_TRUE(results.ok()) << results.status();
  for (int rank = 0; rank < 4; ++rank) {
    const float before = 2.0F * static_cast<float>((rank + 3) % 4);
    EXPECT_TRUE((*results)[rank].outputs.at("from").equal(at::tensor({before, before + 1})));
    EXPECT_TRUE((*results)[rank].outputs.at("root").equal(at::tensor({4.0F, 5.0F})));
  }
}

TEST(CollectiveStepsTest, AGroupOfOneCopies) {
  const at::Tensor x = at::randn({8, 2});
  const auto results = RunText("accum=1 dp=1 ring=1 ulysses=1", R"(
    %x = feed "x"() : f32[seq@ulysses, 2] ; forward
    %y = start all_to_all(%x) {axes="ulysses", concat=[0], split=[1]}
        : f32[seq, 2@ulysses] ; forward
    wait(%y) ; forward
    update aten.zero_.default(%x) ; forward
    output "y"(%y) ; forward)",
                               {{"x", x}});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE((*results)[0].outputs.at("y").equal(x));
  EXPECT_EQ((*results)[0].collectives[0].bytes_received, 0);
}

TEST(CollectiveStepsTest, RefusesWhatDoesNotDivide) {
  const auto results = RunText(kUlysses2, R"(
    %x = feed "x"() : f32[seq@ulysses, 3] ; forward
    %y = start all_to_all(%x) {axes="ulysses", concat=[0], split=[1]}
        : f32[seq, 3@ulysses] ; forward
    wait(%y) ; forward)",
                               {{"x", at::zeros({8, 3})}});
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("split: dim 1 of tensor 0 does not exist or is not a multiple of 2"));
}

TEST(CollectiveStepsTest, AnErrorOfOneRankEndsTheOthers) {
  // Rank 1 has a class that does not exist, and never comes to the collective.
  const auto results =
      RunText(kUlysses2, R"(
    %t = feed "t"() : i64[seq@ulysses] ; forward
    %x = feed "x"() : f32[seq@ulysses, 3] ; forward
    %l, %c, %e = call autosp.cross_entropy_sum(%x, %t, -100)
        : f32[]sum@ulysses, f32[]sum@ulysses, f32[seq@ulysses] ; forward
    %s = start all_reduce(%l) {axes="ulysses", reduction="sum"} : f32[] ; forward
    wait(%s) ; forward)",
              {{"t", at::tensor({0, 1, 2, 0, 9, 9, 9, 9}, at::kLong)}, {"x", at::zeros({8, 3})}});
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("target %t"));
}

}  // namespace
}  // namespace autosp
