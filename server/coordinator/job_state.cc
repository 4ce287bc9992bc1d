#include "server/coordinator/job_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"

namespace autosp {
namespace {

// The whole lifecycle.
constexpr JobEdge kEdges[] = {
    {JobState::kQueued, JobTrigger::kDevicesReserved, JobState::kStarting},
    {JobState::kQueued, JobTrigger::kVerifierReserved, JobState::kVerifying},
    {JobState::kQueued, JobTrigger::kCancelRequested, JobState::kCancelled},

    {JobState::kVerifying, JobTrigger::kAllRanksFinished, JobState::kStopping},
    {JobState::kVerifying, JobTrigger::kStartFailed, JobState::kStopping},
    {JobState::kVerifying, JobTrigger::kFaultFound, JobState::kStopping},
    {JobState::kVerifying, JobTrigger::kCancelRequested, JobState::kStopping},

    {JobState::kStarting, JobTrigger::kAllRanksUp, JobState::kRunning},
    {JobState::kStarting, JobTrigger::kStartFailed, JobState::kStopping},
    {JobState::kStarting, JobTrigger::kFaultFound, JobState::kStopping},
    {JobState::kStarting, JobTrigger::kCancelRequested, JobState::kStopping},

    {JobState::kRunning, JobTrigger::kAllRanksFinished, JobState::kStopping},
    {JobState::kRunning, JobTrigger::kFaultFound, JobState::kStopping},
    {JobState::kRunning, JobTrigger::kCancelRequested, JobState::kStopping},

    // No attempt outlives its job: only when nothing of it is left does the job end.
    {JobState::kStopping, JobTrigger::kStoppedToRetry, JobState::kQueued},
    {JobState::kStopping, JobTrigger::kStoppedAfterVerification, JobState::kQueued},
    {JobState::kStopping, JobTrigger::kStoppedAfterFinish, JobState::kSucceeded},
    {JobState::kStopping, JobTrigger::kStoppedAfterFault, JobState::kFailed},
    {JobState::kStopping, JobTrigger::kStoppedAfterCancel, JobState::kCancelled},
};

}  // namespace

absl::Span<const JobEdge> JobEdges() { return kEdges; }

absl::StatusOr<JobState> NextState(JobState from, JobTrigger trigger) {
  const auto* edge = std::ranges::find_if(
      kEdges, [&](const JobEdge& e) { return e.from == from && e.trigger == trigger; });
  if (edge != std::end(kEdges)) return edge->to;
  return FailedPrecondition("trigger ", ToString(trigger), " is not allowed in state ",
                            ToString(from));
}

bool IsTerminal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

absl::string_view ToString(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kVerifying:
      return "verifying";
    case JobState::kStarting:
      return "starting";
    case JobState::kRunning:
      return "running";
    case JobState::kStopping:
      return "stopping";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  AUTOSP_CHECK(false, "job state ", static_cast<int>(state));
}

absl::string_view ToString(JobTrigger trigger) {
  switch (trigger) {
    case JobTrigger::kDevicesReserved:
      return "devices_reserved";
    case JobTrigger::kVerifierReserved:
      return "verifier_reserved";
    case JobTrigger::kAllRanksUp:
      return "all_ranks_up";
    case JobTrigger::kAllRanksFinished:
      return "all_ranks_finished";
    case JobTrigger::kStartFailed:
      return "start_failed";
    case JobTrigger::kFaultFound:
      return "fault_found";
    case JobTrigger::kCancelRequested:
      return "cancel_requested";
    case JobTrigger::kStoppedToRetry:
      return "stopped_to_retry";
    case JobTrigger::kStoppedAfterVerification:
      return "stopped_after_verification";
    case JobTrigger::kStoppedAfterFinish:
      return "stopped_after_finish";
    case JobTrigger::kStoppedAfterFault:
      return "stopped_after_fault";
    case JobTrigger::kStoppedAfterCancel:
      return "stopped_after_cancel";
  }
  AUTOSP_CHECK(false, "job trigger ", static_cast<int>(trigger));
}

absl::StatusOr<JobState> ParseJobState(absl::string_view text) {
  for (JobState state : kAllJobStates) {
    if (ToString(state) == text) return state;
  }
  return InvalidArgument("job state '", text, "' is unknown");
}

std::string JobStateDiagram() {
  std::string text = "stateDiagram-v2\n    [*] --> queued: submitted\n";
  for (const JobEdge& edge : kEdges) {
    absl::StrAppend(&text, "    ", ToString(edge.from), " --> ", ToString(edge.to), ": ",
                    ToString(edge.trigger), "\n");
  }
  for (JobState state : kAllJobStates) {
    if (IsTerminal(state)) absl::StrAppend(&text, "    ", ToString(state), " --> [*]\n");
  }
  return text;
}

}  // namespace autosp
