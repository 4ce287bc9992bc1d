// How far the gradients of two programs lie apart.
//
// Two norms. Per tensor, max |a - b| in parts of max(max |b|, 1e-2 G), G the largest entry of all
// gradients: some gradients are zero in theory (a key bias before a softmax) and hold rounding
// noise alone, which must not be measured by itself. And over all gradients together, the L2 norm
// of a - b in parts of that of b, which is what can be bounded where programs round to bf16.
//
// What a step leaves in a buffer is compared beside them, in parts of its own largest entry, and
// counts in neither G nor the L2 norm.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/verify/batch_feeder.h"

namespace autosp {

// Stands before the name of a buffer among gradients: what a step leaves in it.
inline constexpr char kBufferPrefix[] = "buffer:";

struct GradientError {
  std::string name;
  double error = 0;  // max |a - b| / scale; infinite where `a` has a NaN
  double scale = 0;  // max(max |b|, 1e-2 G)
  int64_t rank = 0;  // whose part is the furthest off
  double bound = 0;  // that `error` must not exceed, as far as the verifier says

  bool is_within() const { return error <= bound; }
};

class GradientComparison {
 public:
  // `expected` is b, whole tensors. Requires: it outlives the comparison.
  explicit GradientComparison(const NamedTensors& expected);

  // `part` is what `rank` has where `expected_part` should be, both of the gradient `name`. Parts
  // that several ranks hold are added for each. Error: other sizes.
  absl::Status Add(const std::string& name, int64_t rank, const at::Tensor& part,
                   const at::Tensor& expected_part);

  // Worst first, and without bounds. Requires: something was added for every gradient.
  std::vector<GradientError> Errors() const;
  // The L2 norm, of the rank that is worst.
  double NormError() const;

 private:
  double ScaleOf(const std::string& name) const;

  struct Squares {
    double difference = 0;
    double expected = 0;
  };

  std::map<std::string, double, std::less<>> largest_;  // max |b|
  double largest_of_all_ = 0;
  std::map<std::string, GradientError, std::less<>> errors_;
  std::map<int64_t, Squares> squares_;  // by rank
};

}  // namespace autosp
