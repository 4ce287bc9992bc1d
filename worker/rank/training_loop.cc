#include "worker/rank/training_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "absl/strings/str_format.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/rank/learning_rate.h"

namespace autosp {
namespace {

constexpr char kStepSection[] = "step";
constexpr char kEvalSection[] = "eval";

StepInfo InfoOf(const SectionResult& result) {
  StepInfo info;
  for (const auto& [account, use] : result.memory) {
    info.memory[std::string(AccountName(account))] = {.current_bytes = use.live_bytes,
                                                      .peak_bytes = use.peak_bytes};
  }
  for (const CollectiveUse& use : result.collectives) {
    // The same kind may run along several axes; reports count by kind and phase.
    const std::string kind(CollectiveKindName(use.kind));
    const std::string phase(PhaseName(use.phase));
    auto row = std::ranges::find_if(info.collectives, [&](const StepInfo::Collective& each) {
      return each.kind == kind && each.phase == phase;
    });
    if (row == info.collectives.end()) {
      row = info.collectives.insert(row, {.kind = kind, .phase = phase});
    }
    row->calls += use.calls;
    row->bytes_received += use.bytes_received;
    row->seconds += use.seconds;
  }
  return info;
}

// "step 3: loss 5.1234, 0.512 s, lr 0.001, grad norm 1.2"
std::string DescribeStep(const StepInfo& info) {
  std::string text = absl::StrFormat("step %d: loss %.6g, %.3f s, lr %.4g", info.step, info.loss,
                                     info.step_seconds, info.learning_rate);
  if (info.grad_norm) absl::StrAppendFormat(&text, ", grad norm %.4g", *info.grad_norm);
  if (info.validation_loss) {
    absl::StrAppendFormat(&text, ", validation loss %.6g", *info.validation_loss);
  }
  return text;
}

bool HasOutput(const SectionResult& result, std::string_view name) {
  return result.outputs.find(name) != result.outputs.end();
}

}  // namespace

TrainingLoop::TrainingLoop(const JobSpec& job, Executor& executor, DataFeeder& feeder,
                           Checkpointer& checkpointer, RankReporter& reporter,
                           const std::atomic<bool>& stop)
    : job_(job),
      executor_(executor),
      feeder_(feeder),
      checkpointer_(checkpointer),
      reporter_(reporter),
      stop_(stop) {}

absl::Status TrainingLoop::Run(int64_t num_done) {
  if (job_.data.validation.fraction > 0 &&
      executor_.program().FindSection(kEvalSection) == nullptr) {
    return FailedPrecondition("data.validation: the program has no section '", kEvalSection, "'");
  }
  for (int64_t step = num_done; step < job_.training.steps; ++step) {
    if (stop_.load()) {
      return absl::CancelledError(
          absl::StrCat("stopped after step ", step, " of ", job_.training.steps));
    }
    current_step_ = step + 1;
    RETURN_IF_ERROR(WithContext(RunStep(step), "step ", current_step_));
  }
  checkpointer_.Finish();
  return absl::OkStatus();
}

absl::Status TrainingLoop::RunStep(int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  const double learning_rate = LearningRateAt(job_.training, step);
  feeder_.SelectTrainingStep(step);
  RETURN_IF_ERROR(executor_.SetScalar("learning_rate", static_cast<float>(learning_rate)));
  RETURN_IF_ERROR(executor_.SetScalar("step", static_cast<float>(step + 1)));
  ASSIGN_OR_RETURN(const SectionResult result, executor_.Run(kStepSection));
  StepInfo info = InfoOf(result);
  info.step_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  info.step = step + 1;
  info.learning_rate = learning_rate;
  info.tokens = job_.training.global_batch_size * job_.training.seq_len;
  ASSIGN_OR_RETURN(info.loss, result.Number("loss"));
  if (HasOutput(result, "grad_norm")) {
    ASSIGN_OR_RETURN(info.grad_norm, result.Number("grad_norm"));
  }
  RETURN_IF_ERROR(CheckFinite(info.loss, "loss", step));
  // The loss is that of the weights before the step; what the step has made of them shows here.
  if (info.grad_norm) {
    RETURN_IF_ERROR(CheckFinite(*info.grad_norm, "norm of the gradients", step));
  }
  if (IsValidationDue(step)) {
    ASSIGN_OR_RETURN(info.validation_loss, MeasureValidationLoss(), "validation");
    RETURN_IF_ERROR(CheckFinite(*info.validation_loss, "validation loss", step));
  }
  LogInfo(DescribeStep(info));
  reporter_.Step(info);
  return checkpointer_.AfterStep(step + 1, executor_);
}

absl::Status TrainingLoop::CheckFinite(double value, const char* name, int64_t step) const {
  if (std::isfinite(value)) return absl::OkStatus();
  if (job_.training.on_nan == NanPolicy::kContinue) {
    LogWarning("the ", name, " of step ", step + 1, " is ", value);
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "the ", name, " is ", value, "; lower training.optimizer.lr, ",
      job_.training.clip_grad_norm > 0.0 ? "" : "clip gradients with training.clip_grad_norm, ",
      "or go on with training.on_nan: continue");
}

bool TrainingLoop::IsValidationDue(int64_t step) const {
  const ValidationSpec& validation = job_.data.validation;
  if (validation.fraction <= 0) return false;
  return (step + 1) % validation.every_steps == 0 || step + 1 == job_.training.steps;
}

// The mean over batches of the mean over each one's valid tokens.
absl::StatusOr<double> TrainingLoop::MeasureValidationLoss() {
  const int64_t num_batches =
      std::min(job_.data.validation.batches, feeder_.num_validation_batches());
  double sum = 0;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    feeder_.SelectValidationBatch(batch);
    ASSIGN_OR_RETURN(const SectionResult result, executor_.Run(kEvalSection));
    ASSIGN_OR_RETURN(const double loss, result.Number("loss"));
    sum += loss;
  }
  return sum / static_cast<double>(num_batches);
}

}  // namespace autosp
