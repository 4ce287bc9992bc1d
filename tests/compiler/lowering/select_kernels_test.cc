#include "compiler/lowering/select_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// One attention with `heads` query heads, 4 key heads and `keys` keys, forward and backward.
std::string Attention(const std::string& dtype, int heads, int head_dim, int keys,
                      const std::string& mask, bool causal) {
  const std::string q = absl::StrCat(dtype, "[2, ", heads, ", 64, ", head_dim, "]");
  const std::string kv = absl::StrCat(dtype, "[2, 4, ", keys, ", ", head_dim, "]");
  const std::string flag = causal ? "true" : "false";
  return absl::StrCat("program \"p\" {\n  mesh accum=1 dp=1 ring=1 ulysses=1\n  buffer %q \"q\" : ",
                      q, "\n  buffer %k \"k\" : ", kv, "\n  buffer %v \"v\" : ", kv,
                      "\n  buffer %m \"m\" : ", dtype, "[64, ", keys, "]\n  section step {\n",
                      "    %o, %l = call "
                      "aten._scaled_dot_product_flash_attention_for_cpu.default(%q, %k, %v, 0.0, ",
                      flag, ", ", mask, ", none) : ", q, ", f32[2, ", heads, ", 64] ; forward\n",
                      "    %a, %b, %c = call "
                      "aten._scaled_dot_product_flash_attention_for_cpu_backward.default(%o, ",
                      "%q, %k, %v, %o, %l, 0.0, ", flag, ", ", mask, ", 0.5) : ", q, ", ", kv, ", ",
                      kv, " ; backward\n  }\n}\n");
}

std::string Selected(const std::string& text) {
  absl::StatusOr<Program> program = ParseProgram(text);
  EXPECT_TRUE(program.ok()) << program.status() << "\n" << text;
  if (!program.ok()) return "";
  SelectCudaKernels(*program);
  const std::string selected = PrintProgram(*program);
  EXPECT_THAT(selected, Not(HasSubstr("for_cpu")));
  // What ranks get is the text.
  const absl::StatusOr<Program> again = ParseProgram(selected);
  EXPECT_TRUE(again.ok()) << again.status();
  return selected;
}

TEST(SelectKernelsTest, NamesFlashWhereItComputesWhatIsAsked) {
  const std::string text = Selected(Attention("bf16", 8, 64, 64, "none", true));
  EXPECT_THAT(text, HasSubstr("call autosp.sdpa(%q, %k, %v, none) "
                              "{causal=true, kernel=\"flash\", scale=0.125}"));
  EXPECT_THAT(text, HasSubstr("call autosp.sdpa_backward(%o, %q, %k, %v, %o, %l, none) "
                              "{causal=true, kernel=\"flash\", scale=0.5}"));
}

TEST(SelectKernelsTest, NamesEfficientElsewhere) {
  const struct {
    std::string why;
    std::string text;
  } cases[] = {
      {"fp32", Attention("f32", 4, 64, 64, "none", false)},
      {"a mask", Attention("bf16", 4, 64, 64, "%m", false)},
      {"a head_dim that is no multiple of 8", Attention("bf16", 4, 20, 64, "none", false)},
      {"a large head_dim", Attention("bf16", 4, 264, 64, "none", false)},
      // Flash would let the last query, not the first, see as many keys.
      {"causal with more keys than queries", Attention("bf16", 4, 64, 96, "none", true)},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Selected(c.text), HasSubstr("kernel=\"efficient\"")) << c.why;
  }
  EXPECT_THAT(Selected(Attention("bf16", 4, 64, 64, "%m", false)),
              HasSubstr("autosp.sdpa(%q, %k, %v, %m)"));
}

// The gradient of q is summed in fp32, and each shared key head is written once for each query
// head.
TEST(SelectKernelsTest, StatesTheWorkspaceOfTheKernel) {
  const auto workspace = [](const std::string& text) {
    auto program = ParseProgram(text);
    SelectCudaKernels(*program);
    const std::vector<Instruction>& body = program->sections[0].body;
    return std::make_pair(body[0].workspace_bytes, body[1].workspace_bytes);
  };
  const int64_t sums = 2 * 4 * 128 * (64 + 1) * 4;
  EXPECT_EQ(workspace(Attention("bf16", 4, 64, 64, "none", true)),
            std::make_pair(int64_t{0}, sums));
  const int64_t repeated = 2 * int64_t{2 * 8 * 64 * 64 * 2};
  EXPECT_EQ(workspace(Attention("bf16", 8, 64, 64, "none", true)),
            std::make_pair(int64_t{0}, 2 * sums + repeated));
}

}  // namespace
}  // namespace autosp
