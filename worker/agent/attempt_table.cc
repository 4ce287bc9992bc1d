// The orders of the coordinator and the lease. What processes and ranks do is in
// attempt_table_ranks.cc.

#include "worker/agent/attempt_table.h"

#include <signal.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/agent/agent_errors.h"

namespace autosp::agent {
namespace {

absl::Status CheckSameSlots(const Attempt& known, const Reservation& reservation) {
  const bool is_same = std::equal(
      known.ranks.begin(), known.ranks.end(), reservation.slots.begin(), reservation.slots.end(),
      [](const RankRecord& rank, const RankSlot& slot) { return rank.slot == slot; });
  if (is_same) return absl::OkStatus();
  return FailedPrecondition(known.key.ToString(), " was prepared with other ranks or devices; ",
                            "abort it and start the next generation");
}

}  // namespace

absl::StatusOr<ReserveResult> AttemptTable::Reserve(const Reservation& reservation,
                                                    absl::Duration now, Effects& effects) {
  const AttemptKey& key = reservation.key;
  RETURN_IF_ERROR(CheckGeneration(key));
  if (!HasLease(now)) {
    return WithReason(
        Unavailable("node ", node_id_.value(), " holds no lease; wait for its next heartbeat"),
        kReasonNoLease);
  }
  RETURN_IF_ERROR(CheckReservation(reservation));
  if (const Attempt* known = Find(key); known != nullptr) {
    if (known->phase == AttemptPhase::kPreparing) {
      return Unavailable(key.ToString(), " is being prepared; ask again");
    }
    RETURN_IF_ERROR(CheckNotOver(key));
    RETURN_IF_ERROR(CheckSameSlots(*known, reservation));
    return ReserveResult::kRepeated;
  }
  RETURN_IF_ERROR(CheckNotOver(key));
  if (KillOlderAttempts(key, now, effects)) {
    return Unavailable("an older attempt of job ", key.job_id.value(), " is being stopped on node ",
                       node_id_.value(), "; ask again");
  }
  RETURN_IF_ERROR(CheckDevicesFree(reservation));
  Remember(key);
  Attempt& attempt = attempts_[key];
  attempt.key = key;
  attempt.is_verification = reservation.is_verification;
  attempt.commit_deadline = now + reservation.commit_timeout;
  for (const RankSlot& slot : reservation.slots) {
    RankRecord record;
    record.slot = slot;
    attempt.ranks.push_back(std::move(record));
  }
  return ReserveResult::kReserved;
}

absl::Status AttemptTable::CheckGeneration(const AttemptKey& key) const {
  const auto job = jobs_.find(key.job_id);
  if (job == jobs_.end() || key.generation >= job->second.newest) return absl::OkStatus();
  return StaleGenerationError(key, job->second.newest);
}

absl::Status AttemptTable::CheckNotOver(const AttemptKey& key) const {
  const auto job = jobs_.find(key.job_id);
  if (job == jobs_.end() || job->second.newest != key.generation || !job->second.is_over) {
    return absl::OkStatus();
  }
  return WithReason(FailedPrecondition(key.ToString(), " is over on node ", node_id_.value(),
                                       "; start the next generation"),
                    kReasonAttemptOver);
}

absl::Status AttemptTable::CheckReservation(const Reservation& reservation) const {
  if (reservation.slots.empty()) {
    return InvalidArgument(reservation.key.ToString(), " has no rank for node ", node_id_.value());
  }
  std::set<Rank> ranks;
  std::set<int> devices;
  for (const RankSlot& slot : reservation.slots) {
    if (slot.device_index < 0 || slot.device_index >= num_devices_) {
      return InvalidArgument("device ", slot.device_index, " of rank ", slot.rank.value(),
                             " does not exist: node ", node_id_.value(), " has ", num_devices_,
                             " devices, numbered from 0");
    }
    if (!ranks.insert(slot.rank).second || !devices.insert(slot.device_index).second) {
      return InvalidArgument("rank ", slot.rank.value(), " or device ", slot.device_index,
                             " is named twice for node ", node_id_.value());
    }
  }
  return absl::OkStatus();
}

absl::Status AttemptTable::CheckDevicesFree(const Reservation& reservation) const {
  for (const auto& [key, attempt] : attempts_) {
    if (attempt.phase == AttemptPhase::kEnded) continue;
    for (const RankRecord& taken : attempt.ranks) {
      for (const RankSlot& slot : reservation.slots) {
        if (slot.device_index != taken.slot.device_index) continue;
        return WithReason(ResourceExhausted("device ", slot.device_index, " of node ",
                                            node_id_.value(), " is held by ", key.ToString(),
                                            ", which is ", AttemptPhaseName(attempt.phase), "; ",
                                            num_devices_ - NumDevicesTaken(), " of ", num_devices_,
                                            " devices are free"),
                          kReasonDeviceTaken);
      }
    }
  }
  return absl::OkStatus();
}

void AttemptTable::MarkOver(const AttemptKey& key) {
  JobMemory& job = Remember(key);
  if (job.newest == key.generation) job.is_over = true;
}

bool AttemptTable::KillOlderAttempts(const AttemptKey& key, absl::Duration now, Effects& effects) {
  bool found = false;
  for (auto& [other_key, other] : attempts_) {
    if (other_key.job_id != key.job_id || other_key.generation >= key.generation) continue;
    if (other.phase == AttemptPhase::kEnded) continue;
    StopAttempt(other, absl::ZeroDuration(),
                absl::StrCat("generation ", key.generation.value(), " of the job replaces it"), now,
                effects);
    // One that had no process has ended at once.
    found |= other.phase != AttemptPhase::kEnded;
  }
  return found;
}

AttemptTable::JobMemory& AttemptTable::Remember(const AttemptKey& key) {
  if (jobs_.size() >= kMaxRememberedJobs && !jobs_.contains(key.job_id)) ForgetOldestJob();
  JobMemory& job = jobs_[key.job_id];
  if (key.generation > job.newest) {
    job.newest = key.generation;
    job.is_over = false;
  }
  job.last_used = ++num_uses_;
  return job;
}

void AttemptTable::ForgetOldestJob() {
  const auto has_attempt = [this](const JobId& job_id) {
    const auto next = attempts_.lower_bound(AttemptKey{job_id, Generation(0)});
    return next != attempts_.end() && next->first.job_id == job_id;
  };
  auto oldest = jobs_.end();
  for (auto job = jobs_.begin(); job != jobs_.end(); ++job) {
    if (has_attempt(job->first)) continue;
    if (oldest == jobs_.end() || job->second.last_used < oldest->second.last_used) oldest = job;
  }
  if (oldest != jobs_.end()) jobs_.erase(oldest);
}

absl::Status AttemptTable::FilesReady(const AttemptKey& key) {
  Attempt* attempt = FindMutable(key);
  if (attempt == nullptr || attempt->phase != AttemptPhase::kPreparing) {
    return Aborted(key.ToString(), " was ended while it was being prepared");
  }
  ASSIGN_OR_RETURN(attempt->phase, NextPhase(attempt->phase, AttemptEvent::kFilesReady));
  return absl::OkStatus();
}

void AttemptTable::ReservationFailed(const AttemptKey& key) {
  const Attempt* attempt = Find(key);
  if (attempt != nullptr && attempt->phase == AttemptPhase::kPreparing) attempts_.erase(key);
}

absl::Status AttemptTable::Commit(const AttemptKey& key, absl::Duration now, Effects& effects) {
  RETURN_IF_ERROR(CheckGeneration(key));
  RETURN_IF_ERROR(CheckNotOver(key));
  Attempt* attempt = FindMutable(key);
  if (attempt == nullptr || attempt->phase == AttemptPhase::kPreparing) {
    return WithReason(FailedPrecondition(key.ToString(), " is not prepared on node ",
                                         node_id_.value(), "; prepare it first"),
                      kReasonAttemptNotPrepared);
  }
  if (attempt->phase != AttemptPhase::kPrepared) return absl::OkStatus();  // Asked before.
  if (!HasLease(now)) {
    return WithReason(
        Unavailable("node ", node_id_.value(), " holds no lease; wait for its next heartbeat"),
        kReasonNoLease);
  }
  ASSIGN_OR_RETURN(attempt->phase, NextPhase(attempt->phase, AttemptEvent::kCommitted));
  for (const RankRecord& rank : attempt->ranks) {
    effects.push_back(StartRank{key, rank.slot.rank});
  }
  return absl::OkStatus();
}

absl::Status AttemptTable::Abort(const AttemptKey& key, absl::Duration now, Effects& effects) {
  RETURN_IF_ERROR(CheckGeneration(key));
  MarkOver(key);
  StopListed(key, absl::ZeroDuration(), "the coordinator aborted it", now, effects);
  return absl::OkStatus();
}

absl::Status AttemptTable::Stop(const AttemptKey& key, absl::Duration grace,
                                absl::string_view reason, absl::Duration now, Effects& effects) {
  RETURN_IF_ERROR(CheckGeneration(key));
  MarkOver(key);
  if (Find(key) == nullptr) {
    return NotFound("nothing of ", key.ToString(), " is on node ", node_id_.value());
  }
  StopListed(key, grace, reason, now, effects);
  return absl::OkStatus();
}

void AttemptTable::StopListed(const AttemptKey& key, absl::Duration grace, absl::string_view reason,
                              absl::Duration now, Effects& effects) {
  Attempt* attempt = FindMutable(key);
  if (attempt == nullptr || attempt->phase == AttemptPhase::kEnded) return;
  StopAttempt(*attempt, grace, reason, now, effects);
}

void AttemptTable::StopAll(absl::Duration grace, absl::string_view reason, absl::Duration now,
                           Effects& effects) {
  for (auto& [key, attempt] : attempts_) {
    if (attempt.phase != AttemptPhase::kEnded) StopAttempt(attempt, grace, reason, now, effects);
  }
}

void AttemptTable::Release(const AttemptKey& key, Effects& effects) {
  const Attempt* attempt = Find(key);
  if (attempt == nullptr || attempt->phase != AttemptPhase::kEnded) return;
  attempts_.erase(key);
  effects.push_back(ForgetAttempt{key});
}

void AttemptTable::RenewLease(absl::Duration sent_at, absl::Duration lease) {
  lease_ = lease;
  // Answers may come out of order; an older one takes nothing away.
  lease_deadline_ = std::max(lease_deadline_, sent_at + lease);
}

void AttemptTable::BeginStop(Attempt& attempt, absl::string_view reason) {
  const auto next = NextPhase(attempt.phase, AttemptEvent::kStopRequested);
  AUTOSP_CHECK(next.ok(), attempt.key.ToString(), ": ", next.status().message());
  attempt.phase = *next;
  // The first reason is the cause; what follows are consequences.
  if (attempt.end_reason.empty()) attempt.end_reason = std::string(reason);
}

void AttemptTable::StopAttempt(Attempt& attempt, absl::Duration grace, absl::string_view reason,
                               absl::Duration now, Effects& effects) {
  BeginStop(attempt, reason);
  for (RankRecord& rank : attempt.ranks) StopRank(attempt, rank, grace, now, effects);
  if (attempt.phase == AttemptPhase::kEnded) {
    MarkOver(attempt.key);
    effects.push_back(CleanUpAttempt{attempt.key});
  } else {
    EndIfSettled(attempt, effects);
  }
}

void AttemptTable::StopRank(const Attempt& attempt, RankRecord& rank, absl::Duration grace,
                            absl::Duration now, Effects& effects) {
  if (rank.is_starting) {
    rank.is_unwanted = true;
    return;
  }
  if (rank.state == RankState::kPrepared) {
    rank.state = *NextRankState(rank.state, RankEvent::kGoneOnRequest);
    rank.is_settled = true;
    effects.push_back(ReportRank{attempt.key, rank.slot.rank});
    return;
  }
  if (!rank.has_process) return;
  if (grace <= absl::ZeroDuration()) {
    rank.kill_at = absl::InfiniteDuration();
    effects.push_back(SignalRank{attempt.key, rank.slot.rank, SIGKILL});
    return;
  }
  rank.kill_at = std::min(rank.kill_at, now + grace);
  effects.push_back(SignalRank{attempt.key, rank.slot.rank, SIGTERM});
}

void AttemptTable::Tick(absl::Duration now, Effects& effects) {
  if (!HasLease(now)) {
    StopAll(absl::ZeroDuration(),
            absl::StrCat("the coordinator was silent for ", absl::FormatDuration(lease_),
                         ", which is the lease"),
            now, effects);
  }
  for (auto& [key, attempt] : attempts_) TickAttempt(attempt, now, effects);
}

const Attempt* AttemptTable::Find(const AttemptKey& key) const {
  const auto found = attempts_.find(key);
  return found == attempts_.end() ? nullptr : &found->second;
}

Attempt* AttemptTable::FindMutable(const AttemptKey& key) {
  const auto found = attempts_.find(key);
  return found == attempts_.end() ? nullptr : &found->second;
}

int AttemptTable::NumDevicesTaken() const {
  int taken = 0;
  for (const auto& [key, attempt] : attempts_) {
    if (attempt.phase != AttemptPhase::kEnded) taken += static_cast<int>(attempt.ranks.size());
  }
  return taken;
}

}  // namespace autosp::agent
