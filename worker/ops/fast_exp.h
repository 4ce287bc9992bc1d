// exp for whole rows of floats: branch-free, so that the compiler makes vectors of it.
#pragma once

#include <bit>
#include <cstdint>

namespace autosp {

// Within 2 units in the last place of exp(x) for -87.3 <= x <= 88; 0 below, so that -inf gives 0,
// and NaN for NaN. Above 88 it saturates at exp(88).
inline float FastExp(float x) {
  constexpr float kLowest = -87.33654F;  // below it the result would be denormal
  constexpr float kHighest = 88.0F;
  const float clamped = x < kLowest ? kLowest : (x > kHighest ? kHighest : x);
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding and taking away 1.5 * 2^23 rounds to an integer.
  constexpr float kRound = 12582912.0F;
  const float shifted = clamped * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  // exp(r) = 1 + r + r^2 p(r), the polynomial of Cephes.
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float exp_r = p * r * r + r + 1.0F;
  // Times 2^n: n is in the low bits of `shifted`.
  const int32_t exponent = std::bit_cast<int32_t>(shifted) << 23;
  const float result = std::bit_cast<float>(std::bit_cast<int32_t>(exp_r) + exponent);
  return x < kLowest ? 0.0F : (x == x ? result : x);
}

}  // namespace autosp
