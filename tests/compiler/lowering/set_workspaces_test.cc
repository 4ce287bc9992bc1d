// What ops allocate themselves becomes part of their instructions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/lowering/select_kernels.h"

namespace autosp {
namespace {

struct Case {
  const char* name;
  const char* body;
  int64_t on_cpu;
  int64_t on_gpu;
};

Program Parse(const std::string& body) {
  const auto program = ParseProgram(absl::StrCat(R"(program "p" {
  mesh accum=2 dp=1 ring=1 ulysses=1
  param %h "h" : bf16[8, 10]
  param %f "f" : f32[8, 10]
  buffer %b "b" : bool[8, 10]
  section step {
)",
                                                 body, "\n  }\n}\n"));
  EXPECT_TRUE(program.ok()) << program.status() << body;
  return program.value_or(Program());
}

// Of the first instruction, or of the first in a loop.
int64_t Workspace(const Program& program) {
  const Instruction& first = program.sections.at(0).body.at(0);
  return first.body.empty() ? first.workspace_bytes : first.body[0].workspace_bytes;
}

class SetWorkspacesTest : public testing::TestWithParam<Case> {};

TEST_P(SetWorkspacesTest, OfTheFirstInstruction) {
  Program program = Parse(GetParam().body);
  SetWorkspaces(program);
  EXPECT_EQ(Workspace(program), GetParam().on_cpu);
  SelectCudaKernels(program, DeviceKind::kA100_80gb);
  EXPECT_EQ(Workspace(program), GetParam().on_gpu);
}

constexpr Case kCases[] = {
    // 80 elements of the operand and 8 of the result, in fp32.
    {"HalfSum", "%y = call aten.sum.dim_IntList(%h, [1], false, none) : bf16[8] ; forward", 88 * 4,
     0},
    {"InALoop",
     "for accum {count=2} {\n%y = call aten.mean.dim(%h, [1], false, none) : bf16[8] ; forward\n}",
     88 * 4, 0},
    {"Recorded",
     "%y, %t = record aten.logsumexp.default(%f, [1], false) {diff=[0], saves=[%f]} : f32[8], "
     "tape ; forward",
     88 * 4, 88 * 4},
    {"Conversion", "%y = call aten.sum.default(%b, none) : i64[] ; forward", 80 * 8, 80 * 8},
    {"SumOfF32", "%y = call aten.sum.dim_IntList(%f, [1], false, none) : f32[8] ; forward", 0, 0},
    {"Elementwise", "%y = call aten.mul.Tensor(%f, %f) : f32[8, 10] ; forward", 0, 0},
    {"WithoutARow", "%y = call aten.unheard_of.default(%f) : f32[8] ; forward", 0, 0},
    {"OfAnother", "%y = call aten.unheard_of.default(%f) {} : f32[8] ; forward workspace=64", 64,
     64},
};

INSTANTIATE_TEST_SUITE_P(Instructions, SetWorkspacesTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
