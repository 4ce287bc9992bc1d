#include "compiler/lowering/sink_zeros.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace autosp {
namespace {

using ::testing::ElementsAre;

// The names of first results, or of what is written.
std::vector<std::string> Sunk(const std::string& body) {
  auto program = ParseProgram(R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1 tile=2
  param %w "w" : f32[8]
  section step {
)" + body + "  }\n}\n");
  EXPECT_TRUE(program.ok()) << program.status();
  if (!program.ok()) return {};
  std::vector<Instruction>& instructions = program->sections[0].body;
  SinkZeros(instructions);
  std::vector<std::string> names;
  for (const Instruction& each : instructions) {
    const std::vector<ValueId> ids = each.results.empty() ? OperandsOf(each) : each.results;
    names.push_back(ids.empty() ? each.op : program->value(ids[0]).name);
  }
  return names;
}

TEST(SinkZerosTest, ZerosGoToTheirFirstReader) {
  EXPECT_THAT(
      Sunk(R"(    %a = call aten.zeros.default([8], f32, none, none, none) : f32[8] ; forward
    %b = call aten.zeros.default([8], f32, none, none, none) : f32[8] ; forward
    %x = call aten.neg.default(%w) : f32[8] ; forward
    accumulate(%b, %x) ; forward
    %y = call aten.neg.default(%x) : f32[8] ; forward
    accumulate(%a, %y) ; forward
)"),
      ElementsAre("x", "b", "b", "y", "a", "a"));
}

// A loop reads what its body does, and views of zeros are readers. Those that none reads stay.
TEST(SinkZerosTest, LoopsAndViewsAreReaders) {
  EXPECT_THAT(
      Sunk(R"(    %a = call aten.zeros.default([8], f32, none, none, none) : f32[8] ; forward
    %b = call aten.zeros.default([8], f32, none, none, none) : f32[8] ; forward
    %c = call aten.zeros.default([8], f32, none, none, none) : f32[8] ; forward
    %x = call aten.neg.default(%w) : f32[8] ; forward
    %v = alias aten.view.default(%b, [2, 4]) : f32[2, 4] ; forward
    %y = call aten.neg.default(%x) : f32[8] ; forward
    for tile {count=2} {
      accumulate(%a, %y) ; forward
    }
)"),
      ElementsAre("c", "x", "b", "v", "y", "a", "tile"));
}

}  // namespace
}  // namespace autosp
