// The coordinator as a deterministic state machine.
//
// Step() takes one event and the time, changes the state, and returns what is to be done about it.
// There is no clock, thread, RPC or file in here: the same events at the same times always give the
// same decisions, which is what the golden scripts and the simulation rely on. The driver
// (server/service/driver.h) stores a decision before it performs its effects; what a crash between
// the two loses is done again by a resend or found out by the agents' next lists.
//
// How an attempt runs:
//
//   queued    reserve devices, new generation          -> prepare to every node
//   verifying an attempt of one rank, before the first one that trains, where the job asks for it:
//             prepare, commit, its result              -> stopping, and queued again or failed
//   starting  every node has prepared                  -> commit to every node
//             every rank has said hello                -> running
//   running   all ranks finished, a fault, or a cancel -> stop to every node
//   stopping  every node says that nothing is left     -> the end, or queued again: for another
//             start, or a restart from the last checkpoint
//
// A node's part of an attempt has ended when its agent says so, when its agent no longer lists it,
// when the agent is known to be gone (ranks die with it), or when its lease has ended. Devices are
// free from then on, not before.
//
// A value: the driver steps a copy and keeps it once the decision is stored. Thread-compatible.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "server/coordinator/agents.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/event.h"
#include "server/coordinator/job.h"
#include "server/coordinator/placement.h"

namespace autosp {

struct ExpectedNode {
  NodeId node;
  std::string device_kind;
  int64_t num_devices = 0;
};

struct CoordinatorOptions {
  // Silence after which an agent has stopped its ranks and is taken for lost.
  absl::Duration lease = absl::Seconds(15);
  absl::Duration heartbeat_interval = absl::Seconds(1);
  // Silence after which the agent's machine is asked whether the agent is still there.
  absl::Duration suspect_after = absl::Seconds(3);
  absl::Duration probe_interval = absl::Seconds(1);
  // A lost agent is forgotten this long after its last heartbeat: long enough to be seen, and a
  // node that was taken away does not count as lost for ever.
  absl::Duration forget_lost_after = absl::Hours(24);
  absl::Duration prepare_timeout = absl::Seconds(60);
  absl::Duration join_timeout = absl::Seconds(180);   // from the commit to the last hello
  absl::Duration verify_timeout = absl::Minutes(30);  // from the commit to the result
  absl::Duration stop_grace = absl::Seconds(5);       // from asking a rank to end to killing it
  absl::Duration resend_interval = absl::Seconds(2);
  // A job is hung without a step for this long, or for hang_factor of its steps if that is longer.
  absl::Duration hang_timeout = absl::Seconds(300);
  // The same before an attempt's first step, when ranks load weights or read a checkpoint, and
  // after its last, when they write the model.
  absl::Duration setup_timeout = absl::Hours(1);
  int64_t hang_factor = 10;
  absl::Duration retry_delay = absl::Seconds(2);
  int64_t max_failed_starts = 3;
  // Jobs that have not ended; more are refused. Each event passes over all that wait.
  size_t max_jobs = 10'000;
  // On top of the lease, for the agents' first words after the coordinator's start.
  absl::Duration reattach_margin = absl::Seconds(2);
  // The nodes of the cluster file; with none, any node may register.
  std::vector<ExpectedNode> expected_nodes;
};

// The job that was made for a request.
struct SubmittedJob {
  JobId job = {};
  std::string request_digest = {};

  bool operator==(const SubmittedJob&) const = default;
};

// AlreadyExists when `first` was made for another request of the same id.
absl::Status CheckSameRequest(const RequestId& request_id, absl::string_view request_digest,
                              const SubmittedJob& first);

// Jobs that have ended are not kept in memory; these are the questions that still come up.
class FinishedJobs {
 public:
  virtual ~FinishedJobs() = default;
  virtual bool IsFinished(const JobId& job) const = 0;
  virtual std::optional<SubmittedJob> FindByRequest(const RequestId& request_id) const = 0;
  // A job, ended or not, of which a verification with this digest was equal.
  virtual std::optional<JobId> FindVerified(const std::string& digest) const = 0;
};

class Coordinator {
 public:
  // `active` are the stored jobs that have not ended. What their attempts do now is unknown until
  // the agents have said it.
  Coordinator(CoordinatorOptions options, std::vector<Job> active, const FinishedJobs* finished,
              absl::Time now);

  Decision Step(const Event& event, absl::Time now);

  // RESOURCE_EXHAUSTED where there are as many jobs as may be. JobSubmitted is refused for it too;
  // this is for who would compile a job first.
  absl::Status CheckRoom(const std::string& job_name) const;

  // Renews the lease and nothing else, so that there is nothing to store: for a heartbeat whose
  // decision cannot be stored. What its list means is found out from the next one.
  Decision RenewLease(const AgentHeartbeat& heartbeat, absl::Time now);

  const std::map<JobId, Job>& jobs() const { return jobs_; }
  const AgentTable& agents() const { return agents_; }
  const CoordinatorOptions& options() const { return options_; }
  absl::Time now() const { return now_; }  // of the last step

  // Devices of `node` that no attempt holds.
  std::vector<int64_t> FreeDevices(const NodeId& node) const;

 private:
  struct Capacity {
    int64_t num_devices = 0;
    int64_t num_nodes = 0;
    std::vector<NodeId> ending = {};  // nodes that count no more
  };

  // coordinator.cc: users' events, the bookkeeping of a step.
  void On(const JobSubmitted& event);
  void On(const CancelRequested& event);
  void On(const Tick& event);
  absl::Status CheckFits(const JobRequest& request) const;
  Capacity KnownCapacity(const std::string& device_kind) const;
  Capacity RegisteredCapacity(const std::string& device_kind) const;
  void Touch(const Job& job) { changed_.insert(job.id); }
  void BeginStep(absl::Time now);
  void Record(Job& job, HistoryEvent what);
  void Move(Job& job, JobTrigger trigger, const std::string& reason);
  void FinishStep();

  // coordinator_queue.cc: who is next, and why the others wait.
  void ScheduleQueue();
  static int64_t RanksOf(const Job& job);
  std::vector<NodeDevices> DevicesOfNodes() const;
  bool StillRunsElsewhere(const Job& job) const;
  PendingReason WhyPending(const Job& job, const std::vector<const Job*>& before,
                           const Job* blocking, const std::vector<NodeDevices>& devices) const;
  void SetPending(Job& job, PendingReason pending);

  // coordinator_attempt.cc: from the first prepare to the last process.
  void StartAttempt(Job& job, AttemptKind kind, std::vector<RankPart> ranks);
  void On(const CommandDone& event);
  void OnPrepareDone(Job& job, NodePart& node, const CommandDone& event);
  void OnCommitDone(Job& job, NodePart& node, const absl::Status& status);
  void OnStopDone(Job& job, NodePart& node, AgentCommand command, const absl::Status& status);
  void NoteReach(NodePart& node, const absl::Status& status);
  void CommitAttempt(Job& job);
  void SendCommits(Job& job);
  void BeginStop(Job& job, AttemptOutcome outcome, FailureCause cause);
  void FinishRanks(Job& job);
  void SendStops(Job& job);
  void FailStart(Job& job, const NodeId& node, const absl::Status& status);
  void EndNode(Job& job, NodePart& node, RankState rank_state);
  void EndAttemptIfGone(Job& job);
  void Restart(Job& job);
  void EndFault(Job& job);
  void CheckPatience(Job& job);
  void CheckReattached(Job& job);
  void CheckStarting(Job& job);
  FailureCause LateCause(const Attempt& attempt, const NodeId& node) const;
  absl::Duration PatienceOf(const Attempt& attempt) const;
  absl::Duration PatienceWith(const Job& job) const;
  void CheckHung(Job& job);
  std::string MissingRanks(const Attempt& attempt) const;

  // coordinator_verify.cc: whether the plan computes what the model does.
  static bool MayNeedVerification(const Job& job);
  bool NeedsVerification(Job& job);
  void FinishVerification(Job& job);
  void EndVerification(Job& job);
  void NoteVerification(Job& job, VerificationNote note);

  // coordinator_agents.cc: registration, leases, lists of attempts.
  void On(const AgentRegistered& event);
  void On(const AgentHeartbeat& event);
  void On(const AgentProbed& event);
  static bool Renew(Agent& agent, const AgentHeartbeat& heartbeat, absl::Time now);
  void NoteEnding(Agent& agent, bool is_ending);
  void Answer(Agent& agent);
  void Reconcile(Agent& agent, const std::vector<AttemptStatus>& attempts,
                 int64_t last_answer_token);
  void ReconcileOwn(const Agent& agent, const AttemptStatus& status);
  void ReconcileForeign(Agent& agent, const AttemptStatus& status);
  void ExplainLoss(const Agent& agent, const AttemptStatus& status);
  void FindMissing(const Agent& agent, const std::set<AttemptId>& listed,
                   int64_t last_answer_token);
  void LoseAgent(Agent& agent, const std::string& why);
  void LoseNode(Job& job, NodePart& node, FailureCause::Kind kind, const std::string& why);
  void ImproveCause(Job& job, FailureCause cause);
  void CheckAgents();

  // coordinator_reports.cc: what ranks say.
  void On(const RanksReported& event);
  void ApplyRankStatus(Job& job, const NodeId& node, const RankStatus& status);
  void ApplyRankEnd(Job& job, const RankStatus& status);
  void ApplyRankFinish(Job& job, const RankStatus& status);
  void NoteEarlyFinish(Job& job, const NodeId& node, const RankStatus& status);
  void ApplyEarlyFinishes(Job& job, const NodeId& node);
  void ApplyCheckpoint(Job& job, Rank rank, const CheckpointNote& note);
  void Resume(Job& job, const CheckpointNote& note);
  void TakeSteps(Job& job);
  void ApplyStep(Job& job, Rank rank, const StepReport& report);
  void CheckAllRanks(Job& job);

  Job* FindActive(const JobId& job);
  // The job if `attempt` is its newest and not over; null else.
  Job* FindCurrent(const AttemptId& attempt);
  // The same, if the attempt still has something on `node`.
  Job* FindCurrentOn(const AttemptId& attempt, const NodeId& node);

  CoordinatorOptions options_;
  const FinishedJobs* finished_;
  absl::Time started_at_;
  std::map<JobId, Job> jobs_;  // those that have not ended
  AgentTable agents_;

  // Of the step that is going on.
  absl::Time now_;
  Decision decision_;
  std::set<JobId> changed_;
};

}  // namespace autosp
