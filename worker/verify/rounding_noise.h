// How far the numbers of a step move when every weight moves by its last bit, and on the way back
// every gradient of a value.
//
// Two programs that add up in other orders agree no better than this, however right both are: where
// attention is peaky (scores in the hundreds), gradients in fp32 hold 3 digits. It is the forward
// and backward error of a computation that is stable: see N. Higham, Accuracy and Stability of
// Numerical Algorithms, 1.5. One sample of it comes from each set of moved weights. Weights alone
// do not move what cancels in exact arithmetic, whatever they are (a bias before a difference), and
// of which rounding leaves a part of its terms: gradients that are moved one by one do. Nor do they
// move what is made of inputs (the advantages of sequences, of sums of rewards of tokens): results
// that are moved one by one do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "worker/executor/weight_source.h"
#include "worker/verify/eager_step.h"

namespace autosp {

// Errors as the verifier measures them, relative and without a unit: the largest of all samples.
struct RoundingNoise {
  double loss = 0;
  double loss_apart = 0;  // in no parts of the loss, of which terms that cancel may leave nothing
  double grad_norm = 0;
  double norm = 0;                                            // over all gradients
  std::map<std::string, double, std::less<>> gradients = {};  // by parameter
};

using StepOfWeights = std::function<absl::StatusOr<EagerStep>(WeightSource&)>;

// What moves a number of fp32 or bf16 by about its last bit, in parts of it.
inline constexpr double kLastBit = 0x1p-24;
inline constexpr double kLastBitOfBf16 = 0x1p-9;

// Each element moved by a part of it as large as `last_bit`; the same for the same seed and name.
at::Tensor MovedByLastBit(const at::Tensor& tensor, uint64_t seed, const std::string& name,
                          double last_bit);

// Each element of an fp32 tensor moved so by kLastBit, but whole numbers: they are counts, places,
// masks and rewards, which fp32 holds and which others are compared with.
at::Tensor MovedWhereRounded(const at::Tensor& tensor, uint64_t seed, const std::string& name);

// False for ops (aten.relu.default) whose results are among their operands, as they were.
bool RoundsResults(const std::string& op);

// `expected` is what `run` gives with `weights`. Runs it three times more, with weights moved by
// `last_bit`.
absl::StatusOr<RoundingNoise> MeasureRoundingNoise(WeightSource& weights, const EagerStep& expected,
                                                   const StepOfWeights& run,
                                                   double last_bit = kLastBit);

// Every op rounds, forward and backward, and not the weights alone. Of 3,000 random graphs, 12
// times the noise is the most that a right plan was off by.
inline constexpr double kNoiseFactor = 30;

// The error that a right program may have where `noise` is that of the model: kNoiseFactor as much;
// never below `tolerance`, nor above 1e-2, where a number would prove nothing.
double NoiseBound(double noise, double tolerance);

// Likewise how far a loss may be off, where `noise` is RoundingNoise::loss_apart; 1e-2 is of what
// it adds up, where terms cancel.
double LossNoiseBound(double noise, const EagerStep& expected);

// |actual - expected| in parts of |expected|; 0 where they are the same.
double RelativeError(double actual, double expected);

}  // namespace autosp
