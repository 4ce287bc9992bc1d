// The lifecycle of a job: states, what moves it, and the one table of edges.
//
// A submission is compiled before it becomes a job, so there is no compiling state. A job that is
// restarted waits for devices like any other.
#pragma once

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace autosp {

enum class JobState {
  kQueued,     // durable; waits for devices
  kVerifying,  // a node runs the plan at a small size beside the model on one device
  kStarting,   // devices reserved; agents prepare and commit, ranks come up
  kRunning,    // every rank has said hello
  kStopping,   // the attempt is over; its ranks are being stopped
  kSucceeded,  // terminal
  kFailed,     // terminal
  kCancelled,  // terminal
};

enum class JobTrigger {
  kDevicesReserved,
  kVerifierReserved,
  kAllRanksUp,
  kAllRanksFinished,
  kStartFailed,  // agents did not prepare or commit
  kFaultFound,   // a rank or an agent was lost, a rank failed, or the job hangs
  kCancelRequested,
  kStoppedToRetry,  // nothing of the attempt is left; why it was stopped says what follows
  kStoppedAfterVerification,
  kStoppedAfterFinish,
  kStoppedAfterFault,
  kStoppedAfterCancel,
};

struct JobEdge {
  JobState from;
  JobTrigger trigger;
  JobState to;
};

inline constexpr std::array kAllJobStates = {
    JobState::kQueued,   JobState::kVerifying, JobState::kStarting, JobState::kRunning,
    JobState::kStopping, JobState::kSucceeded, JobState::kFailed,   JobState::kCancelled,
};
inline constexpr std::array kAllJobTriggers = {
    JobTrigger::kDevicesReserved,
    JobTrigger::kVerifierReserved,
    JobTrigger::kAllRanksUp,
    JobTrigger::kAllRanksFinished,
    JobTrigger::kStartFailed,
    JobTrigger::kFaultFound,
    JobTrigger::kCancelRequested,
    JobTrigger::kStoppedToRetry,
    JobTrigger::kStoppedAfterVerification,
    JobTrigger::kStoppedAfterFinish,
    JobTrigger::kStoppedAfterFault,
    JobTrigger::kStoppedAfterCancel,
};

absl::Span<const JobEdge> JobEdges();

// The state after `trigger`. A pair that is not in the table is refused, never ignored.
absl::StatusOr<JobState> NextState(JobState from, JobTrigger trigger);

bool IsTerminal(JobState state);

// "queued", "all_ranks_up": for messages, labels of metrics, and the database.
absl::string_view ToString(JobState state);
absl::string_view ToString(JobTrigger trigger);
absl::StatusOr<JobState> ParseJobState(absl::string_view text);

// The table as a mermaid diagram, for docs/architecture-jobs.md.
std::string JobStateDiagram();

}  // namespace autosp
