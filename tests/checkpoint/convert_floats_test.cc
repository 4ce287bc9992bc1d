#include "checkpoint/convert_floats.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

template <typename To, typename From>
std::vector<To> Converted(DType from, const std::vector<From>& numbers, DType to) {
  std::vector<To> out(numbers.size());
  ConvertFloats(from,
                {reinterpret_cast<const std::byte*>(numbers.data()), numbers.size() * sizeof(From)},
                to, {reinterpret_cast<std::byte*>(out.data()), out.size() * sizeof(To)});
  return out;
}

TEST(ConvertFloatsTest, Bf16IsTheNearestAndEvenOfTwo) {
  const auto bits = [](uint32_t value) { return std::bit_cast<float>(value); };
  EXPECT_THAT(
      Converted<uint16_t>(
          DType::kF32,
          std::vector<float>{1.0F, -2.5F, 0.0F, -0.0F, bits(0x3f808000),  // a tie, down
                             bits(0x3f818000),                            // a tie, up
                             bits(0x3f808001), bits(0x3f807fff), std::numeric_limits<float>::max(),
                             std::numeric_limits<float>::infinity(), bits(1)},
          DType::kBF16),
      testing::ElementsAre(0x3f80, 0xc020, 0, 0x8000, 0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80,
                           0x7f80, 0));
  // One whose rounding would make it infinite.
  EXPECT_THAT(Converted<uint16_t>(DType::kF32, std::vector<float>{bits(0x7fffffff)}, DType::kBF16),
              testing::ElementsAre(0x7fc0));
}

TEST(ConvertFloatsTest, HalvesAreExactInFloat) {
  std::vector<uint16_t> all;
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) all.push_back(static_cast<uint16_t>(bits));
  const auto floats = Converted<float>(DType::kBF16, all, DType::kF32);
  EXPECT_EQ(floats[0x3f80], 1.0F);
  EXPECT_EQ(Converted<uint16_t>(DType::kF32, floats, DType::kBF16), all);
  all.resize(0x7c00);
  const auto halves = Converted<float>(DType::kF16, all, DType::kF32);
  EXPECT_EQ(halves[0x3c00], 1.0F);
  EXPECT_EQ(halves[1], std::ldexp(1.0F, -24));
  EXPECT_EQ(Converted<uint16_t>(DType::kF32, halves, DType::kF16), all);
}

TEST(ConvertFloatsTest, WhatIsTooLargeIsInfinite) {
  EXPECT_THAT(
      Converted<uint16_t>(DType::kF32, std::vector<float>{65504.0F, 65520.0F, -1e9F}, DType::kF16),
      testing::ElementsAre(0x7bff, 0x7c00, 0xfc00));
  EXPECT_THAT(Converted<float>(DType::kF64, std::vector<double>{1.5, 1e300}, DType::kF32),
              testing::ElementsAre(1.5F, std::numeric_limits<float>::infinity()));
}

TEST(ConvertFloatsTest, TheSameTypeIsACopy) {
  const std::vector<double> numbers = {0.1, -7};
  EXPECT_EQ(Converted<double>(DType::kF64, numbers, DType::kF64), numbers);
}

}  // namespace
}  // namespace autosp
