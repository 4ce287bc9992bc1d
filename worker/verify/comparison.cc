#include "worker/verify/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

// Entries below this part of the largest one may hold rounding noise alone.
constexpr double kNoise = 1e-2;

double LargestOf(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().item<double>();
}

bool IsBuffer(const std::string& name) { return name.starts_with(kBufferPrefix); }

}  // namespace

GradientComparison::GradientComparison(const NamedTensors& expected) {
  for (const auto& [name, tensor] : expected) {
    const double largest = LargestOf(tensor.to(at::kDouble));
    largest_[name] = largest;
    if (!IsBuffer(name)) largest_of_all_ = std::max(largest_of_all_, largest);
  }
}

double GradientComparison::ScaleOf(const std::string& name) const {
  if (IsBuffer(name)) return largest_.at(name);
  return std::max(largest_.at(name), kNoise * largest_of_all_);
}

absl::Status GradientComparison::Add(const std::string& name, int64_t rank, const at::Tensor& part,
                                     const at::Tensor& expected_part) {
  if (!largest_.contains(name)) return NotFound("gradient ", name, ": nothing to compare it with");
  if (part.sizes() != expected_part.sizes()) {
    return InvalidArgument("gradient ", name, ": has [", absl::StrJoin(part.sizes(), ", "),
                           "] on rank ", rank, " instead of [",
                           absl::StrJoin(expected_part.sizes(), ", "), "]");
  }
  return CatchTorch([&] {
    const at::Tensor expected = expected_part.to(at::kDouble);
    const at::Tensor difference = part.to(at::kDouble).sub(expected);
    const double apart = LargestOf(difference);
    const double scale = ScaleOf(name);
    // Where all of the model's gradients are zero, any difference is infinitely large.
    double error = apart == 0 ? 0 : apart / scale;
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    GradientError& worst =
        errors_.try_emplace(name, GradientError{.name = name, .scale = scale, .rank = rank})
            .first->second;
    if (error > worst.error) {
      worst.error = error;
      worst.rank = rank;
    }
    if (IsBuffer(name)) return absl::OkStatus();
    squares_[rank].difference += difference.square().sum().item<double>();
    squares_[rank].expected += expected.square().sum().item<double>();
    return absl::OkStatus();
  });
}

std::vector<GradientError> GradientComparison::Errors() const {
  std::vector<GradientError> errors;
  for (const auto& [name, error] : errors_) errors.push_back(error);
  std::ranges::stable_sort(errors, std::greater(), &GradientError::error);
  return errors;
}

double GradientComparison::NormError() const {
  double worst = 0;
  for (const auto& [rank, squares] : squares_) {
    const double error =
        squares.difference == 0 ? 0 : std::sqrt(squares.difference / squares.expected);
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, error);
  }
  return worst;
}

}  // namespace autosp
