#include "compiler/lowering/select_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// One attention with `heads` query heads, 4 key heads and `keys` keys, forward and backward.
std::string Attention(const std::string& dtype, int heads, int head_dim, int keys,
                      const std::string& mask, bool causal, int queries = 64) {
  const std::string q = absl::StrCat(dtype, "[2, ", heads, ", ", queries, ", ", head_dim, "]");
  const std::string kv = absl::StrCat(dtype, "[2, 4, ", keys, ", ", head_dim, "]");
  const std::string flag = causal ? "true" : "false";
  return absl::StrCat(
      "program \"p\" {\n  mesh accum=1 dp=1 ring=1 ulysses=1\n  buffer %q \"q\" : ", q,
      "\n  buffer %k \"k\" : ", kv, "\n  buffer %v \"v\" : ", kv, "\n  buffer %m \"m\" : ", dtype,
      "[", queries, ", ", keys, "]\n  section step {\n",
      "    %o, %l = call "
      "aten._scaled_dot_product_flash_attention_for_cpu.default(%q, %k, %v, 0.0, ",
      flag, ", ", mask, ", none) : ", q, ", f32[2, ", heads, ", ", queries, "] ; forward\n",
      "    %a, %b, %c = call "
      "aten._scaled_dot_product_flash_attention_for_cpu_backward.default(%o, ",
      "%q, %k, %v, %o, %l, 0.0, ", flag, ", ", mask, ", 0.5) : ", q, ", ", kv, ", ", kv,
      " ; backward\n  }\n}\n");
}

std::string Selected(const std::string& text, DeviceKind device = DeviceKind::kA100_80gb) {
  absl::StatusOr<Program> program = ParseProgram(text);
  EXPECT_TRUE(program.ok()) << program.status() << "\n" << text;
  if (!program.ok()) return "";
  SelectCudaKernels(*program, device);
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

TEST(SelectKernelsTest, NamesCudnnOnHopperWhereFlashWouldDo) {
  const auto selected = [](const std::string& text) {
    return Selected(text, DeviceKind::kH100_80gb);
  };
  EXPECT_THAT(selected(Attention("bf16", 8, 128, 128, "none", true, 128)),
              HasSubstr("{causal=true, kernel=\"cudnn\", scale=0.5}"));
  // The rest of a block would be taken for scores of 0.
  for (const std::string& text : {Attention("bf16", 8, 136, 128, "none", true, 128),
                                  Attention("bf16", 8, 128, 64, "none", false, 128),
                                  Attention("bf16", 8, 128, 256, "none", false, 192),
                                  Attention("bf16", 8, 128, 130, "none", true, 130)}) {
    EXPECT_THAT(selected(text), HasSubstr("\"flash\""));
  }
  EXPECT_THAT(selected(Attention("f32", 8, 128, 128, "none", true, 128)),
              HasSubstr("\"efficient\""));
}

// What a kernel sums up for a whole sequence would be as much as all operands.
TEST(SelectKernelsTest, DerivativesOfVeryLongAttentionsRunInSquares) {
  constexpr int kLong = 1 << 20;
  const auto selected = [](int tokens) {
    return Selected(Attention("bf16", 16, 128, tokens, "none", true, tokens));
  };
  const std::string whole = selected(kLong / 2);
  const std::string squares = selected(kLong);
  EXPECT_THAT(whole, Not(HasSubstr("side=")));
  EXPECT_THAT(squares, HasSubstr("{causal=true, kernel=\"flash\", scale=0.5, side=32768}"));
  // Other kernels are not for so many tokens, and a causal one of other lengths has no squares.
  EXPECT_THAT(Selected(Attention("f32", 16, 128, kLong, "none", true, kLong)),
              Not(HasSubstr("side=")));
  const auto workspace = [](const std::string& text) {
    const size_t call = text.find("autosp.sdpa_backward");
    const size_t begin = text.find("workspace=", call) + 10;
    return std::stoll(text.substr(begin));
  };
  // [2, 4 key heads, tokens, 128] in fp32, for k and for v; squares are a few MiB for each head.
  const int64_t sums = int64_t{2} * 2 * 4 * kLong * 128 * 4;
  EXPECT_GT(workspace(squares), sums);
  EXPECT_LT(workspace(squares), sums + sums / 2);
  EXPECT_LT(workspace(squares), workspace(whole));
}

// Layer norm keeps its statistics in fp32 on a GPU, and so do copies of them.
TEST(SelectKernelsTest, GivesStatisticsTheirTypeOfGpus) {
  const std::string text = Selected(R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  buffer %x "x" : bf16[8, 64]
  buffer %w "w" : bf16[64]
  section step {
    %o, %m, %r = call aten.native_layer_norm.default(%x, [64], %w, %w, 1.0)
        : bf16[8, 64], bf16[8, 1], bf16[8, 1] ; forward
    %k = copy(%m) : bf16[8, 1] ; forward
  }
}
)");
  EXPECT_THAT(text, HasSubstr(": bf16[8, 64], f32[8, 1], f32[8, 1] ; forward"));
  EXPECT_THAT(text, HasSubstr("copy(%m) : f32[8, 1]"));
}

// What is done with the output of an attention over 4 heads of 64 tokens, in the forward.
std::string Projected(const std::string& then) {
  return absl::StrCat(R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  buffer %q "q" : bf16[2, 4, 64, 8]
  section step {
    %o, %l = call aten._scaled_dot_product_flash_attention_for_cpu.default(%q, %q, %q, 0.0, )",
                      R"(true, none, none) : bf16[2, 4, 64, 8], f32[2, 4, 64] ; forward
)",
                      then, "  }\n}\n");
}

// The kernel writes tokens first, as the projection reads them.
TEST(SelectKernelsTest, OutputsLieAsTheKernelWritesThem) {
  const std::string swap =
      "    %p = alias aten.permute.default(%o, [0, 2, 1, 3])"
      " : bf16[2, 64, 4, 8]{strides=2048,8,512,1} ; forward\n";
  const std::string copy = "    %c = copy(%p) : bf16[2, 64, 4, 8] ; forward\n";
  const std::string text = Selected(Projected(swap + copy));
  EXPECT_THAT(text, HasSubstr(" : bf16[2, 4, 64, 8]{strides=2048,8,32,1}, "));
  EXPECT_THAT(text, HasSubstr("%p = alias aten.permute.default(%o, [0, 2, 1, 3])"
                              " : bf16[2, 64, 4, 8] ;"));
  EXPECT_THAT(text, HasSubstr("%c = alias aten.alias.default(%p) : bf16[2, 64, 4, 8] ;"));
  // Another reader counts on the order that it knows, and what is written to needs its own copy.
  const std::string view =
      "    %v = alias aten.view.default(%o, [8, 64, 8]) : bf16[8, 64, 8] ; forward\n";
  const std::string write = "    update aten.zero_.default(%c) ; forward\n";
  for (const std::string& other : {swap + copy + view, swap + copy + write}) {
    EXPECT_THAT(Selected(Projected(other)), HasSubstr("%c = copy(%p)")) << other;
  }
}

TEST(SelectKernelsTest, LeavesFewTokensOfHalfTypesToProducts) {
  EXPECT_THAT(Selected(Attention("bf16", 4, 64, 8, "none", false)), HasSubstr("\"products\""));
  EXPECT_THAT(Selected(Attention("bf16", 4, 64, 8, "%m", false)), HasSubstr("\"products\""));
  EXPECT_THAT(Selected(Attention("f32", 4, 64, 8, "none", false)), HasSubstr("\"efficient\""));
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
// head. What does not lie as [B, S, N, H] is copied.
TEST(SelectKernelsTest, StatesTheWorkspaceOfTheKernel) {
  const auto workspace = [](const std::string& text) {
    auto program = ParseProgram(text);
    SelectCudaKernels(*program, DeviceKind::kA100_80gb);
    const std::vector<Instruction>& body = program->sections[0].body;
    return std::make_pair(body[0].workspace_bytes, body[1].workspace_bytes);
  };
  const int64_t sums = 2 * 4 * 128 * (64 + 1) * 4;
  EXPECT_EQ(workspace(Attention("bf16", 4, 64, 64, "none", true)),
            std::make_pair(int64_t{0}, sums));
  const int64_t repeated = 2 * int64_t{2 * 8 * 64 * 64 * 2};
  EXPECT_EQ(workspace(Attention("bf16", 8, 64, 64, "none", true)),
            std::make_pair(int64_t{0}, 2 * sums + repeated));
  // A view that somebody reads holds the result to its order: it is copied, and so are it and its
  // gradient, which is the same here, for the derivative.
  const int64_t out = int64_t{2 * 4 * 64 * 64 * 2};
  const std::string viewed = absl::StrReplaceAll(Attention("bf16", 4, 64, 64, "none", true),
                                                 {{"  }\n}\n",
                                                   "    %w = alias aten.view.default(%o, [8, 64, "
                                                   "64]) : bf16[8, 64, 64] ; forward\n  }\n}\n"}});
  EXPECT_EQ(workspace(viewed), std::make_pair(out, sums + 2 * out));
  // One copy of the mask, in rows of a multiple of 16, for all heads.
  const int64_t mask = int64_t{64 * 80 * 2};
  EXPECT_EQ(workspace(Attention("bf16", 4, 64, 72, "%m", false)),
            std::make_pair(mask, sums + mask));
  // Beyond 128 columns sums have a multiple of 64.
  EXPECT_EQ(workspace(Attention("bf16", 4, 136, 64, "none", false)).second,
            int64_t{2 * 4 * 128 * (192 + 1) * 4});
}

}  // namespace
}  // namespace autosp
