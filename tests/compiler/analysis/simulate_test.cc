#include "compiler/analysis/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using testing::HasSubstr;

absl::StatusOr<SectionPrediction> Simulate(const std::string& body) {
  const auto program = ParseProgram(absl::StrCat(R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=2
  param %w "w" : f32[100]
  section step {
)",
                                                 body, "  }\n}\n"));
  if (!program.ok()) return program.status();
  return SimulateSection(*program, "step");
}

TEST(SimulateTest, AStorageLivesUntilItsLastValueIsFreed) {
  const auto prediction = Simulate(R"(    %a = call aten.neg.default(%w) : f32[100] ; forward
    %v = alias aten.view.default(%a, [10, 10]) : f32[10, 10] ; forward
    free(%a) ; forward
    %b = call aten.neg.default(%v) : f32[10, 10] ; forward
    free(%v) ; forward
    %c = call aten.neg.default(%b) : f32[10, 10] ; forward
    free(%b, %c) ; forward
)");
  ASSERT_TRUE(prediction.ok()) << prediction.status();
  const AccountPeak& peak = prediction->memory.at(Account::kDevice);
  EXPECT_EQ(peak.persistent_bytes, 400);
  EXPECT_EQ(peak.peak_bytes, 3 * 400);
}

TEST(SimulateTest, WhatLibrariesTakeIsInThePeakOfTheDevice) {
  const auto program = ParseProgram(R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  param %w "w" : f32[100]
  section step {
    %a = call aten.neg.default(%w) : f32[100] ; forward
    %h = copy(%a) : f32[100]{strides=- account=pinned_host} ; forward
    free(%a, %h) ; forward
  }
}
)");
  ASSERT_TRUE(program.ok()) << program.status();
  const auto prediction = SimulateSection(*program, "step", 1000);
  ASSERT_TRUE(prediction.ok()) << prediction.status();
  const AccountPeak& device = prediction->memory.at(Account::kDevice);
  EXPECT_EQ(device.peak_bytes, 2 * 400 + 1000);
  EXPECT_EQ(device.persistent_bytes, 400);
  EXPECT_EQ(prediction->memory.at(Account::kPinnedHost).peak_bytes, 400);
}

TEST(SimulateTest, AReadOfAFreedValueIsAnError) {
  const auto prediction = Simulate(R"(    %a = call aten.neg.default(%w) : f32[100] ; forward
    free(%a) ; forward
    %b = call aten.neg.default(%a) : f32[100] ; forward
    free(%b) ; forward
)");
  EXPECT_THAT(std::string(prediction.status().message()), HasSubstr("%a is not live here"));
}

TEST(SimulateTest, AValueIsFreedOnce) {
  const auto prediction = Simulate(R"(    %a = call aten.neg.default(%w) : f32[100] ; forward
    free(%a) ; forward
    free(%a) ; forward
)");
  EXPECT_THAT(std::string(prediction.status().message()), HasSubstr("%a is not live here"));
}

TEST(SimulateTest, CountsCollectives) {
  const auto prediction = Simulate(R"(    %a = call aten.neg.default(%w) : f32[100] ; forward
    %c = start all_reduce(%a) {axes="ulysses", reduction="sum"} : f32[100] ; forward
    wait(%c) ; forward
    free(%a, %c) ; forward
)");
  ASSERT_TRUE(prediction.ok()) << prediction.status();
  ASSERT_EQ(prediction->collectives.size(), 1);
  EXPECT_EQ(prediction->collectives[0].kind, "all_reduce");
  EXPECT_EQ(prediction->collectives[0].calls, 1);
  EXPECT_EQ(prediction->collectives[0].bytes_received_per_rank, 400);
}

// Parameters have 400 bytes, and operand, result and each buffer 160. What is unpacked is allocated
// when nothing waits to be sent any more.
TEST(SimulateTest, BuffersOfExchangesAreAPartOfTheDevice) {
  const auto exchange = [](const std::string& operand, const std::string& attributes,
                           const std::string& result) {
    return Simulate(absl::StrCat("    %a = call aten.neg.default(%w) : ", operand, " ; forward\n",
                                 "    %c = start all_to_all(%a) {axes=\"ulysses\", ", attributes,
                                 "} : ", result, " ; forward\n", R"(    wait(%c) ; forward
    free(%a) ; forward
    free(%c) ; forward
)"));
  };
  struct Case {
    std::string operand, attributes, result;
    int64_t device, communication;
    std::string peak;
  };
  for (const Case& c : {
           Case{"f32[4, 10]", "concat=[0], split=[0]", "f32[4, 10]", 720, 0, "all_to_all"},
           Case{"f32[4, 10]", "concat=[1], split=[0]", "f32[2, 20]", 880, 160, "wait"},
           Case{"f32[2, 20]", "concat=[0], split=[1]", "f32[4, 10]", 880, 160, "all_to_all"},
           Case{"f32[2, 20]", "concat=[1], split=[1]", "f32[2, 20]", 880, 320, "all_to_all"},
       }) {
    const auto prediction = exchange(c.operand, c.attributes, c.result);
    ASSERT_TRUE(prediction.ok()) << prediction.status();
    const AccountPeak& device = prediction->memory.at(Account::kDevice);
    EXPECT_EQ(device.peak_bytes, c.device) << c.attributes;
    EXPECT_EQ(device.peak_instruction, c.peak) << c.attributes;
    const auto buffers = prediction->memory.find(Account::kCommunication);
    EXPECT_EQ(buffers == prediction->memory.end() ? 0 : buffers->second.peak_bytes, c.communication)
        << c.attributes;
  }
}

TEST(SimulateTest, AnUnknownSectionIsAnError) {
  const auto program = ParseProgram("program \"p\" {\n  mesh accum=1 dp=1 ring=1 ulysses=1\n}\n");
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(SimulateSection(*program, "step").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace autosp
