// Everything that an agent knows of its attempts, and what follows from each thing that happens.
//
// Deterministic: no clock, thread, file, process or RPC inside. Each method takes what has happened
// and when, changes the table and returns effects for the agent to perform. Times are steady
// (Clock::Steady). Thread-compatible; the agent's loop owns it.
//
// Three rules hold throughout:
// - An order for an older generation than one that this node has seen of the job is refused.
// - A device belongs to an attempt from Reserve until no process of the attempt exists.
// - The first rank that ends otherwise than by finishing ends the attempt on this node. A rank's
//   own words and the end of its log are waited for (shortly) before its end is judged.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_effects.h"

namespace autosp::agent {

// How long the last report and log lines of a process that has ended may take to arrive.
inline constexpr absl::Duration kLastWordsTimeout = absl::Seconds(1);
// How long an echo of a lost peer waits for the cause to show on this node.
inline constexpr absl::Duration kEchoTimeout = absl::Seconds(2);
// How long a process may live on after its last word.
inline constexpr absl::Duration kExitAfterFinished = absl::Seconds(30);
inline constexpr absl::Duration kExitAfterFailed = absl::Seconds(5);
// Jobs whose generations are remembered after their attempts are gone.
inline constexpr size_t kMaxRememberedJobs = 4096;

struct Reservation {
  AttemptKey key;
  std::vector<RankSlot> slots = {};
  bool is_verification = false;
  absl::Duration commit_timeout = absl::ZeroDuration();
};

enum class ReserveResult {
  kReserved,  // New: check and write its files, then FilesReady or ReservationFailed.
  kRepeated,  // Was prepared before in the same way; nothing is to be done.
};

class AttemptTable {
 public:
  AttemptTable(NodeId node_id, int num_devices)
      : node_id_(std::move(node_id)), num_devices_(num_devices) {}

  // Every method that can ask for something appends to `effects`, also when it returns an error.

  // Orders of the coordinator.

  // RESOURCE_EXHAUSTED when a device is taken. An older attempt of the same job is killed; until it
  // is gone the answer is UNAVAILABLE.
  absl::StatusOr<ReserveResult> Reserve(const Reservation& reservation, absl::Duration now,
                                        Effects& effects);
  // ABORTED when the attempt was ended while its files were written.
  absl::Status FilesReady(const AttemptKey& key);
  // Gives the devices back; the same generation may be reserved again.
  void ReservationFailed(const AttemptKey& key);
  absl::Status Commit(const AttemptKey& key, absl::Duration now, Effects& effects);
  absl::Status Abort(const AttemptKey& key, absl::Duration now, Effects& effects);
  // NOT_FOUND when nothing of the attempt is here; it is refused from then on all the same.
  absl::Status Stop(const AttemptKey& key, absl::Duration grace, absl::string_view reason,
                    absl::Duration now, Effects& effects);
  // As Stop, for a list that may name attempts that are old or gone: those are left alone.
  void StopListed(const AttemptKey& key, absl::Duration grace, absl::string_view reason,
                  absl::Duration now, Effects& effects);
  // Stops all that is left, for the end of the agent itself.
  void StopAll(absl::Duration grace, absl::string_view reason, absl::Duration now,
               Effects& effects);
  void Release(const AttemptKey& key, Effects& effects);

  // The coordinator has answered a heartbeat that was sent at `sent_at`.
  void RenewLease(absl::Duration sent_at, absl::Duration lease);
  bool HasLease(absl::Duration now) const { return now < lease_deadline_; }

  // What becomes of processes.

  bool ShouldStart(const AttemptKey& key, Rank rank) const;
  // Started or NotStarted follows, maybe much later; until then the attempt does not end. Requires:
  // ShouldStart.
  void BeginStart(const AttemptKey& key, Rank rank);
  bool IsStarting(const AttemptKey& key, Rank rank) const;
  void Started(const AttemptKey& key, Rank rank, int64_t pid, absl::Duration now, Effects& effects);
  void NotStarted(const AttemptKey& key, Rank rank, const absl::Status& error, absl::Duration now,
                  Effects& effects);
  void Signalled(const AttemptKey& key, Rank rank, int signal_number);
  void ProcessEnded(const AttemptKey& key, Rank rank, const ProcessExit& exit, absl::Duration now,
                    Effects& effects);
  void LogClosed(const AttemptKey& key, Rank rank, absl::Duration now, Effects& effects);

  // What ranks say. Refused: another generation, a rank of another node, a message out of order.

  absl::Status Hello(const AttemptKey& key, Rank rank, int64_t pid, absl::Duration now,
                     Effects& effects);
  absl::Status StepDone(const AttemptKey& key, Rank rank, int64_t step, absl::Duration now);
  // Says something that changes nothing here.
  absl::Status ShowedSign(const AttemptKey& key, Rank rank, absl::Duration now);
  absl::Status Finished(const AttemptKey& key, Rank rank, RankResult result, absl::Duration now,
                        Effects& effects);
  absl::Status Failed(const AttemptKey& key, Rank rank, RankFailureInfo failure, absl::Duration now,
                      Effects& effects);
  void StreamClosed(const AttemptKey& key, Rank rank, absl::Duration now, Effects& effects);

  // Everything that follows from time alone. Call it a few times a second.
  void Tick(absl::Duration now, Effects& effects);

  const std::map<AttemptKey, Attempt>& attempts() const { return attempts_; }
  const Attempt* Find(const AttemptKey& key) const;
  int num_devices() const { return num_devices_; }
  int NumDevicesTaken() const;

 private:
  struct JobMemory {
    Generation newest;
    // The newest attempt was aborted or has ended: a late Prepare or Commit of it is refused.
    bool is_over = false;
    int64_t last_used = 0;
  };

  absl::Status CheckGeneration(const AttemptKey& key) const;
  absl::Status CheckReservation(const Reservation& reservation) const;
  absl::Status CheckNotOver(const AttemptKey& key) const;
  absl::Status CheckDevicesFree(const Reservation& reservation) const;
  JobMemory& Remember(const AttemptKey& key);
  void ForgetOldestJob();
  void MarkOver(const AttemptKey& key);
  // False when there was none.
  bool KillOlderAttempts(const AttemptKey& key, absl::Duration now, Effects& effects);

  Attempt* FindMutable(const AttemptKey& key);
  RankRecord* FindRank(const AttemptKey& key, Rank rank);
  // The rank that may speak now, or why not.
  absl::StatusOr<RankRecord*> FindSpeaker(const AttemptKey& key, Rank rank);

  void BeginStop(Attempt& attempt, absl::string_view reason);
  void StopAttempt(Attempt& attempt, absl::Duration grace, absl::string_view reason,
                   absl::Duration now, Effects& effects);
  void StopRank(const Attempt& attempt, RankRecord& rank, absl::Duration grace, absl::Duration now,
                Effects& effects);
  // Judges the end of a process once everything about it is known.
  void Settle(Attempt& attempt, RankRecord& rank, absl::Duration now, Effects& effects);
  void StopOthersAfter(Attempt& attempt, const RankRecord& rank, absl::Duration now,
                       Effects& effects);
  void EndIfSettled(Attempt& attempt, Effects& effects);
  void TickAttempt(Attempt& attempt, absl::Duration now, Effects& effects);
  void TickRank(Attempt& attempt, RankRecord& rank, absl::Duration now, Effects& effects);
  std::string DescribeEnd(const RankRecord& rank) const;

  const NodeId node_id_;
  const int num_devices_;
  std::map<AttemptKey, Attempt> attempts_;
  std::map<JobId, JobMemory> jobs_;
  int64_t num_uses_ = 0;
  absl::Duration lease_deadline_ = -absl::InfiniteDuration();
  absl::Duration lease_;
};

}  // namespace autosp::agent
