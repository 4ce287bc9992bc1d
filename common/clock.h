// Time as a dependency, so that tests own it. The state machine takes times as arguments; drivers
// read them here.

#pragma once

#include <algorithm>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace autosp {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Wall time: for records and people. May jump.
  virtual absl::Time Now() const = 0;

  // Never goes back: for leases, timeouts and durations. Counts from an arbitrary point.
  virtual absl::Duration Steady() const = 0;

  virtual void Sleep(absl::Duration duration) = 0;

  // The machine's clock; lives for ever.
  static Clock& Real();
};

// Stands still until told. Sleep() returns at once and moves the time.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : start_(start) {}

  absl::Time Now() const override {
    const std::lock_guard lock(mutex_);
    return start_ + elapsed_;
  }
  absl::Duration Steady() const override {
    const std::lock_guard lock(mutex_);
    return elapsed_;
  }
  void Sleep(absl::Duration duration) override { Advance(duration); }

  // A negative duration changes nothing: time does not go back.
  void Advance(absl::Duration duration) {
    const std::lock_guard lock(mutex_);
    elapsed_ += std::max(duration, absl::ZeroDuration());
  }

 private:
  const absl::Time start_;
  mutable std::mutex mutex_;
  absl::Duration elapsed_;  // Guarded by mutex_.
};

}  // namespace autosp
