// How long to wait before the next try: longer each time, and never the same for two agents, so
// that a coordinator that comes back is not met by all of them at once.

#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace autosp::agent {

// Thread-compatible.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration longest)
      : first_(first), longest_(longest), next_(first) {}

  // `random` is from 0 to 1. Between half of the present interval and all of it.
  absl::Duration Next(double random) {
    const absl::Duration interval = next_;
    next_ = std::min(next_ * 2, longest_);
    return interval * (0.5 + 0.5 * random);
  }
  void Reset() { next_ = first_; }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  absl::Duration next_;
};

}  // namespace autosp::agent
