// A job as the coordinator keeps it. Everything here is stored, except where a field says
// otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/rank_state.h"
#include "common/verification_result.h"
#include "server/coordinator/job_state.h"
#include "server/coordinator/step_report.h"

namespace autosp {

// What was submitted, and what of its plan the coordinator needs. Never changes.
struct JobRequest {
  RequestId request_id = {};
  std::string request_digest = {};  // of all that was submitted
  std::string name = {};
  int64_t world_size = 1;
  std::string device_kind = "cpu";  // of the devices that the plan was made for
  int64_t num_steps = 0;
  int64_t tokens_per_step = 0;
  double model_flops = 0;            // of a step, without what ranks do beside; 0: not known
  double peak_flops_per_second = 0;  // of a device; 0: not known
  std::string plan_digest = {};
  std::string output_directory = {};
  std::string secret = {};   // random; those of the attempts are derived from it
  int64_t max_restarts = 0;  // since the last progress
  // Of what a verification runs; empty: none is wanted.
  std::string verification_digest = {};
  bool verify_always = false;  // also where another job's verification had the same digest

  bool operator==(const JobRequest&) const = default;
};

struct OutputFile {
  std::string kind = {};
  std::string path = {};
  std::string sha256 = {};
  int64_t size_bytes = 0;

  bool operator==(const OutputFile&) const = default;
};

struct RankPart {
  NodeId node = {};
  int64_t local_rank = 0;
  int64_t device_index = 0;
  RankState state = RankState::kPrepared;
  int64_t pid = 0;
  int64_t last_step = 0;
  // Where it listens for ranks on other nodes, "host:port"; empty when there are none.
  std::string address = {};

  bool operator==(const RankPart&) const = default;
};

enum class NodePhase {
  kPreparing,   // a prepare was sent
  kPrepared,    // and answered
  kCommitting,  // a commit was sent
  kCommitted,   // and answered
  kEnded,       // no process of the attempt is left on the node; its devices are free
};

// One node's part of an attempt.
struct NodePart {
  NodeId node = {};
  std::string agent_instance = {};
  NodePhase phase = NodePhase::kPreparing;
  // False from the coordinator's start until the agent has said what it holds. Not stored.
  bool is_attached = true;
  // Only lists of attempts that were made after this answer to the agent can show that the attempt
  // is gone; see HeartbeatRequest.last_answer_token. Not stored.
  int64_t absence_counts_after = 0;
  // A stop could not be delivered: the agent may reach the coordinator and not the other way
  // around. It is told to stop in the answers to its heartbeats. Not stored.
  bool is_unreachable = false;
};

enum class AttemptKind {
  kTraining,
  kVerification,  // one rank that runs the plan on virtual ranks, at a small size
};

// What follows when nothing of the attempt is left.
enum class AttemptOutcome { kUndecided, kRetryStart, kFinished, kFault, kCancelled };

struct Attempt {
  Generation generation = {};
  AttemptKind kind = AttemptKind::kTraining;
  AttemptOutcome outcome = AttemptOutcome::kUndecided;
  bool is_committed = false;  // a commit was sent to some agent: processes may exist
  std::vector<NodePart> nodes = {};
  std::vector<RankPart> ranks = {};
  // Messages may come twice and late: where the attempt goes on is said once, and of checkpoints
  // that it writes only later ones count.
  bool has_begun = false;
  int64_t checkpoint_noted = 0;

  // When patience ends: with agents that prepare, with ranks that come up. Not stored.
  absl::Time deadline = absl::InfiniteFuture();
  // When commands that have not taken effect are sent again. Not stored.
  absl::Time resend_at = absl::InfiniteFuture();
  // When a rank last finished a step or came up. Not stored.
  absl::Time last_progress = absl::InfinitePast();
  bool has_stepped = false;  // a rank has finished a step
  // Steps that some ranks have reported and others have not. Not stored.
  struct OpenStep {
    StepReport merged;
    int64_t num_reports = 0;
    int64_t slowest_rank = 0;
  };
  std::map<int64_t, OpenStep> open_steps;
  // Ranks that have finished as a heartbeat says, while their last reports are on the way. Counts
  // only if those are lost together with the agent. Not stored.
  struct EarlyFinish {
    int64_t pid = 0;
    int64_t last_step = 0;
    std::vector<OutputFile> outputs;
    std::optional<VerificationResult> verification;
  };
  std::map<int64_t, EarlyFinish> early_finishes;
  // What a verification's rank has found. Not stored: what follows from it is.
  std::optional<VerificationResult> verification;

  // The last lines that ranks had logged when they were last heard, by rank; shared, because states
  // are copied. Not stored.
  std::map<int64_t, std::shared_ptr<const std::vector<std::string>>> log_lines;

  NodePart* FindNode(const NodeId& node);
  const NodePart* FindNode(const NodeId& node) const;
  bool IsGone() const;      // every node has ended
  bool IsAttached() const;  // no agent is still to say what it holds
};

// Where the ranks of an attempt were, in order: so many on the first node, and so on.
struct AttemptPlace {
  struct Share {
    NodeId node = {};
    int64_t num_ranks = 0;
    bool operator==(const Share&) const = default;
  };
  Generation generation = {};
  std::vector<Share> shares = {};

  // Null where the attempt had fewer ranks. Requires: rank >= 0.
  const NodeId* NodeOf(Rank rank) const;

  bool operator==(const AttemptPlace&) const = default;
};

// What became of an attempt to verify, or why none is needed.
struct VerificationNote {
  enum class Outcome {
    kEqual,
    kDiffers,
    kNoResult,  // it was lost, failed or took too long
    kKnown,     // a job with the same digest was equal
  };
  Outcome outcome = Outcome::kEqual;
  std::string digest = {};
  VerificationResult result = {};  // where has_result()
  JobId known_from = {};           // of kKnown

  bool has_result() const { return outcome == Outcome::kEqual || outcome == Outcome::kDiffers; }
  bool operator==(const VerificationNote&) const = default;
};

struct FailureCause {
  enum class Kind {
    kRankLost,
    kRankFailed,
    kAgentLost,
    kHung,
    kStartFailed,
    kCancelled,
    kNotReattached,
    kPlanDiffers,  // the plan does not compute what the model does on one device
  };
  Kind kind = Kind::kRankLost;
  std::string message = {};
  std::optional<Rank> rank = {};
  NodeId node = {};
  int64_t last_step = 0;
  Generation generation = {};
  std::vector<std::string> log_lines = {};
  int64_t status_code = 0;
  std::string instruction = {};
  absl::Time time;
  // The rank failed because another one did: a better cause may follow.
  bool is_echo = false;

  bool operator==(const FailureCause&) const = default;
};

struct PendingReason {
  enum class Code {
    kDevices,
    kNodes,
    kBehindJob,
    kReattach,
    kRetryStart,
    kRestart,
  };
  Code code = Code::kDevices;
  std::string message = {};
  int64_t devices_needed = 0;
  int64_t devices_free = 0;
  int64_t devices_total = 0;
  int64_t nodes_registered = 0;
  int64_t queue_position = 0;  // jobs before this one
  JobId blocking_job = {};

  bool operator==(const PendingReason&) const = default;
};

struct JobProgress {
  int64_t last_step = 0;  // finished by every rank
  double first_loss = 0;
  double last_loss = 0;
  std::optional<double> last_validation_loss = {};
  double step_seconds = 0;
  int64_t tokens_of_last_step = 0;
  int64_t tokens_total = 0;
  std::map<std::string, int64_t> peak_bytes;  // highest over the ranks, by account
  absl::Time last_step_time = absl::InfinitePast();
  int64_t checkpoint_step = 0;  // of the last one that is on disk; 0: there is none
  std::string checkpoint_path = {};
  int64_t num_failed_checkpoints = 0;  // since then

  bool operator==(const JobProgress&) const = default;
};

// Attempts that followed on the loss of a rank or an agent.
struct JobRestarts {
  int64_t used = 0;   // since the last progress, which is a checkpoint of a higher step than any
  int64_t total = 0;  // since the job began
  int64_t best_checkpoint_step = 0;
  std::string last_reason = {};

  bool operator==(const JobRestarts&) const = default;
};

// Attempts of which a job remembers where they were.
inline constexpr size_t kMaxPlaces = 8;

struct Job {
  JobId id = {};
  std::shared_ptr<const JobRequest> request = {};

  JobState state = JobState::kQueued;
  std::string reason = {};  // why it is in this state
  std::optional<PendingReason> pending = {};
  // It is of before the coordinator's start. Not stored.
  bool has_old_pending = false;
  std::optional<FailureCause> cause = {};
  Generation generation = {};  // of the newest attempt; 0 before the first
  int64_t revision = 0;        // grows by one with each stored change
  int64_t last_sequence = 0;   // of its history
  int64_t num_failed_starts = 0;
  JobRestarts restarts = {};
  bool may_have_trained = false;  // an attempt that trains has been committed
  bool is_verified = false;       // the plan is equal, here or as that of an earlier job
  std::optional<VerificationNote> verification = {};  // the last one
  std::optional<Attempt> attempt = {};                // none while queued and once ended
  std::vector<RankPart> last_ranks = {};              // of the attempt that ended
  std::vector<AttemptPlace> places = {};  // of the newest attempts, whose logs can be read
  JobProgress progress;
  std::vector<OutputFile> outputs = {};
  absl::Time create_time;
  absl::Time start_time = absl::InfiniteFuture();
  absl::Time end_time = absl::InfiniteFuture();
  // No attempt before this. Not stored: a restart has waited long enough.
  absl::Time retry_at = absl::InfinitePast();

  const std::vector<RankPart>& ranks() const { return attempt ? attempt->ranks : last_ranks; }
  const AttemptPlace* FindPlace(Generation of) const;
  void NotePlace(Generation of, const std::vector<RankPart>& of_ranks);
};

absl::string_view ToString(CheckpointNote::Event event);
absl::string_view ToString(VerificationNote::Outcome outcome);
absl::string_view ToString(NodePhase phase);
absl::string_view ToString(AttemptKind kind);
absl::string_view ToString(AttemptOutcome outcome);
absl::string_view ToString(FailureCause::Kind kind);
absl::string_view ToString(PendingReason::Code code);

}  // namespace autosp
