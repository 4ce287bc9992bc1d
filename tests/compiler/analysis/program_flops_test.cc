// What single instructions count: each kind, kernels that only programs have, loops, and what
// counts as nothing. Whole models are in tests/compiler/planner/zoo_flops_test.cc.
#include "compiler/analysis/program_flops.h"

#include <gtest/gtest.h>

#include <map>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

struct Case {
  const char* name;
  const char* body;
  FlopTotals flops;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

FlopTotals Product(double flops) { return {{FlopKind::kProduct, flops}}; }
FlopTotals Attention(double flops) { return {{FlopKind::kAttention, flops}}; }

// On a ring of two, with parameters %x [4, 8], %w [6, 8], %g [4, 6] and, for attention,
// %q [1, 4, 16, 8] and %k [1, 2, 16, 8], halves of 32 tokens.
absl::StatusOr<FlopTotals> Count(const std::string& body) {
  const auto program = ParseProgram(absl::StrCat(R"(program "p" {
  mesh accum=1 dp=1 ring=2 ulysses=1
  factor tokens = 32 zigzag
  param %x "x" : f32[4, 8]
  param %w "w" : f32[6, 8]
  param %g "g" : f32[4, 6]
  param %v "v" : f32[8]
  param %q "q" : f32[1, 4, 16, 8]
  param %k "k" : f32[1, 2, 16, 8]
  param %lse "lse" : f32[1, 4, 16]
  section step {
)",
                                                 body, "  }\n}\n"));
  if (!program.ok()) return program.status();
  return CountFlops(*program, "step");
}

// 2 x 4 x 8 x 6, and a pair of attention: 4 heads of 8, times two products of two operations each.
constexpr double kProduct = 384;
constexpr double kPair = 4 * 8 * 2 * 2;
constexpr double kPairBackward = kPair * 5 / 2;

std::vector<Case> Cases() {
  return {
      {"Linear", "%y = call aten.linear.default(%x, %w, none) : f32[4, 6] ; forward",
       Product(kProduct)},
      {"Accumulate", "update autosp.matmul_accumulate_(%w, %g, %x) {beta=1} ; backward",
       Product(kProduct)},
      {"Loop",
       "for accum {count=3} {\n%y = call aten.linear.default(%x, %w, none) : f32[4, 6] ; forward\n"
       "free(%y) ; forward\n}",
       Product(3 * kProduct)},
      {"OneGradient",
       "%y, %t = record aten.einsum.default(\"ij,kj->ik\", [%x, %w]) {diff=[1], opaque=true, "
       "saves=[%x, %w]} : f32[4, 6], tape ; forward\n"
       "%dw = vjp(%t, %g) {saved=[%x, %w]} : f32[6, 8] ; backward",
       Product(2 * kProduct)},
      {"TwoGradients",
       "%y, %t = record aten.einsum.default(\"ij,kj->ik\", [%x, %w]) {diff=[0, 1], opaque=true, "
       "saves=[%x, %w]} : f32[4, 6], tape ; forward\n"
       "%dx, %dw = vjp(%t, %g) {saved=[%x, %w]} : f32[4, 8], f32[6, 8] ; backward",
       Product(3 * kProduct)},
      {"Whole",
       "%o, %l = call aten._scaled_dot_product_flash_attention_for_cpu.default(%q, %k, %k, 0.0, "
       "false, none, none) : f32[1, 4, 16, 8], f32[1, 4, 16] ; forward",
       Attention(kPair * 16 * 16)},
      {"Causal",
       "%o, %l = call autosp.sdpa(%q, %k, %k, none) {causal=true, kernel=\"flash\", scale=0.5} : "
       "f32[1, 4, 16, 8], f32[1, 4, 16] ; forward",
       Attention(kPair * 17 * 16 / 2)},
      {"CausalBackward",
       "%dq, %dk, %dv = call autosp.sdpa_backward(%q, %q, %k, %k, %q, %lse, none) {causal=true, "
       "kernel=\"flash\", scale=0.5} : f32[1, 4, 16, 8], f32[1, 2, 16, 8], f32[1, 2, 16, 8] ; "
       "backward",
       Attention(kPairBackward * 17 * 16 / 2)},
      // Both hops of both members make all pairs of 32 tokens.
      {"Hop",
       "update autosp.attend_block_(%q, %lse, %q, %k, %k, none, none, 0) {axes=\"ring\", "
       "causal=true, factor=\"tokens\", scale=0.5, window=0} ; forward",
       Attention(kPair * 33 * 32 / 2 / 4)},
      {"HopOfAWindow",
       "update autosp.attend_block_(%q, %lse, %q, %k, %k, none, none, 1) {axes=\"ring\", "
       "causal=true, factor=\"tokens\", scale=0.5, window=2} ; forward",
       Attention(kPair * (32 + 31) / 4)},
      {"OfAllKeysAtOnce",
       "update autosp.attend_block_(%q, %lse, %q, %k, %k, none, none, 0) {axes=\"ring\", "
       "causal=true, factor=\"tokens\", gathered=true, scale=0.5, window=0} ; forward",
       Attention(kPair * 33 * 32 / 2 / 2)},
      {"HopBackward",
       "update autosp.attend_block_backward_(%q, %k, %k, %q, %q, %k, %k, %q, %lse, none, none, 0) "
       "{axes=\"ring\", causal=false, factor=\"tokens\", scale=0.5, window=0} ; backward",
       Attention(kPairBackward * 32 * 32 / 4)},
      {"Elementwise", "%y = call aten.mul.Tensor(%x, %x) : f32[4, 8] ; forward", {}},
      {"OfAVector", "%y = call aten.matmul.default(%x, %v) : f32[4] ; forward", {}},
      {"ElementwiseEinsum",
       "%y = call aten.einsum.default(\"ij,ij->ij\", [%x, %x]) : f32[4, 8] ; forward",
       {}},
      {"WithoutARow", "%y = call aten.unheard_of.default(%x) : f32[4, 8] ; forward", {}},
      {"View", "%y = alias aten.view.default(%x, [8, 4]) : f32[8, 4] ; forward", {}},
  };
}

class ProgramFlopsTest : public testing::TestWithParam<Case> {};

TEST_P(ProgramFlopsTest, Counts) {
  const absl::StatusOr<FlopTotals> flops = Count(GetParam().body);
  ASSERT_TRUE(flops.ok()) << flops.status();
  EXPECT_EQ(*flops, GetParam().flops);
}

TEST(CountFlopsTest, AnUnknownSectionIsAnError) {
  const auto program = ParseProgram("program \"p\" {\n  mesh accum=1 dp=1 ring=1 ulysses=1\n}\n");
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_EQ(CountFlops(*program, "step").status().code(), absl::StatusCode::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(Instructions, ProgramFlopsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
