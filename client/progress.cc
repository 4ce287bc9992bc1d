#include "client/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"

namespace autosp {
namespace {

constexpr size_t kRecentSteps = 20;
constexpr int64_t kLinesPerJob = 20;
constexpr char kEraseLine[] = "\r\x1b[K";

}  // namespace

void ProgressTracker::Add(const v1::StepReport& report, absl::Time time) {
  if (report.step() <= first_step_) *this = ProgressTracker(num_steps_);
  if (report.step() <= last_step_) recent_.clear();
  const Step step{time, report.step_seconds(), report.tokens()};
  if (last_step_ == 0) {
    first_step_ = report.step();
    first_loss_ = report.loss();
    first_ = step;
  }
  last_step_ = report.step();
  last_loss_ = report.loss();
  if (report.has_validation_loss()) {
    validation_loss_ = report.validation_loss();
    validation_step_ = report.step();
  }
  num_tokens_ += report.tokens();
  seconds_ += report.step_seconds();
  recent_.push_back(step);
  if (recent_.size() > kRecentSteps) recent_.pop_front();
}

double ProgressTracker::recent_tokens_per_second() const {
  double seconds = 0.0;
  int64_t tokens = 0;
  for (const Step& step : recent_) {
    seconds += step.seconds;
    tokens += step.tokens;
  }
  return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
}

double ProgressTracker::mean_tokens_per_second() const {
  const bool has_more = num_tokens_ > first_.tokens;
  const double seconds = has_more ? seconds_ - first_.seconds : seconds_;
  const int64_t tokens = has_more ? num_tokens_ - first_.tokens : num_tokens_;
  return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
}

absl::Duration ProgressTracker::TimeLeft() const {
  if (recent_.empty()) return absl::InfiniteDuration();
  const int64_t steps_left = std::max<int64_t>(0, num_steps_ - last_step_);
  absl::Duration per_step = absl::Seconds(recent_.back().seconds);
  if (recent_.size() > 1) {
    const absl::Duration span = recent_.back().time - recent_.front().time;
    per_step = span / static_cast<int64_t>(recent_.size() - 1);
  }
  return per_step * steps_left;
}

std::string ProgressTracker::Line() const {
  const std::string total = absl::StrCat(num_steps_);
  std::string line = absl::StrFormat("step %*d/%s  loss %s", static_cast<int>(total.size()),
                                     last_step_, total, FormatLoss(last_loss_));
  if (validation_step_ == last_step_ && validation_loss_.has_value()) {
    absl::StrAppend(&line, "  validation ", FormatLoss(*validation_loss_));
  }
  absl::StrAppend(&line, "  ", FormatRate(recent_tokens_per_second()), " tokens/s");
  if (last_step_ < num_steps_) absl::StrAppend(&line, "  ", FormatSpan(TimeLeft()), " left");
  return line;
}

void ProgressPrinter::Show(const ProgressTracker& tracker) {
  const bool is_validated =
      tracker.validation_loss().has_value() && tracker.validation_step() == tracker.last_step();
  if (is_terminal_) {
    shown_ = tracker.Line();
    out_ << kEraseLine << shown_;
    // A validation loss is worth keeping.
    if (is_validated) Finish();
    out_.flush();
    return;
  }
  const int64_t every =
      every_steps_ > 0 ? every_steps_ : std::max<int64_t>(1, tracker.num_steps() / kLinesPerJob);
  const int64_t step = tracker.last_step();
  if (step % every == 0 || step == tracker.first_step() || step == tracker.num_steps() ||
      is_validated) {
    out_ << tracker.Line() << std::endl;
  }
}

void ProgressPrinter::Print(absl::string_view line) {
  if (!shown_.empty()) out_ << kEraseLine;
  out_ << line << "\n" << shown_;
  out_.flush();
}

void ProgressPrinter::Finish() {
  if (!shown_.empty()) out_ << "\n";
  shown_.clear();
  out_.flush();
}

}  // namespace autosp
