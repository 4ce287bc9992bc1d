#include "tests/server/coordinator/simulation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(2);
constexpr int64_t kNumSteps = 12;
constexpr int64_t kCheckpointEvery = 3;
constexpr int64_t kMostRestarts = 3;

}  // namespace

Simulation::Simulation(SimulationOptions options) : options_(options), random_(options.seed) {
  coordinator_options_.lease = absl::Seconds(15);
  coordinator_options_.hang_timeout = absl::Seconds(20);
  coordinator_options_.setup_timeout = absl::Seconds(30);
  coordinator_options_.prepare_timeout = absl::Seconds(10);
  coordinator_options_.join_timeout = absl::Seconds(30);
  coordinator_options_.verify_timeout = absl::Seconds(60);
  for (int i = 0; i < options_.num_nodes; ++i) {
    const NodeId node(absl::StrCat("n", i));
    agents_[node] = std::make_unique<SimAgent>(*this, node, options_.devices_per_node);
    slowness_[node] = 1;
  }
}

// --- Time and chance ---

void Simulation::At(absl::Duration delay, std::function<void()> action) {
  timers_.push({now_ + delay, num_timers_++, std::move(action)});
}

bool Simulation::Chance(double probability) {
  return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
}

absl::Duration Simulation::Between(absl::Duration low, absl::Duration high) {
  const absl::Duration exact =
      low + (high - low) * std::uniform_real_distribution<double>(0, 1)(random_);
  return absl::Floor(exact, absl::Microseconds(1));
}

absl::Duration Simulation::Latency() {
  if (Chance(options_.late)) return Between(absl::Seconds(1), absl::Seconds(8));
  return Between(absl::Milliseconds(1), absl::Milliseconds(80));
}

bool Simulation::IsCut(const NodeId& node) const {
  auto found = cut_until_.find(node);
  return found != cut_until_.end() && now_ < found->second;
}

bool Simulation::IsCallable(const NodeId& node) const {
  auto found = uncallable_until_.find(node);
  const bool is_open = found == uncallable_until_.end() || now_ >= found->second;
  return is_open && !IsCut(node) && agents_.at(node)->is_alive();
}

void Simulation::Run() {
  StartCoordinator();
  TickCoordinator();
  for (auto& [node, agent] : agents_) agent->Boot();
  for (int i = 0; i < options_.num_jobs; ++i) {
    At(Between(absl::ZeroDuration(), options_.faults_until * 0.7),
       [this, i] { SubmitUntilAnswered(i); });
  }
  InjectFault();
  const absl::Time end = start_ + options_.give_up_after;
  while (!timers_.empty() && now_ < end && !testing::Test::HasFailure()) {
    if (now_ > start_ + options_.faults_until && AllJobsEnded()) break;
    Timer timer = timers_.top();
    timers_.pop();
    now_ = timer.time;
    timer.action();
    CheckInvariants();
  }
  EXPECT_TRUE(AllJobsEnded()) << "some jobs never came to an end";
  CheckSteps();
}

bool Simulation::AllJobsEnded() const {
  if (static_cast<int>(is_answered_.size()) < options_.num_jobs) return false;
  return store_.ActiveJobs().empty();
}

std::map<std::string, int> Simulation::Outcomes() const {
  std::map<std::string, int> outcomes;
  for (const auto& [id, job] : store_.jobs()) {
    const bool has_kind = job.state == JobState::kFailed && job.cause;
    ++outcomes[std::string(has_kind ? ToString(job.cause->kind) : ToString(job.state))];
    const bool is_saved = job.state == JobState::kSucceeded && job.restarts.total > 0;
    if (is_saved) ++outcomes["succeeded after a restart"];
    const bool is_spent = job.state == JobState::kFailed && job.request->max_restarts > 0 &&
                          job.restarts.used == job.request->max_restarts;
    if (is_spent) ++outcomes["restarts spent"];
    if (!job.verification) continue;
    const std::string outcome(ToString(job.verification->outcome));
    ++outcomes[absl::StrCat("verification ", outcome)];
    const bool is_retried = outcome == "equal" && job.generation.value() > 2;
    if (is_retried && job.restarts.total == 0) ++outcomes["verified after a retry"];
  }
  return outcomes;
}

// --- The coordinator ---

void Simulation::StartCoordinator() {
  ++coordinator_life_;
  coordinator_ =
      std::make_unique<Coordinator>(coordinator_options_, store_.ActiveJobs(), &store_, now_);
}

void Simulation::CrashCoordinator() {
  if (coordinator_ == nullptr) return;
  // Steps that some ranks have reported and others have not are not stored.
  for (const auto& [id, job] : coordinator_->jobs()) has_lost_reports_.insert(id);
  coordinator_ = nullptr;
  ++coordinator_life_;
  // Shorter and longer than the lease.
  At(Between(absl::ZeroDuration(), absl::Seconds(25)), [this] { StartCoordinator(); });
}

void Simulation::TickCoordinator() {
  if (coordinator_ != nullptr) Handle(Tick(), nullptr);
  At(absl::Milliseconds(100), [this] { TickCoordinator(); });
}

void Simulation::Handle(const Event& event, const Reply& reply) {
  const bool may_crash = now_ < start_ + options_.faults_until;
  if (may_crash && Chance(0.0005)) return CrashCoordinator();
  Decision decision = coordinator_->Step(event, now_);
  store_.Apply(decision);
  NoteLostReports(decision);
  // The worst moment: stored, and nothing done about it.
  const bool is_notable = !decision.effects.empty() || !decision.changed_jobs.empty();
  if (may_crash && is_notable && Chance(0.02)) return CrashCoordinator();
  for (const Effect& effect : decision.effects) Perform(effect);
  if (reply) reply(decision);
}

void Simulation::NoteLostReports(const Decision& decision) {
  for (const Job& job : decision.changed_jobs) {
    if (!IsTerminal(job.state)) continue;
    for (const auto& [node, agent] : agents_) {
      if (agent->HasReportsOf(job.id)) has_lost_reports_.insert(job.id);
    }
  }
}

void Simulation::Perform(const Effect& effect) {
  if (const auto* prepare = std::get_if<PrepareRanks>(&effect)) {
    SendToAgent(prepare->node, AgentCommand::kPrepare, prepare->attempt,
                [command = *prepare](SimAgent& agent) { return agent.Prepare(command); });
  } else if (const auto* command = std::get_if<CommandAttempt>(&effect)) {
    SendToAgent(command->node, command->command, command->attempt,
                [command = *command](SimAgent& agent) { return agent.Command(command); });
  } else {
    const ProbeAgent probe = std::get<ProbeAgent>(effect);
    const int64_t life = coordinator_life_;
    At(Latency(), [this, probe, life] {
      if (IsCut(probe.node)) return;
      const bool is_refused = !AgentOf(probe.node).is_alive();
      At(Latency(), [this, probe, life, is_refused] {
        if (life != coordinator_life_ || coordinator_ == nullptr) return;
        Handle(AgentProbed{probe.node, probe.instance, probe.asked_at, is_refused}, nullptr);
      });
    });
  }
}

void Simulation::SendToAgent(const NodeId& node, AgentCommand command, AttemptId attempt,
                             std::function<absl::Status(SimAgent&)> call) {
  const int64_t life = coordinator_life_;
  auto is_done = std::make_shared<bool>(false);
  auto finish = [this, life, is_done](const CommandDone& done) {
    if (*is_done || life != coordinator_life_ || coordinator_ == nullptr) return;
    *is_done = true;
    Handle(done, nullptr);
  };
  const int copies = Chance(options_.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (Chance(options_.drop)) continue;
    // A message that is on its way arrives also when its sender has died.
    At(Latency(), [this, node, command, attempt, call, finish] {
      if (!IsCallable(node)) return;
      CommandDone done{node, attempt, command, call(AgentOf(node))};
      if (command == AgentCommand::kPrepare) done.rank_addresses = AgentOf(node).Addresses(attempt);
      if (Chance(options_.drop)) return;
      At(Latency(), [finish, done] { finish(done); });
    });
  }
  const CommandDone unanswered{node, attempt, command, absl::DeadlineExceededError("no answer")};
  At(absl::Seconds(5), [finish, unanswered] { finish(unanswered); });
}

void Simulation::CallCoordinator(const NodeId& from, Event event, Reply reply,
                                 std::function<void()> on_timeout) {
  auto is_done = std::make_shared<bool>(false);
  const int64_t life = coordinator_life_;
  const int copies = Chance(options_.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (Chance(options_.drop)) continue;
    At(Latency(), [this, from, life, event, reply, is_done] {
      if (IsCut(from) || life != coordinator_life_ || coordinator_ == nullptr) return;
      Handle(event, [this, from, reply, is_done](const Decision& decision) {
        if (Chance(options_.drop)) return;
        At(Latency(), [this, from, reply, is_done, decision] {
          if (*is_done || IsCut(from)) return;
          *is_done = true;
          reply(decision);
        });
      });
    });
  }
  At(kCallTimeout, [is_done, on_timeout] {
    if (*is_done) return;
    *is_done = true;
    on_timeout();
  });
}

// --- Users ---

void Simulation::SubmitUntilAnswered(int index) {
  auto request = std::make_shared<JobRequest>();
  request->request_id = RequestId(absl::StrCat("request-", index));
  request->name = absl::StrCat("job-", index);
  request->num_steps = kNumSteps;
  request->tokens_per_step = 64;
  request->max_restarts = index % 2 == 0 ? 1 + index % kMostRestarts : 0;
  if (index % 3 != 0) {
    request->verification_digest = absl::StrCat("plan-", index % 2);
    request->verify_always = index % 3 == 1;
  }
  const int total = options_.num_nodes * options_.devices_per_node;
  request->world_size = 1 + index % total;
  const JobId id(absl::StrCat("j", num_job_ids_++, "-", index));
  CallCoordinator(
      NodeId("user"), JobSubmitted{.job = id, .request = request},
      [this, index](const Decision& decision) {
        // Refused for good when the nodes that have registered are too few; ask again later.
        if (!decision.status.ok()) {
          return At(absl::Seconds(5), [this, index] { SubmitUntilAnswered(index); });
        }
        is_answered_[index] = true;
        accepted_.insert(decision.job);
        if (Chance(0.2)) {
          At(Between(absl::ZeroDuration(), absl::Seconds(30)), [this] { CancelSomeJob(); });
        }
      },
      [this, index] { SubmitUntilAnswered(index); });
}

void Simulation::CancelSomeJob() {
  if (accepted_.empty()) return;
  auto job = std::next(accepted_.begin(), random_() % accepted_.size());
  CallCoordinator(
      NodeId("user"), CancelRequested{.job = *job}, [](const Decision&) {}, [] {});
}

// --- Ranks ---

bool Simulation::HasWrongPlan(const JobId& job) { return job.value().ends_with("-4"); }

void Simulation::Spawn(SimAgent& agent, const AttemptId& attempt, AttemptKind kind,
                       int64_t world_size, const RankAssignment& rank) {
  auto process = std::make_shared<SimProcess>();
  process->attempt = attempt;
  process->kind = kind;
  process->rank = rank.rank.value();
  process->node = agent.node();
  process->device_index = rank.device_index;
  processes_.push_back(process);
  agent.ProcessSays(*process);
  At(Between(absl::Milliseconds(100), absl::Seconds(2)), [this, process, world_size] {
    if (!process->is_alive) return;
    process->state = RankState::kRunning;
    if (process->kind == AttemptKind::kVerification) return Verify(process);
    process->step = checkpoints_[process->attempt.job];
    AgentOf(process->node).ProcessSays(*process);
    if (process->rank == 0 && process->attempt.generation.value() > 1) {
      AgentOf(process->node)
          .ProcessNoted(*process,
                        {.event = CheckpointNote::Event::kResumed, .step = process->step});
    }
    RunRank(process, world_size);
  });
}

void Simulation::Verify(std::shared_ptr<SimProcess> process) {
  AgentOf(process->node).ProcessSays(*process);
  At(Between(absl::Seconds(1), absl::Seconds(5)) * slowness_[process->node], [this, process] {
    if (!process->is_alive || process->is_hung) return;
    process->is_alive = false;
    process->state = RankState::kFinished;
    AgentOf(process->node).ProcessSays(*process);
  });
}

// Lock step: a rank finishes a step only when every other one is there and not behind.
void Simulation::RunRank(std::shared_ptr<SimProcess> process, int64_t world_size) {
  const absl::Duration time =
      Between(absl::Milliseconds(200), absl::Milliseconds(600)) * slowness_[process->node];
  At(time, [this, process, world_size, time] {
    if (!process->is_alive || process->is_hung) return;
    int64_t num_ready = 0;
    bool is_peer_dead = false;
    for (const auto& peer : processes_) {
      if (peer->attempt != process->attempt) continue;
      const bool is_done = peer->state == RankState::kFinished;
      if (!peer->is_alive && !is_done) is_peer_dead = true;
      if (is_done || (peer->state == RankState::kRunning && peer->step >= process->step)) {
        ++num_ready;
      }
    }
    SimAgent& agent = AgentOf(process->node);
    if (is_peer_dead && Chance(0.3)) {
      process->is_alive = false;
      process->state = RankState::kFailed;
      return agent.ProcessSays(*process);
    }
    if (num_ready == world_size) {
      ++process->step;
      agent.ProcessStepped(*process, absl::ToDoubleSeconds(time));
      if (process->rank == 0) WriteCheckpoint(*process, process->step - 1);
      if (process->step == kNumSteps) {
        process->is_alive = false;
        process->state = RankState::kFinished;
        return agent.ProcessSays(*process);
      }
    }
    RunRank(process, world_size);
  });
}

void Simulation::WriteCheckpoint(const SimProcess& process, int64_t step) {
  if (step <= checkpoints_[process.attempt.job] || step % kCheckpointEvery != 0) return;
  const bool is_written = Chance(0.8);
  if (is_written) checkpoints_[process.attempt.job] = step;
  AgentOf(process.node)
      .ProcessNoted(process, {.event = is_written ? CheckpointNote::Event::kCommitted
                                                  : CheckpointNote::Event::kNotWritten,
                              .step = step});
}

// --- Faults ---

void Simulation::InjectFault() {
  const absl::Duration pause = Between(absl::Seconds(2), absl::Seconds(20));
  if (now_ + pause > start_ + options_.faults_until) {
    // From here on the world is kind.
    return At(pause, [this] {
      for (auto& [node, factor] : slowness_) factor = 1;
    });
  }
  At(pause, [this] {
    auto agent = std::next(agents_.begin(), random_() % agents_.size());
    const NodeId node = agent->first;
    switch (random_() % 6) {
      case 0:
        agent->second->KillRank(static_cast<int64_t>(random_() % 8));
        break;
      case 1:
        if (!agent->second->is_alive()) break;
        agent->second->Kill();
        At(Between(absl::Milliseconds(100), absl::Seconds(30)),
           [this, node] { AgentOf(node).Boot(); });
        break;
      case 2:
        // Cuts are on one way in some lives and on both in others.
        (options_.seed % 3 == 1 ? uncallable_until_ : cut_until_)[node] =
            now_ + Between(absl::Seconds(1), absl::Seconds(30));
        break;
      case 3:
        CrashCoordinator();
        break;
      case 4:
        slowness_[node] = Chance(0.5) ? 10 : 1;
        break;
      default:
        agent->second->HangRank(static_cast<int64_t>(random_() % 8));
        break;
    }
    InjectFault();
  });
}

// --- The rules ---

void Simulation::CheckInvariants() {
  std::map<std::pair<NodeId, int64_t>, AttemptId> users;
  std::map<JobId, Generation> running;
  for (const auto& process : processes_) {
    if (!process->is_alive) continue;
    const AttemptId& attempt = process->attempt;
    auto [user, is_first] = users.emplace(std::pair(process->node, process->device_index), attempt);
    ASSERT_TRUE(is_first) << "device " << process->device_index << " of " << process->node
                          << " is used by " << attempt.job << "/" << attempt.generation << " and "
                          << user->second.job << "/" << user->second.generation;
    auto [known, is_new] = running.emplace(attempt.job, attempt.generation);
    ASSERT_EQ(known->second, attempt.generation) << "two attempts of " << attempt.job << " run";
    ASSERT_FALSE(store_.IsFinished(attempt.job))
        << "rank " << process->rank << " of " << attempt.job << " outlives its job";
  }
  for (const JobId& job : accepted_) {
    ASSERT_TRUE(store_.jobs().contains(job)) << "job " << job << " was accepted and is lost";
  }
  std::map<std::pair<NodeId, int64_t>, JobId> given;
  for (const Job& job : store_.ActiveJobs()) {
    ASSERT_LE(job.restarts.used, job.request->max_restarts) << job.id;
    ASSERT_LE(job.progress.checkpoint_step, checkpoints_[job.id]) << job.id;
    if (!job.attempt) continue;
    for (const RankPart& rank : job.attempt->ranks) {
      if (job.attempt->FindNode(rank.node)->phase == NodePhase::kEnded) continue;
      auto [other, is_free] = given.emplace(std::pair(rank.node, rank.device_index), job.id);
      ASSERT_TRUE(is_free) << "device " << rank.device_index << " of " << rank.node
                           << " is given to " << job.id << " and " << other->second;
    }
  }
  if (coordinator_ != nullptr) {
    ASSERT_EQ(coordinator_->jobs().size(), store_.ActiveJobs().size());
  }
}

void Simulation::CheckSteps() {
  for (const auto& [id, job] : store_.jobs()) {
    CheckVerification(job);
    if (job.state != JobState::kSucceeded) continue;
    EXPECT_EQ(job.progress.last_step, kNumSteps) << id;
    CheckHistory(job);
  }
}

void Simulation::CheckVerification(const Job& job) {
  bool is_verified = job.request->verification_digest.empty();
  for (const HistoryEntry& entry : store_.history(job.id)) {
    if (const auto* note = std::get_if<VerificationNote>(&entry.what)) {
      EXPECT_FALSE(is_verified) << job.id << " is verified twice";
      is_verified = note->outcome == VerificationNote::Outcome::kEqual ||
                    note->outcome == VerificationNote::Outcome::kKnown;
    }
    const auto* change = std::get_if<StateChange>(&entry.what);
    if (change == nullptr) continue;
    EXPECT_TRUE(is_verified || change->to != JobState::kStarting) << job.id;
    EXPECT_FALSE(is_verified && change->to == JobState::kVerifying) << job.id;
  }
  const bool is_wrong = HasWrongPlan(job.id) && !job.request->verification_digest.empty();
  EXPECT_FALSE(is_wrong && job.state == JobState::kSucceeded) << job.id;
}

// Each attempt does its steps in order from where it went on; of a step that several have done, the
// last one counts.
void Simulation::CheckHistory(const Job& job) {
  std::map<int64_t, Generation> steps;
  Generation generation;
  int64_t last_step = 0;
  int64_t resumed_step = 0;
  bool is_over = false;
  const bool is_complete = !has_lost_reports_.contains(job.id);
  for (const HistoryEntry& entry : store_.history(job.id)) {
    if (const auto* change = std::get_if<StateChange>(&entry.what)) {
      is_over = change->to == JobState::kStopping;
    }
    const auto* note = std::get_if<CheckpointNote>(&entry.what);
    if (note != nullptr && note->event == CheckpointNote::Event::kResumed) {
      last_step = resumed_step = note->step;
    }
    const auto* step = std::get_if<StepDone>(&entry.what);
    if (step == nullptr) continue;
    // While a lost attempt is being stopped, its last steps may still come in.
    EXPECT_TRUE(!is_over || entry.generation != job.generation)
        << job.id << ": the finish has overtaken step " << step->report.step;
    EXPECT_TRUE(!is_complete || step->report.step == last_step + 1)
        << job.id << ": step " << step->report.step << " follows step " << last_step;
    EXPECT_GE(entry.generation, generation) << job.id;
    last_step = step->report.step;
    generation = entry.generation;
    steps[last_step] = generation;
  }
  if (!is_complete) return;
  EXPECT_EQ(last_step, kNumSteps) << job.id;
  // Steps whose reports came when their attempt was over are in the checkpoint and not in here.
  for (int64_t step = resumed_step + 1; step <= kNumSteps; ++step) {
    EXPECT_TRUE(steps.contains(step)) << job.id << ": step " << step << " is not in its history";
  }
}

}  // namespace autosp
