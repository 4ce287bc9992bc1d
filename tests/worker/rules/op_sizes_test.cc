// Sizes of results at other sizes of operands, as the factors of op_arguments.txt and
// opaque_arguments.txt say them, against the real op. This is what a graph that was exported with
// constants is resized by.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "compiler/rules/opaque_sizes.h"
#include "tests/worker/rules/op_cases.h"

namespace autosp {
namespace {

// Sizes of results that do not follow those of operands by factors alone, and why. The resize
// (passes/size_rewriter.h) has the literals of these, or refuses them.
const std::map<std::string_view, const char*>& OwnSizes() {
  constexpr const char* kLiterals = "the resize writes its sizes, or refuses them";
  constexpr const char* kWindows = "a kernel is a parameter or a number, refused where it changes";
  constexpr const char* kPlaces = "places that strides add are refused where they would change";
  constexpr const char* kMoved = "opaque where what is moved between dimensions changes";
  constexpr const char* kCuts = "parts of what changes are refused, or equal ones that follow";
  static const auto& ops = *new std::map<std::string_view, const char*>{
      {"aten._unsafe_view.default", kLiterals},
      {"aten.avg_pool1d.default", kWindows},
      {"aten.avg_pool2d.default", kWindows},
      {"aten.cat.default", "refused unless it is the sum of its parts"},
      {"aten.chunk.default", kCuts},
      {"aten.col2im.default", kMoved},
      {"aten.conv1d.default", kWindows},
      {"aten.conv2d.default", kWindows},
      {"aten.conv3d.default", kWindows},
      {"aten.conv_transpose1d.default", kPlaces},
      {"aten.conv_transpose2d.input", kPlaces},
      {"aten.conv_transpose3d.input", kPlaces},
      {"aten.diagonal.default", "opaque where one of two different dimensions changes"},
      {"aten.diff.default", "opaque where what is put beside changes"},
      {"aten.glu.default", "half of features; opaque where they change"},
      {"aten.im2col.default", kMoved},
      {"aten.max_pool1d.default", kWindows},
      {"aten.max_pool2d.default", kWindows},
      {"aten.pixel_shuffle.default", kMoved},
      {"aten.pixel_unshuffle.default", kMoved},
      {"aten.reshape.default", kLiterals},
      {"aten.slice.Tensor", kLiterals},
      {"aten.split.Tensor", kCuts},
      {"aten.unbind.int", kCuts},
      {"aten.unfold.default", kWindows},
      {"aten.view.default", kLiterals},
      {"autosp.all_tokens", "made after the resize"},
      {"autosp.fft_c2c", kLiterals},
      {"autosp.fft_c2r", kLiterals},
      {"autosp.fft_r2c", kLiterals},
  };
  return ops;
}

bool IsOpaque(const OpCase& test) { return test.factors().nodes[0].is_opaque; }

std::vector<int64_t> SizesOf(const FactorTable& table, const FactorDims& dims) {
  std::vector<int64_t> sizes;
  for (const FactorDim& dim : dims) sizes.push_back(table.Size(dim));
  return sizes;
}

// What is wrong where this factor has three times its size; "" also where the op takes no such
// operands, as its numbers are made for these sizes.
std::string CheckResized(const ArgumentSet& set, const OpCase& test, FactorVar factor) {
  FactorTable table = test.table();
  const absl::Status resized = table.Resize(factor, 3 * table.Size(factor));
  if (!resized.ok()) return resized.ToString();
  Tensors operands;
  for (size_t i = 0; i < set.operands.size(); ++i) {
    OperandSpec spec = set.operands[i];
    const std::vector<int64_t> sizes = SizesOf(table, test.OperandDims(i));
    spec.type.sizes.assign(sizes.begin(), sizes.end());
    operands.push_back(RandomOperand(spec, test.variant(), static_cast<uint32_t>(i)));
  }
  const auto results = test.Run(operands, SizesOf(table, test.ResultDims(0)));
  if (!results.ok()) return "";
  if (results->size() != test.results().size()) {
    return absl::StrCat(results->size(), " results instead of ", test.results().size());
  }
  for (size_t i = 0; i < results->size(); ++i) {
    const std::vector<int64_t> said = SizesOf(table, test.ResultDims(i));
    if ((*results)[i].sizes() == at::IntArrayRef(said)) continue;
    std::ostringstream message;
    message << "result " << i << " is " << (*results)[i].sizes() << ", and follows as "
            << at::IntArrayRef(said);
    return message.str();
  }
  return "";
}

void CheckLine(const ArgumentSet& set) {
  const auto test = OpCase::Make(set, {});
  ASSERT_TRUE(test.ok()) << set.op << "(" << set.text << "): " << test.status();
  if (OwnSizes().contains(set.op)) return;
  ASSERT_FALSE(IsOpaque(*test)) << test->Describe() << ": its sizes do not follow; say how in the "
                                << "rule or in opaque_sizes.cc, or why not in OwnSizes";
  std::set<FactorVar> factors;
  for (size_t i = 0; i < set.operands.size(); ++i) {
    for (const FactorDim& dim : test->table().Resolve(test->OperandDims(i))) {
      for (FactorVar factor : dim) factors.insert(factor);
    }
  }
  for (FactorVar factor : factors) {
    const std::string wrong = CheckResized(set, *test, factor);
    EXPECT_EQ(wrong, "") << test->Describe() << " where a factor of " << test->table().Size(factor)
                         << " is three times as large";
  }
}

TEST(OpSizesTest, RulesSaySizesAtOtherSizes) {
  for (const auto& [op, sets] : AllArguments()) {
    for (const ArgumentSet& set : sets) CheckLine(set);
  }
}

TEST(OpSizesTest, OpaqueOpsSaySizesAtOtherSizes) {
  for (const std::string_view op : OpsOfFollowedSizes()) {
    const auto sets = OpaqueArguments().find(op);
    ASSERT_NE(sets, OpaqueArguments().end()) << op << " has no line";
    for (const ArgumentSet& set : sets->second) CheckLine(set);
  }
}

TEST(OpSizesTest, LinesAreOfTheTable) {
  const std::vector<std::string_view> ops = OpsOfFollowedSizes();
  for (const auto& [op, sets] : OpaqueArguments()) {
    EXPECT_EQ(std::ranges::count(ops, op), 1) << op;
    EXPECT_EQ(FindOpRule(op), nullptr) << op << " has a rule: move its line to op_arguments.txt";
  }
  for (const auto& [op, reason] : OwnSizes()) {
    EXPECT_TRUE(FindOpRule(op) != nullptr || std::ranges::count(ops, op) == 1) << op;
  }
}

}  // namespace
}  // namespace autosp
