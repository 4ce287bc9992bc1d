// A cluster on fake time, made of a real coordinator and fake everything else, driven by one seed.
//
// The network delays, drops, duplicates and reorders messages. Ranks die and hang, agents are
// killed and come back, nodes are cut off, on both ways or on the one to them, or slow, and the
// coordinator is killed at any moment, also between storing a decision and performing it. Ranks
// write checkpoints, and those of half of the jobs start again from them. The plans of some jobs
// are verified first, and some of those are wrong. After every event the rules of CheckInvariants
// must hold, and once the faults stop every job must come to an end.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/coordinator/coordinator.h"
#include "tests/server/coordinator/fake_store.h"

namespace autosp {

struct SimulationOptions {
  uint64_t seed = 1;
  int num_nodes = 3;
  int devices_per_node = 2;
  int num_jobs = 6;
  double drop = 0.05;
  double duplicate = 0.05;
  double late = 0.03;  // several seconds instead of some milliseconds
  absl::Duration faults_until = absl::Seconds(120);
  absl::Duration give_up_after = absl::Seconds(1500);
};

// A rank's process: what really runs, whatever anyone believes.
struct SimProcess {
  AttemptId attempt;
  AttemptKind kind = AttemptKind::kTraining;
  int64_t rank = 0;
  NodeId node;
  int64_t device_index = 0;
  RankState state = RankState::kSpawned;
  int64_t step = 0;
  bool is_alive = true;
  bool is_hung = false;
};

class Simulation;

// The agent of one node, by the contract of agent.proto.
class SimAgent {
 public:
  SimAgent(Simulation& sim, NodeId node, int64_t num_devices);

  void Boot();
  void Kill();  // its processes die with it
  void KillRank(int64_t which);
  void HangRank(int64_t which);

  absl::Status Prepare(const PrepareRanks& command);
  absl::Status Command(const CommandAttempt& command);
  // Of its ranks in the attempt, "rank@node".
  std::vector<RankAddress> Addresses(const AttemptId& attempt) const;
  void ProcessSays(const SimProcess& process);  // a state other than the one reported before
  void ProcessStepped(const SimProcess& process, double seconds);
  void ProcessNoted(const SimProcess& process, const CheckpointNote& note);

  const NodeId& node() const { return node_; }
  const std::string& instance() const { return instance_; }
  bool is_alive() const { return is_alive_; }
  std::vector<SimProcess*> Processes();
  // That the coordinator has not answered.
  bool HasReportsOf(const JobId& job) const;

 private:
  struct Held {
    AttemptKind kind = AttemptKind::kTraining;
    AttemptStatus::Phase phase = AttemptStatus::Phase::kPrepared;
    std::vector<RankAssignment> ranks;
    std::map<int64_t, RankStatus> statuses;
    int64_t world_size = 0;
    absl::Time prepared_at;
  };

  void Beat();
  void Register();
  void SendHeartbeat();
  void SendReports();
  void OnAnswer(const Decision& decision, absl::Time sent_at);
  void StopHeld(const AttemptId& attempt, absl::Duration grace);
  void EndHeld(const AttemptId& attempt);
  void CheckLease();
  std::vector<AttemptStatus> List() const;
  bool HasReports(const AttemptId& attempt) const;

  Simulation& sim_;
  const NodeId node_;
  const int64_t num_devices_;
  int64_t boots_ = 0;
  std::string instance_;
  bool is_alive_ = false;
  bool is_registered_ = false;
  bool is_waiting_ = false;  // for the answer to a heartbeat or a registration
  bool is_reporting_ = false;
  int64_t sequence_ = 0;
  int64_t token_ = 0;
  absl::Time lease_end_ = absl::InfiniteFuture();
  std::map<AttemptId, Held> held_;
  std::map<JobId, int64_t> newest_;  // generation seen
  std::set<AttemptId> refused_;
  std::vector<RankReport> reports_;
};

class Simulation {
 public:
  explicit Simulation(SimulationOptions options);

  // Runs to the end. Failures are test failures.
  void Run();

  // The plan of which is found to differ when it is verified.
  static bool HasWrongPlan(const JobId& job);

  // How many jobs ended in which way, by the name of the state or the kind of the cause.
  std::map<std::string, int> Outcomes() const;

 private:
  friend class SimAgent;
  using Reply = std::function<void(const Decision&)>;

  // --- Time and chance ---
  void At(absl::Duration delay, std::function<void()> action);
  bool Chance(double probability);
  absl::Duration Between(absl::Duration low, absl::Duration high);
  absl::Duration Latency();
  bool IsCut(const NodeId& node) const;
  bool IsCallable(const NodeId& node) const;  // by the coordinator

  // --- The coordinator and its callers ---
  void StartCoordinator();
  void CrashCoordinator();
  void TickCoordinator();
  // Steps and stores; unless it crashes in between, performs the effects and answers.
  void Handle(const Event& event, const Reply& reply);
  // A job may end without the reports that an agent still holds when it is given up.
  void NoteLostReports(const Decision& decision);
  void Perform(const Effect& effect);
  void SendToAgent(const NodeId& node, AgentCommand command, AttemptId attempt,
                   std::function<absl::Status(SimAgent&)> call);
  void CallCoordinator(const NodeId& from, Event event, Reply reply,
                       std::function<void()> on_timeout);
  void SubmitUntilAnswered(int index);
  void CancelSomeJob();

  // --- Ranks ---
  void Spawn(SimAgent& agent, const AttemptId& attempt, AttemptKind kind, int64_t world_size,
             const RankAssignment& rank);
  void Verify(std::shared_ptr<SimProcess> process);
  void RunRank(std::shared_ptr<SimProcess> process, int64_t world_size);
  SimAgent& AgentOf(const NodeId& node) { return *agents_.at(node); }

  void InjectFault();
  void CheckInvariants();
  // Rank 0 writes a checkpoint of a step that every rank has finished.
  void WriteCheckpoint(const SimProcess& process, int64_t step);
  // Of every job that has succeeded.
  void CheckSteps();
  void CheckHistory(const Job& job);
  // No job trains whose plan is to be verified and is not.
  void CheckVerification(const Job& job);
  bool AllJobsEnded() const;

  const SimulationOptions options_;
  std::mt19937_64 random_;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  absl::Time start_ = now_;
  struct Timer {
    absl::Time time;
    int64_t order;
    std::function<void()> action;
    bool operator<(const Timer& other) const {
      return std::tie(time, order) > std::tie(other.time, other.order);
    }
  };
  std::priority_queue<Timer> timers_;
  int64_t num_timers_ = 0;

  CoordinatorOptions coordinator_options_;
  FakeStore store_;
  std::unique_ptr<Coordinator> coordinator_;
  int64_t coordinator_life_ = 0;  // messages to an earlier life are lost
  std::map<NodeId, std::unique_ptr<SimAgent>> agents_;
  std::map<NodeId, absl::Time> cut_until_;
  std::map<NodeId, absl::Time> uncallable_until_;  // its own calls get through
  std::map<NodeId, double> slowness_;
  std::vector<std::shared_ptr<SimProcess>> processes_;
  std::set<JobId> accepted_;
  std::map<JobId, int64_t> checkpoints_;  // steps of the last ones, whatever anyone believes
  // With an agent that had not sent them or could not in time, or with the coordinator.
  std::set<JobId> has_lost_reports_;
  std::map<int, bool> is_answered_;
  int64_t num_job_ids_ = 0;
};

}  // namespace autosp
