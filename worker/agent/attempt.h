// What an agent knows of one attempt of a job on its node: plain data and the two edge tables that
// say how it may change. AttemptTable is the only one that changes it.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/rank_state.h"
#include "common/verification_result.h"

namespace autosp::agent {

// Which attempt of which job. Ordered, so that the attempts of a job lie side by side.
struct AttemptKey {
  JobId job_id;
  Generation generation;

  friend auto operator<=>(const AttemptKey&, const AttemptKey&) = default;
  // "job job-7xk generation 2", for messages.
  std::string ToString() const;
};

enum class AttemptPhase {
  kPreparing,  // Devices are reserved; its files are being checked and written.
  kPrepared,   // Waits for the commit; no process exists.
  kRunning,    // Committed; processes exist or have just ended by themselves.
  kStopping,   // Being ended; processes still exist.
  kEnded,      // No process exists and none will; kept until the coordinator releases it.
};

enum class AttemptEvent {
  kFilesReady,
  kCommitted,
  kStopRequested,  // By the coordinator, by the loss of the lease or of a rank.
  kLastRankGone,
};

enum class RankEvent {
  kSpawned,
  kHello,
  kFinished,
  kFailed,
  kGoneByItself,
  kGoneOnRequest,
};

absl::string_view AttemptPhaseName(AttemptPhase phase);

// FAILED_PRECONDITION for a pair that is not in the edge table.
absl::StatusOr<AttemptPhase> NextPhase(AttemptPhase from, AttemptEvent event);
absl::StatusOr<RankState> NextRankState(RankState from, RankEvent event);

struct RankSlot {
  Rank rank;
  int local_rank = 0;
  int device_index = 0;

  friend bool operator==(const RankSlot&, const RankSlot&) = default;
};

// How a process ended.
struct ProcessExit {
  int exit_code = -1;     // -1 when a signal ended it.
  int signal_number = 0;  // 0 when none.

  // "exited with code 3", "was killed by signal 9 (Killed)".
  std::string ToString() const;
};

// What a rank says of its own failure.
struct RankFailureInfo {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string message = {};
  std::string instruction = {};
  int64_t step = 0;
  bool is_peer_lost = false;  // An echo: the cause is at another rank.
};

struct OutputFileInfo {
  std::string kind = {};
  std::string path = {};
  std::string sha256 = {};
  int64_t size_bytes = 0;
};

// What a rank leaves that has finished.
struct RankResult {
  std::vector<OutputFileInfo> outputs = {};
  std::optional<VerificationResult> verification = {};  // Of an attempt that verifies.
};

struct RankRecord {
  RankSlot slot;
  RankState state = RankState::kPrepared;
  int64_t pid = 0;
  int64_t last_step = 0;
  absl::Duration
      last_sign_at;  // When it last reported anything; with last_step the facts of a hang.

  bool is_starting = false;     // A thread is making its process.
  bool is_unwanted = false;     // And that is to be killed at once.
  bool has_process = false;     // From its start until its end was noticed.
  bool is_settled = false;      // Nothing more will come of it; its state is final.
  bool is_stream_open = false;  // Its call to RankService.
  bool is_log_open = false;     // Its output.
  bool was_signalled = false;   // By us; what it says after that is our doing.
  bool was_killed = false;      // By us, with SIGKILL.
  std::optional<ProcessExit> exit;
  std::optional<RankFailureInfo> failure;
  RankResult result;

  // A process that has ended is judged when its call and its log have ended too, at the latest
  // then: its last words may still be on the way.
  absl::Duration judge_at = absl::InfiniteDuration();
  // When a process that has said its last word, or was asked to stop, is killed.
  absl::Duration kill_at = absl::InfiniteDuration();
};

struct Attempt {
  AttemptKey key;
  AttemptPhase phase = AttemptPhase::kPreparing;
  bool is_verification = false;
  std::vector<RankRecord> ranks;
  // Why the agent ended it, for people; empty while it runs and when all ranks finished.
  std::string end_reason;
  absl::Duration commit_deadline;
  // An echo of a lost peer ends the attempt only then, so that the cause can show first.
  absl::Duration echo_deadline = absl::InfiniteDuration();

  // nullptr when the rank is not on this node.
  const RankRecord* FindRank(Rank rank) const;
  RankRecord* FindRank(Rank rank);
  bool AllRanksSettled() const;
};

}  // namespace autosp::agent
