// What the agent does on its loop: effects and the passing of time.

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/agent/agent.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/leftovers.h"
#include "worker/agent/metrics.h"
#include "worker/agent/status_to_proto.h"
#include "worker/agent/step_metrics.h"

namespace autosp::agent {
namespace {

absl::Duration Now() { return Clock::Real().Steady(); }

}  // namespace

void Agent::Tick() {
  const absl::Duration now = Now();
  Effects effects;
  for (const auto& id : processes_.Running()) {
    if (const auto exit = processes_.TakeExit(id)) {
      table_.ProcessEnded(id.first, id.second, *exit, now, effects);
    }
  }
  WatchLease(now);
  table_.Tick(now, effects);
  if (!starts_.empty() && !is_starting_) {
    const StartRank next = starts_.front();
    starts_.pop_front();
    Start(next.key, next.rank);
  }
  Perform(std::move(effects));
  RetireSeries(now);
  WatchShutdown();
}

void Agent::WatchShutdown() {
  if (!is_shutting_down_ || is_drained_) return;
  const auto& attempts = table_.attempts();
  const bool has_ended = std::all_of(attempts.begin(), attempts.end(), [](const auto& entry) {
    return entry.second.phase == AttemptPhase::kEnded;
  });
  if (!has_ended) return;
  is_drained_ = true;
  drained_.set_value();
}

void Agent::WatchLease(absl::Duration now) {
  const bool has_lease = table_.HasLease(now);
  if (had_lease_ && !has_lease) {
    LogWarning("the lease has run out: the coordinator is silent; all ranks are killed");
    registry_.Increment(kLeaseLossesTotal, {});
  } else if (!had_lease_ && has_lease) {
    LogInfo("holds a lease");
  }
  had_lease_ = has_lease;
}

void Agent::Perform(Effects effects) {
  if (effects.empty()) return;
  // Effects cause events, and those more effects, which come after what is already asked for.
  for (size_t i = 0; i < effects.size(); ++i) {
    Effects more;
    std::visit([&](const auto& effect) { Do(effect, more); }, Effect(effects[i]));
    effects.insert(effects.end(), more.begin(), more.end());
  }
  RecordTable(table_, registry_);
}

void Agent::Do(const StartRank& effect, Effects& /*more*/) {
  // One after the other, and each as long as its attempt still wants it.
  starts_.push_back(effect);
}

void Agent::Start(const AttemptKey& key, Rank rank) {
  if (!table_.ShouldStart(key, rank)) return;
  table_.BeginStart(key, rank);
  is_starting_ = true;
  RankProcesses::StartOptions options;
  options.program = options_.programs.For(table_.Find(key)->is_verification);
  options.spec_path = files_.SpecPath(key, rank);
  options.log_path = files_.LogPath(key, rank);
  options.working_directory = files_.Folder(key);
  const auto listeners = std::make_shared<std::vector<UniqueFd>>(listeners_.Take(key, rank));
  for (const UniqueFd& listener : *listeners) options.listen_fds.push_back(listener.get());
  // On a busy machine a fork takes a second, and a program may be on a file system that is away.
  starting_.Post([this, key, rank, options, listeners] {
    const auto spawned =
        std::make_shared<absl::StatusOr<RankProcesses::Spawned>>(RankProcesses::Spawn(options));
    // The process has them; here they are closed, so that nobody answers for a rank that has died.
    listeners->clear();
    if (spawned->ok()) {
      const absl::Status written =
          WritePidFile(files_.PidPath(key, rank), (*spawned)->process.pid());
      // Without the file a later life could not find it, but it dies with this one.
      if (!written.ok()) LogWarning(key.ToString(), ": pid file: ", written.message());
    }
    loop_.Post([this, key, rank, spawned] { TakeOver(key, rank, std::move(*spawned)); });
  });
}

void Agent::TakeOver(const AttemptKey& key, Rank rank,
                     absl::StatusOr<RankProcesses::Spawned> spawned) {
  is_starting_ = false;
  Effects effects;
  if (!spawned.ok()) {
    table_.NotStarted(key, rank, spawned.status(), Now(), effects);
    return Perform(std::move(effects));
  }
  const int64_t pid = spawned->process.pid();
  processes_.Adopt({key, rank}, *std::move(spawned), [this, key, rank] {
    loop_.Post([this, key, rank] {
      Effects closed;
      table_.LogClosed(key, rank, Now(), closed);
      Perform(std::move(closed));
    });
  });
  table_.Started(key, rank, pid, Now(), effects);
  Perform(std::move(effects));
}

void Agent::Do(const SignalRank& effect, Effects& more) {
  const RankProcesses::Id id = {effect.key, effect.rank};
  if (const auto exit = processes_.TakeExit(id)) {
    table_.ProcessEnded(effect.key, effect.rank, *exit, Now(), more);
    return;
  }
  processes_.Signal(id, effect.signal_number);
  table_.Signalled(effect.key, effect.rank, effect.signal_number);
}

void Agent::Do(const ReportRank& effect, Effects& /*more*/) {
  const Attempt* attempt = table_.Find(effect.key);
  const RankRecord* rank = attempt == nullptr ? nullptr : attempt->FindRank(effect.rank);
  if (rank == nullptr) return;
  LogState(effect.key, *rank);
  if (rank->is_settled) {
    registry_.Increment(kRankEndsTotal, {std::string(ToString(rank->state))});
  }
  v1::AttemptRankReport report;
  *report.mutable_attempt() = RefToProto(effect.key);
  report.set_rank(static_cast<int32_t>(effect.rank.value()));
  *report.mutable_status() = StatusOf(effect.key, *rank);
  queue_.Push(std::move(report));
}

void Agent::Do(const CleanUpAttempt& effect, Effects& /*more*/) {
  listeners_.Close(effect.key);
  // At once, since the next attempt needs the memory; a disk may be slow.
  RemoveSharedMemory(SharedMemoryPrefix(effect.key));
  cleaning_.Post([this, key = effect.key] { CleanUpAttemptFiles(files_, key); });
  const Attempt* attempt = table_.Find(effect.key);
  const std::string reason = attempt == nullptr ? "" : attempt->end_reason;
  LogInfo(effect.key.ToString(), ": ended", reason.empty() ? "" : ": ", reason);
  on_news_();
}

void Agent::Do(const ForgetAttempt& effect, Effects& /*more*/) {
  processes_.ForgetLogs(effect.key);
  retired_.emplace_back(Now() + kMetricsRetention, effect.key.job_id);
  cleaning_.Post([this] { PruneAttemptFolders(files_); });
}

void Agent::RetireSeries(absl::Duration now) {
  while (!retired_.empty() && retired_.front().first <= now) {
    const JobId job_id = std::move(retired_.front().second);
    retired_.pop_front();
    // A later attempt of the job may be here by now.
    const auto next = table_.attempts().lower_bound(AttemptKey{job_id, Generation(0)});
    if (next != table_.attempts().end() && next->first.job_id == job_id) continue;
    registry_.RemoveSeries("job_id", job_id.value());
  }
}

v1::RankStatus Agent::StatusOf(const AttemptKey& key, const RankRecord& rank) const {
  const size_t num_lines = rank.is_settled ? kNumTailLines : kNumLiveTailLines;
  return RankToProto(rank, processes_.LogTail({key, rank.slot.rank}, num_lines));
}

void Agent::LogState(const AttemptKey& key, const RankRecord& rank) const {
  std::string text =
      absl::StrCat(key.ToString(), " rank ", rank.slot.rank.value(), ": ", ToString(rank.state));
  if (rank.state == RankState::kSpawned) absl::StrAppend(&text, ", pid ", rank.pid);
  if (rank.failure.has_value()) absl::StrAppend(&text, ": ", rank.failure->message);
  if (rank.exit.has_value()) absl::StrAppend(&text, ", ", rank.exit->ToString());
  if (rank.last_step > 0) absl::StrAppend(&text, ", last step ", rank.last_step);
  LogInfo(text);
}

}  // namespace autosp::agent
