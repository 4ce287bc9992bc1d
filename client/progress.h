// How far a job is and how long it will still take.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "autosp/v1/job.pb.h"

namespace autosp {

// Follows the steps of one job. Thread-compatible.
class ProgressTracker {
 public:
  explicit ProgressTracker(int64_t num_steps) : num_steps_(num_steps) {}

  // `time` is when the step was finished, by the coordinator's clock. A step that is not above the
  // last one is done again by a new attempt; when that is the first one, the counting starts anew.
  void Add(const v1::StepReport& report, absl::Time time);

  int64_t num_steps() const { return num_steps_; }
  int64_t first_step() const { return first_step_; }
  int64_t last_step() const { return last_step_; }
  double first_loss() const { return first_loss_; }
  double last_loss() const { return last_loss_; }
  std::optional<double> validation_loss() const { return validation_loss_; }
  int64_t validation_step() const { return validation_step_; }
  int64_t num_tokens() const { return num_tokens_; }

  // Of the last twenty steps.
  double recent_tokens_per_second() const;

  // Of all steps but the first, which also warms up; of the first where there is no other.
  double mean_tokens_per_second() const;

  // What the remaining steps take at the recent pace, with everything between steps included.
  absl::Duration TimeLeft() const;

  // "step  12/200  loss 3.4567  1,234 tokens/s  2m05s left".
  std::string Line() const;

 private:
  struct Step {
    absl::Time time;
    double seconds;
    int64_t tokens;
  };

  int64_t num_steps_;
  int64_t first_step_ = 0;
  int64_t last_step_ = 0;
  double first_loss_ = 0.0;
  double last_loss_ = 0.0;
  std::optional<double> validation_loss_;
  int64_t validation_step_ = 0;
  int64_t num_tokens_ = 0;
  double seconds_ = 0.0;
  std::deque<Step> recent_;
  Step first_ = {};
};

// Shows a tracker's line: in place on a terminal, else every so many steps on a line of its own.
// Thread-compatible.
class ProgressPrinter {
 public:
  // `every_steps` 0 chooses about twenty lines for the whole job.
  ProgressPrinter(std::ostream& out, bool is_terminal, int64_t every_steps)
      : out_(out), is_terminal_(is_terminal), every_steps_(every_steps) {}

  void Show(const ProgressTracker& tracker);

  // A line that stays, above the progress line.
  void Print(absl::string_view line);

  // Ends the progress line; what follows starts on a new one.
  void Finish();

 private:
  std::ostream& out_;
  const bool is_terminal_;
  const int64_t every_steps_;
  std::string shown_;  // the progress line on the terminal now
};

}  // namespace autosp
