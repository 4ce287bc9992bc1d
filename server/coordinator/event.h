// What can happen to the coordinator: the inputs of Coordinator::Step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "server/coordinator/job.h"

namespace autosp {

struct AttemptId {
  JobId job = {};
  Generation generation = {};

  friend auto operator<=>(const AttemptId&, const AttemptId&) = default;
};

// A user's job that was compiled and checked.
struct JobSubmitted {
  JobId job = {};  // the driver makes ids, so that Step stays deterministic
  std::shared_ptr<const JobRequest> request = {};
};

struct CancelRequested {
  JobId job = {};
  std::string reason = {};
};

// How a rank ended and what was left of it.
struct RankExit {
  int64_t exit_code = 0;
  int64_t signal_number = 0;  // 0: not ended by a signal
  std::vector<std::string> log_lines = {};

  // What the rank said of itself, where it did.
  bool has_failure = false;
  int64_t status_code = 0;
  std::string message = {};
  std::string instruction = {};
  int64_t step = 0;
  bool is_peer_lost = false;
};

struct RankStatus {
  Rank rank = {};
  RankState state = RankState::kPrepared;
  int64_t pid = 0;
  int64_t last_step = 0;
  std::optional<RankExit> exit = {};
  std::vector<OutputFile> outputs = {};
  std::optional<VerificationResult> verification = {};
  std::vector<std::string> log_lines = {};  // the last ones so far, of a rank that has not ended
  std::string stop_reason = {};             // why its agent stopped it, where that is known
};

// What an agent holds of one attempt.
struct AttemptStatus {
  enum class Phase { kPrepared, kRunning, kEnded };
  AttemptId attempt = {};
  Phase phase = Phase::kPrepared;
  std::vector<RankStatus> ranks = {};
  std::string end_reason = {};  // why the agent is ending or has ended it
};

struct AgentInfo {
  NodeId node = {};
  std::string instance = {};
  std::string address = {};
  std::string version = {};
  std::string device_kind = {};
  int64_t num_devices = 0;
  int64_t device_memory_bytes = 0;
  int64_t start_ms = 0;  // by the agent's clock; orders instances of one node
};

struct AgentRegistered {
  AgentInfo info;
  std::vector<AttemptStatus> attempts = {};
  bool is_ending = false;
};

// How far an agent's clock is ahead of the coordinator's, give or take the uncertainty.
struct ClockDifference {
  absl::Duration ahead = {};
  absl::Duration uncertainty = {};
};

struct AgentHeartbeat {
  NodeId node = {};
  std::string instance = {};
  int64_t sequence = 0;
  int64_t last_answer_token = 0;
  std::vector<AttemptStatus> attempts = {};
  std::optional<ClockDifference> clock = {};  // for people; nothing is decided by it
  bool is_ending = false;                     // the agent takes nothing new
};

struct RankReport {
  AttemptId attempt = {};
  Rank rank = {};
  std::variant<StepReport, RankStatus, CheckpointNote> report;
};

struct RanksReported {
  NodeId node = {};
  std::string instance = {};
  std::vector<RankReport> reports = {};
};

enum class AgentCommand { kPrepare, kCommit, kAbort, kStop };

// Where a rank listens for ranks on other nodes.
struct RankAddress {
  Rank rank = {};
  std::string address = {};

  bool operator==(const RankAddress&) const = default;
};

// An RPC to an agent has been answered or given up.
struct CommandDone {
  NodeId node = {};
  AttemptId attempt = {};
  AgentCommand command = AgentCommand::kPrepare;
  absl::Status status = {};
  std::vector<RankAddress> rank_addresses = {};  // of a prepare, when the attempt spans nodes
};

// The answer to ProbeAgent. Refused: the machine answers, and nothing listens there.
struct AgentProbed {
  NodeId node = {};
  std::string instance = {};
  absl::Time asked_at;
  bool is_refused = false;
};

// Time has passed; to be given several times a second.
struct Tick {};

using Event = std::variant<JobSubmitted, CancelRequested, AgentRegistered, AgentHeartbeat,
                           RanksReported, CommandDone, AgentProbed, Tick>;

}  // namespace autosp
