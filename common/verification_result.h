// How a plan compares with the model on one device: what a node finds out, and the coordinator
// keeps.
#pragma once

#include <cstdint>
#include <string>

namespace autosp {

struct VerificationResult {
  bool is_equal = false;
  std::string worst = {};  // what is the furthest off for what it may be: "gradient of fc.weight"
  double error = 0;        // of that; not finite where the plan's number is not
  double bound = 0;        // that `error` must not exceed
  int64_t num_gradients = 0;
  double seconds = 0;

  bool operator==(const VerificationResult&) const = default;

  // "gradient of fc.weight has error 0.25, at most 1e-05 is allowed".
  std::string WorstText() const;
};

}  // namespace autosp
