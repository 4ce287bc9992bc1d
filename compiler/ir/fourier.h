// Discrete Fourier transforms along one dimension, with complex numbers as pairs of real ones in a
// last dimension of 2 (import/complex_pairs.h). Each is linear; places that an operand lacks are
// zeros, and those beyond n are not read.
//
//   autosp.fft_c2c(z, dim, n, length, inverse, scale)   pairs to pairs
//     y[t] = c * the sum over k < n of z[k] e^(-2 pi i k t / n), or of z[k] e^(+2 pi i k t / n) if
//     `inverse`, for t < length
//   autosp.fft_r2c(x, dim, n, length, half, scale)      real numbers to pairs
//     y[k] = c * w[k] * the sum over t < n of x[t] e^(-2 pi i k t / n), for k < length
//   autosp.fft_c2r(z, dim, n, length, half, scale)      pairs to real numbers
//     y[t] = c * the real part of the sum over k of w[k] z[k] e^(+2 pi i k t / n), for t < length
//
// Without `half`, w is 1 for all k < n. With it, w is that of a spectrum of which the second half
// mirrors the first: 1 for k = 0 and for 2 k = n, 2 between those, and 0 for larger k. `scale` says
// what c is: 0: 1; 1: 1 / sqrt(n); 2: 1 / n. It is no number, because n may follow the sequence.
//
// rfft is r2c with n / 2 + 1 frequencies and without `half`, irfft is c2r with it. The derivative
// of r2c is c2r with the same n, `half` and scale, as long as the operand was, and the other way
// round; that of c2c is c2c in the other direction.
#pragma once

#include <cstdint>
#include <string_view>

namespace autosp {

inline constexpr std::string_view kFftC2c = "autosp.fft_c2c";
inline constexpr std::string_view kFftC2r = "autosp.fft_c2r";
inline constexpr std::string_view kFftR2c = "autosp.fft_r2c";

inline bool IsFourier(std::string_view op) {
  return op == kFftC2c || op == kFftC2r || op == kFftR2c;
}

// Positions of arguments.
inline constexpr size_t kFftDim = 1;
inline constexpr size_t kFftN = 2;
inline constexpr size_t kFftLength = 3;
inline constexpr size_t kFftFlag = 4;  // inverse, or half
inline constexpr size_t kFftScale = 5;

}  // namespace autosp
