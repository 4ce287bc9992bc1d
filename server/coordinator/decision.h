// What the coordinator decides: the outputs of Coordinator::Step. All of it is data. The driver
// stores `changed_jobs` and `history` in one transaction and only then performs `effects` and
// answers the caller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/coordinator/event.h"
#include "server/coordinator/job.h"

namespace autosp {

// --- Effects ---

struct RankAssignment {
  Rank rank = {};
  int64_t local_rank = 0;
  int64_t device_index = 0;
};

struct PrepareRanks {
  AttemptId attempt = {};
  AttemptKind kind = AttemptKind::kTraining;
  bool is_first_training = false;  // no attempt before has written a checkpoint
  NodeId node = {};
  std::string address = {};
  std::vector<RankAssignment> ranks = {};
  std::vector<NodeId> node_of_rank = {};  // of the whole attempt
};

// A command that needs no more than its target.
struct CommandAttempt {
  AgentCommand command = AgentCommand::kCommit;  // not kPrepare
  AttemptId attempt = {};
  NodeId node = {};
  std::string address = {};
  absl::Duration grace = {};  // of a stop: from asking to killing
  std::string reason = {};    // of a stop
  // Of a commit, by rank; empty when all ranks are on one node.
  std::vector<std::string> rank_addresses = {};
};

// Ask the machine whether anything listens at the agent's address.
struct ProbeAgent {
  NodeId node = {};
  std::string instance = {};
  std::string address = {};
  absl::Time asked_at;
};

using Effect = std::variant<PrepareRanks, CommandAttempt, ProbeAgent>;

// --- History ---

struct StateChange {
  std::optional<JobState> from = {};  // none for a new job
  JobState to = JobState::kQueued;
  std::string reason = {};
  std::optional<FailureCause> cause = {};

  bool operator==(const StateChange&) const = default;
};

struct ReasonChange {
  std::string reason = {};
  std::optional<PendingReason> pending = {};

  bool operator==(const ReasonChange&) const = default;
};

// Every rank has finished a step: loss of rank 0, time of the slowest, sums and maxima of the rest.
struct StepDone {
  StepReport report = {};
  Rank slowest_rank = {};

  bool operator==(const StepDone&) const = default;
};

using HistoryEvent =
    std::variant<StateChange, ReasonChange, StepDone, CheckpointNote, VerificationNote>;

// After a restart steps are done again; of two entries for a step that of the higher generation
// counts.
struct HistoryEntry {
  JobId job = {};
  int64_t sequence = 0;  // from 1, without gaps, per job
  absl::Time time;
  Generation generation = {};
  HistoryEvent what;

  bool operator==(const HistoryEntry&) const = default;
};

// --- The decision ---

// The answer to an agent.
struct AgentAnswer {
  int64_t answer_token = 0;
  std::vector<AttemptId> stop_attempts = {};
  std::vector<AttemptId> release_attempts = {};
};

struct Decision {
  absl::Status status = {};  // for the caller; an error changes nothing
  std::string reason = {};   // for the log; empty when nothing of note happened

  // Copies of the jobs as they are now; each one's revision is one more than what is stored.
  std::vector<Job> changed_jobs = {};
  std::vector<HistoryEntry> history = {};
  std::vector<Effect> effects = {};

  AgentAnswer answer;          // to AgentRegistered, AgentHeartbeat and RanksReported
  JobId job = {};              // to JobSubmitted
  bool was_duplicate = false;  // to JobSubmitted
};

}  // namespace autosp
