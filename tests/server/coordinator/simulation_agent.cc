// The agent's side of the simulation.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/server/coordinator/simulation.h"

namespace autosp {
namespace {

constexpr absl::Duration kHeartbeatInterval = absl::Seconds(1);
constexpr absl::Duration kCommitTimeout = absl::Seconds(30);

// Ranks on several nodes are started only with the addresses of all.
void CheckAddresses(const CommandAttempt& commit, int64_t world_size, int64_t num_own_ranks) {
  if (num_own_ranks == world_size) {
    EXPECT_TRUE(commit.rank_addresses.empty());
    return;
  }
  ASSERT_EQ(std::ssize(commit.rank_addresses), world_size);
  for (int64_t rank = 0; rank < world_size; ++rank) {
    EXPECT_TRUE(absl::StartsWith(commit.rank_addresses[rank], absl::StrCat(rank, "@")))
        << "rank " << rank << ": " << commit.rank_addresses[rank];
  }
}

}  // namespace

SimAgent::SimAgent(Simulation& sim, NodeId node, int64_t num_devices)
    : sim_(sim), node_(std::move(node)), num_devices_(num_devices) {}

void SimAgent::Boot() {
  instance_ = absl::StrCat(node_.value(), "-", ++boots_);
  is_alive_ = true;
  is_registered_ = is_waiting_ = is_reporting_ = false;
  sequence_ = token_ = 0;
  lease_end_ = absl::InfiniteFuture();
  Beat();
}

void SimAgent::Kill() {
  is_alive_ = false;
  for (SimProcess* process : Processes()) process->is_alive = false;
  held_.clear();
  newest_.clear();
  refused_.clear();
  for (const RankReport& report : reports_) sim_.has_lost_reports_.insert(report.attempt.job);
  reports_.clear();
}

std::vector<SimProcess*> SimAgent::Processes() {
  std::vector<SimProcess*> mine;
  for (const auto& process : sim_.processes_) {
    if (process->node == node_ && process->is_alive) mine.push_back(process.get());
  }
  return mine;
}

void SimAgent::KillRank(int64_t which) {
  std::vector<SimProcess*> mine = Processes();
  if (mine.empty()) return;
  SimProcess& process = *mine[which % mine.size()];
  process.is_alive = false;
  process.state = RankState::kLost;
  ProcessSays(process);
}

void SimAgent::HangRank(int64_t which) {
  std::vector<SimProcess*> mine = Processes();
  if (!mine.empty()) mine[which % mine.size()]->is_hung = true;
}

// --- Commands ---

absl::Status SimAgent::Prepare(const PrepareRanks& command) {
  int64_t& newest = newest_[command.attempt.job];
  if (refused_.contains(command.attempt) || command.attempt.generation.value() < newest) {
    return absl::FailedPreconditionError("stale generation");
  }
  if (held_.contains(command.attempt)) return absl::OkStatus();
  std::set<int64_t> taken;
  for (const auto& [id, held] : held_) {
    if (held.phase == AttemptStatus::Phase::kEnded) continue;
    for (const RankAssignment& rank : held.ranks) taken.insert(rank.device_index);
  }
  for (const RankAssignment& rank : command.ranks) {
    if (taken.contains(rank.device_index)) {
      return absl::ResourceExhaustedError("a device is taken");
    }
  }
  newest = command.attempt.generation.value();
  const auto written = sim_.checkpoints_.find(command.attempt.job);
  EXPECT_FALSE(command.is_first_training && written != sim_.checkpoints_.end() &&
               written->second > 0)
      << command.attempt.job << " would begin again";
  Held& held = held_[command.attempt];
  held.kind = command.kind;
  held.ranks = command.ranks;
  held.world_size = static_cast<int64_t>(command.node_of_rank.size());
  held.prepared_at = sim_.now_;
  for (const RankAssignment& rank : command.ranks) {
    held.statuses[rank.rank.value()] = {.rank = rank.rank};
  }
  return absl::OkStatus();
}

std::vector<RankAddress> SimAgent::Addresses(const AttemptId& attempt) const {
  std::vector<RankAddress> addresses;
  const auto held = held_.find(attempt);
  if (held == held_.end()) return addresses;
  for (const RankAssignment& rank : held->second.ranks) {
    addresses.push_back({.rank = rank.rank, .address = absl::StrCat(rank.rank, "@", node_)});
  }
  return addresses;
}

absl::Status SimAgent::Command(const CommandAttempt& command) {
  auto held = held_.find(command.attempt);
  switch (command.command) {
    case AgentCommand::kCommit:
      if (held == held_.end() || refused_.contains(command.attempt)) {
        return absl::FailedPreconditionError("not prepared");
      }
      CheckAddresses(command, held->second.world_size, std::ssize(held->second.ranks));
      if (held->second.phase != AttemptStatus::Phase::kPrepared) return absl::OkStatus();
      held->second.phase = AttemptStatus::Phase::kRunning;
      for (const RankAssignment& rank : held->second.ranks) {
        sim_.Spawn(*this, command.attempt, held->second.kind, held->second.world_size, rank);
      }
      return absl::OkStatus();
    case AgentCommand::kAbort:
      StopHeld(command.attempt, absl::ZeroDuration());
      return absl::OkStatus();
    default:
      if (held == held_.end()) {
        refused_.insert(command.attempt);
        return absl::NotFoundError("nothing is held of it");
      }
      StopHeld(command.attempt, command.grace);
      return absl::OkStatus();
  }
}

void SimAgent::StopHeld(const AttemptId& attempt, absl::Duration grace) {
  refused_.insert(attempt);
  auto held = held_.find(attempt);
  if (held == held_.end() || held->second.phase == AttemptStatus::Phase::kEnded) return;
  if (held->second.phase == AttemptStatus::Phase::kPrepared) return EndHeld(attempt);
  const std::string instance = instance_;
  sim_.At(sim_.Between(absl::ZeroDuration(), grace), [this, attempt, instance] {
    if (is_alive_ && instance == instance_) EndHeld(attempt);
  });
}

// No process of it from here on.
void SimAgent::EndHeld(const AttemptId& attempt) {
  auto found = held_.find(attempt);
  if (found == held_.end()) return;
  for (SimProcess* process : Processes()) {
    if (process->attempt != attempt) continue;
    process->is_alive = false;
    process->state = RankState::kStopped;
  }
  found->second.phase = AttemptStatus::Phase::kEnded;
  for (auto& [rank, status] : found->second.statuses) {
    if (!HasEnded(status.state)) status.state = RankState::kStopped;
  }
}

// --- What processes say ---

void SimAgent::ProcessSays(const SimProcess& process) {
  auto found = held_.find(process.attempt);
  if (!is_alive_ || found == held_.end()) return;
  RankStatus& status = found->second.statuses[process.rank];
  if (HasEnded(status.state)) return;
  status.state = process.state;
  status.last_step = process.step;
  if (process.kind == AttemptKind::kVerification && process.state == RankState::kFinished) {
    status.verification = {
        .is_equal = !Simulation::HasWrongPlan(process.attempt.job), .worst = "loss", .seconds = 1};
  }
  if (HasEnded(process.state) && process.state != RankState::kFinished) {
    RankExit& exit = status.exit.emplace();
    exit.is_peer_lost = process.state == RankState::kFailed;
    exit.has_failure = exit.is_peer_lost;
    exit.message = "a peer is gone";
    exit.signal_number = exit.is_peer_lost ? 0 : 9;
  }
  reports_.push_back({.attempt = process.attempt, .rank = Rank(process.rank), .report = status});
  const bool all_ended = std::ranges::none_of(
      Processes(), [&](SimProcess* p) { return p->attempt == process.attempt; });
  const bool none_to_come = std::ranges::all_of(
      found->second.statuses, [](const auto& entry) { return HasEnded(entry.second.state); });
  if (all_ended && none_to_come) found->second.phase = AttemptStatus::Phase::kEnded;
  SendReports();
}

void SimAgent::ProcessStepped(const SimProcess& process, double seconds) {
  if (!is_alive_ || !held_.contains(process.attempt)) return;
  StepReport report;
  report.step = process.step;
  report.loss = 10.0 / static_cast<double>(process.step);
  report.step_seconds = seconds;
  report.tokens = 64;
  reports_.push_back({.attempt = process.attempt, .rank = Rank(process.rank), .report = report});
  SendReports();
}

void SimAgent::ProcessNoted(const SimProcess& process, const CheckpointNote& note) {
  if (!is_alive_ || !held_.contains(process.attempt)) return;
  reports_.push_back({.attempt = process.attempt, .rank = Rank(process.rank), .report = note});
  SendReports();
}

// --- Messages to the coordinator ---

void SimAgent::Beat() {
  const std::string instance = instance_;
  sim_.At(kHeartbeatInterval, [this, instance] {
    if (is_alive_ && instance == instance_) Beat();
  });
  CheckLease();
  if (!is_waiting_) is_registered_ ? SendHeartbeat() : Register();
  SendReports();
}

void SimAgent::CheckLease() {
  for (auto& [attempt, held] : held_) {
    const bool is_forgotten = held.phase == AttemptStatus::Phase::kPrepared &&
                              sim_.now_ > held.prepared_at + kCommitTimeout;
    if (is_forgotten) refused_.insert(attempt), EndHeld(attempt);
  }
}

void SimAgent::Register() {
  is_waiting_ = true;
  const std::string instance = instance_;
  const absl::Time sent_at = sim_.now_;
  AgentRegistered event{.info = {.node = node_,
                                 .instance = instance_,
                                 .address = node_.value(),
                                 .device_kind = "cpu",
                                 .num_devices = num_devices_,
                                 .start_ms = boots_},
                        .attempts = List()};
  sim_.CallCoordinator(
      node_, event,
      [this, instance, sent_at](const Decision& decision) {
        if (!is_alive_ || instance != instance_) return;
        is_waiting_ = false;
        if (!decision.status.ok()) return;
        is_registered_ = true;
        OnAnswer(decision, sent_at);
      },
      [this, instance] {
        if (instance == instance_) is_waiting_ = false;
      });
}

void SimAgent::SendHeartbeat() {
  is_waiting_ = true;
  const std::string instance = instance_;
  const absl::Time sent_at = sim_.now_;
  AgentHeartbeat event{.node = node_,
                       .instance = instance_,
                       .sequence = ++sequence_,
                       .last_answer_token = token_,
                       .attempts = List()};
  sim_.CallCoordinator(
      node_, event,
      [this, instance, sent_at](const Decision& decision) {
        if (!is_alive_ || instance != instance_) return;
        is_waiting_ = false;
        if (absl::IsNotFound(decision.status)) is_registered_ = false;
        if (decision.status.ok()) OnAnswer(decision, sent_at);
      },
      [this, instance] {
        if (instance == instance_) is_waiting_ = false;
      });
}

void SimAgent::OnAnswer(const Decision& decision, absl::Time sent_at) {
  token_ = decision.answer.answer_token;
  lease_end_ = sent_at + sim_.coordinator_options_.lease;
  const std::string instance = instance_;
  const absl::Time lease_end = lease_end_;
  sim_.At(lease_end - sim_.now_, [this, instance, lease_end] {
    if (!is_alive_ || instance != instance_ || lease_end_ != lease_end) return;
    for (const auto& [attempt, held] : held_) refused_.insert(attempt), EndHeld(attempt);
  });
  for (const AttemptId& attempt : decision.answer.stop_attempts) {
    StopHeld(attempt, absl::Seconds(1));
  }
  for (const AttemptId& attempt : decision.answer.release_attempts) {
    auto held = held_.find(attempt);
    if (held != held_.end() && held->second.phase == AttemptStatus::Phase::kEnded) {
      held_.erase(held);
    }
  }
}

void SimAgent::SendReports() {
  if (!is_registered_ || is_reporting_ || reports_.empty()) return;
  is_reporting_ = true;
  const std::string instance = instance_;
  const size_t count = reports_.size();
  sim_.CallCoordinator(
      node_, RanksReported{.node = node_, .instance = instance_, .reports = reports_},
      [this, instance, count](const Decision& decision) {
        if (!is_alive_ || instance != instance_) return;
        is_reporting_ = false;
        if (absl::IsNotFound(decision.status)) is_registered_ = false;
        if (!decision.status.ok()) return;
        reports_.erase(reports_.begin(), reports_.begin() + count);
        SendReports();
      },
      [this, instance] {
        if (instance == instance_) is_reporting_ = false;
      });
}

bool SimAgent::HasReportsOf(const JobId& job) const {
  return std::ranges::any_of(reports_, [&](const RankReport& r) { return r.attempt.job == job; });
}

bool SimAgent::HasReports(const AttemptId& attempt) const {
  return std::ranges::any_of(reports_, [&](const RankReport& r) { return r.attempt == attempt; });
}

std::vector<AttemptStatus> SimAgent::List() const {
  std::vector<AttemptStatus> list;
  for (const auto& [attempt, held] : held_) {
    AttemptStatus status{.attempt = attempt, .phase = held.phase};
    // The end must not overtake the last steps.
    if (held.phase == AttemptStatus::Phase::kEnded && HasReports(attempt)) {
      status.phase = AttemptStatus::Phase::kRunning;
    }
    for (const auto& [rank, rank_status] : held.statuses) status.ranks.push_back(rank_status);
    list.push_back(std::move(status));
  }
  return list;
}

}  // namespace autosp
