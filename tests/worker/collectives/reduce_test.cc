#include "worker/collectives/reduce.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace autosp {
namespace {

template <typename T>
std::vector<T> ReduceVectors(DType dtype, ReduceOp op, const std::vector<std::vector<T>>& inputs) {
  std::vector<const std::byte*> sources;
  for (const auto& input : inputs) {
    sources.push_back(reinterpret_cast<const std::byte*>(input.data()));
  }
  std::vector<T> output(inputs[0].size());
  Reduce(dtype, op, sources, reinterpret_cast<std::byte*>(output.data()), output.size());
  return output;
}

uint16_t Bf16(float value) { return std::bit_cast<uint32_t>(value) >> 16; }

TEST(ReduceTest, AccumulatesBf16InFp32) {
  // In bf16 arithmetic 256 + 1 rounds back to 256; in fp32 the two ones count.
  EXPECT_EQ(
      ReduceVectors<uint16_t>(DType::kBF16, ReduceOp::kSum, {{Bf16(256)}, {Bf16(1)}, {Bf16(1)}}),
      std::vector<uint16_t>{Bf16(258)});
}

TEST(ReduceTest, RoundsBf16ToNearestEven) {
  // 256 + 1 = 257 lies between 256 and 258; 258 + 1 = 259 between 258 and 260.
  EXPECT_EQ(ReduceVectors<uint16_t>(DType::kBF16, ReduceOp::kSum,
                                    {{Bf16(256), Bf16(258)}, {Bf16(1), Bf16(1)}}),
            (std::vector<uint16_t>{Bf16(256), Bf16(260)}));
}

// f16 through fp32 and back is the identity for every number, and keeps infinities and NaN.
TEST(ReduceTest, F16SurvivesConversion) {
  std::vector<uint16_t> all(1 << 16);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  const std::vector<uint16_t> output = ReduceVectors<uint16_t>(DType::kF16, ReduceOp::kSum, {all});
  for (size_t i = 0; i < all.size(); ++i) {
    const bool is_nan = (i & 0x7c00) == 0x7c00 && (i & 0x3ff) != 0;
    if (is_nan) {
      EXPECT_EQ(output[i] & 0x7e00, 0x7e00) << i;
    } else {
      EXPECT_EQ(output[i], all[i]) << i;
    }
  }
}

TEST(ReduceTest, F16RoundsAndOverflows) {
  // 1 + 2^-11 is halfway between 1 and its successor: to even, down; 1 + 2^-10 + 2^-11: up.
  EXPECT_EQ(ReduceVectors<uint16_t>(DType::kF16, ReduceOp::kSum,
                                    {{0x3c00, 0x3c01, 0x7bff}, {0x1000, 0x1000, 0x7bff}}),
            (std::vector<uint16_t>{0x3c00, 0x3c02, 0x7c00}));
}

TEST(ReduceTest, MaxKeepsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto output = ReduceVectors<float>(DType::kF32, ReduceOp::kMax, {{nan, 1, 2}, {1, nan, 3}});
  EXPECT_TRUE(std::isnan(output[0]));
  EXPECT_TRUE(std::isnan(output[1]));
  EXPECT_EQ(output[2], 3);
}

TEST(ReduceTest, IntegersWrapAround) {
  EXPECT_EQ(ReduceVectors<int32_t>(DType::kI32, ReduceOp::kSum, {{INT32_MAX}, {1}}),
            std::vector<int32_t>{INT32_MIN});
}

TEST(ReduceTest, OutputMayBeASource) {
  std::vector<float> first(5000);
  std::vector<float> second(5000);
  for (int i = 0; i < 5000; ++i) {
    first[i] = i;
    second[i] = 2 * i;
  }
  const std::vector<const std::byte*> sources = {reinterpret_cast<const std::byte*>(first.data()),
                                                 reinterpret_cast<const std::byte*>(second.data())};
  Reduce(DType::kF32, ReduceOp::kSum, sources, reinterpret_cast<std::byte*>(second.data()), 5000);
  for (int i = 0; i < 5000; ++i) EXPECT_EQ(second[i], 3 * i);
}

}  // namespace
}  // namespace autosp
