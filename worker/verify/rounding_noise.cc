#include "worker/verify/rounding_noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"
#include "worker/verify/comparison.h"
#include "worker/verify/random_weights.h"

namespace autosp {
namespace {

constexpr int kNumSamples = 3;
constexpr double kMaxBound = 1e-2;

// Ops that move or choose, without "aten." and overload.
constexpr std::string_view kMoving[] = {"abs",
                                        "alias",
                                        "amax",
                                        "amin",
                                        "cat",
                                        "chunk",
                                        "clamp",
                                        "clamp_max",
                                        "clamp_min",
                                        "clone",
                                        "constant_pad_nd",
                                        "contiguous",
                                        "detach",
                                        "diagonal",
                                        "embedding",
                                        "expand",
                                        "expand_as",
                                        "flatten",
                                        "flip",
                                        "gather",
                                        "getitem",
                                        "hstack",
                                        "index",
                                        "index_select",
                                        "kthvalue",
                                        "lift_fresh_copy",
                                        "masked_fill",
                                        "masked_select",
                                        "max",
                                        "maximum",
                                        "median",
                                        "min",
                                        "minimum",
                                        "movedim",
                                        "narrow",
                                        "neg",
                                        "pad",
                                        "permute",
                                        "relu",
                                        "repeat",
                                        "repeat_interleave",
                                        "reshape",
                                        "roll",
                                        "select",
                                        "slice",
                                        "sort",
                                        "split",
                                        "split_with_sizes",
                                        "squeeze",
                                        "stack",
                                        "t",
                                        "to",
                                        "topk",
                                        "transpose",
                                        "tril",
                                        "triu",
                                        "type_as",
                                        "unbind",
                                        "unflatten",
                                        "unfold",
                                        "unsqueeze",
                                        "view",
                                        "view_as",
                                        "where",
                                        "zeros_like"};

// The weights of another source, each moved by a part of it as large as `last_bit`.
class MovedWeights final : public WeightSource {
 public:
  MovedWeights(WeightSource& weights, uint64_t seed, double last_bit)
      : weights_(weights), seed_(seed), last_bit_(last_bit) {}

  absl::StatusOr<at::Tensor> Load(const std::string& name) override {
    ASSIGN_OR_RETURN(at::Tensor tensor, weights_.Load(name));
    RETURN_IF_ERROR(CatchTorch([&] {
      if (!tensor.is_floating_point()) return absl::OkStatus();
      tensor = MovedByLastBit(tensor, seed_, name, last_bit_);
      return absl::OkStatus();
    }));
    return tensor;
  }

 private:
  WeightSource& weights_;
  const uint64_t seed_;
  const double last_bit_;
};

// Not std::max: a NaN is the worst there is, and stays.
void Raise(double& largest, double error) {
  if (std::isnan(largest) || error <= largest) return;
  largest = error;
}

}  // namespace

at::Tensor MovedByLastBit(const at::Tensor& tensor, uint64_t seed, const std::string& name,
                          double last_bit) {
  at::Tensor factor = at::empty(tensor.sizes(), at::kFloat);
  factor.normal_(1, last_bit, at::make_generator<at::CPUGeneratorImpl>(SeedOfName(seed, name)));
  const at::Tensor moved = tensor.mul(factor).to(tensor.scalar_type());
  // The lowest number of a mask must not become an infinity.
  return at::where(moved.isfinite(), moved, tensor);
}

at::Tensor MovedWhereRounded(const at::Tensor& tensor, uint64_t seed, const std::string& name) {
  if (tensor.scalar_type() != at::kFloat) return tensor;
  const at::Tensor is_whole = tensor.detach().eq(tensor.detach().round());
  return at::where(is_whole, tensor, MovedByLastBit(tensor, seed, name, kLastBit));
}

bool RoundsResults(const std::string& op) {
  std::string_view name = op;
  if (!name.starts_with("aten.")) return true;
  name.remove_prefix(std::string_view("aten.").size());
  return std::ranges::find(kMoving, name.substr(0, name.find('.'))) == std::end(kMoving);
}

double RelativeError(double actual, double expected) {
  const double apart = std::abs(actual - expected);
  return apart == 0 ? 0 : apart / std::abs(expected);
}

double NoiseBound(double noise, double tolerance) {
  if (!std::isfinite(noise)) return tolerance;
  return std::max(tolerance, std::min(kNoiseFactor * noise, kMaxBound));
}

double LossNoiseBound(double noise, const EagerStep& expected) {
  if (!std::isfinite(noise)) return 0;
  return std::min(kNoiseFactor * noise,
                  kMaxBound * std::max(std::abs(expected.loss), expected.added));
}

absl::StatusOr<RoundingNoise> MeasureRoundingNoise(WeightSource& weights, const EagerStep& expected,
                                                   const StepOfWeights& run, double last_bit) {
  RoundingNoise noise;
  for (int sample = 0; sample < kNumSamples; ++sample) {
    MovedWeights moved(weights, static_cast<uint64_t>(sample), last_bit);
    ASSIGN_OR_RETURN(const EagerStep step, run(moved), "with weights moved by their last bit");
    Raise(noise.loss, RelativeError(step.loss, expected.loss));
    Raise(noise.loss_apart, std::abs(step.loss - expected.loss));
    Raise(noise.grad_norm, RelativeError(step.grad_norm, expected.grad_norm));
    GradientComparison comparison(expected.gradients);
    for (const auto& [name, gradient] : step.gradients) {
      const auto found = expected.gradients.find(name);
      if (found == expected.gradients.end()) return Internal("no gradient of ", name, " before");
      RETURN_IF_ERROR(comparison.Add(name, 0, gradient, found->second));
    }
    Raise(noise.norm, comparison.NormError());
    for (const GradientError& each : comparison.Errors()) {
      Raise(noise.gradients[each.name], each.error);
    }
  }
  return noise;
}

}  // namespace autosp
