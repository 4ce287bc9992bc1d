// Agents: registration, leases, and what their lists of attempts mean.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/failure.h"

namespace autosp {
namespace {

// Older than every answer: the list cannot show that something is missing.
constexpr int64_t kNoToken = -1;

constexpr char kNothingLeft[] = "its agent says that nothing of the attempt is left";

}  // namespace

void Coordinator::On(const AgentRegistered& event) {
  const NodeId& node = event.info.node;
  const bool is_expected =
      options_.expected_nodes.empty() ||
      std::ranges::count(options_.expected_nodes, node, &ExpectedNode::node) > 0;
  if (!is_expected) {
    decision_.status =
        WithErrorInfo(FailedPrecondition("node ", node,
                                         " is not in the cluster file; add it there, or give the "
                                         "agent the name of a node that is"),
                      {.reason = "NODE_UNKNOWN", .subject = node.value()});
    return;
  }
  absl::StatusOr<bool> is_new = agents_.Register(event.info, now_);
  decision_.status = is_new.status();
  if (!is_new.ok()) return;
  if (*is_new) {
    decision_.reason =
        absl::StrCat("node ", node, ": agent ", event.info.instance, " at ", event.info.address,
                     " registers ", event.info.num_devices, " ", event.info.device_kind,
                     " devices and ", event.attempts.size(), " attempts");
  }
  Agent& agent = *agents_.Find(node);
  NoteEnding(agent, event.is_ending);
  Reconcile(agent, event.attempts, kNoToken);
  Answer(agent);
}

void Coordinator::On(const AgentHeartbeat& event) {
  absl::StatusOr<Agent*> agent = agents_.FindSpeaking(event.node, event.instance);
  decision_.status = agent.status();
  if (!agent.ok()) return;
  NoteEnding(**agent, event.is_ending);
  if (Renew(**agent, event, now_)) Reconcile(**agent, event.attempts, event.last_answer_token);
  Answer(**agent);
}

// There is no way back: what a heartbeat that comes late does not know yet is still so.
void Coordinator::NoteEnding(Agent& agent, bool is_ending) {
  if (!is_ending || agent.is_ending) return;
  agent.is_ending = true;
  absl::StrAppend(&decision_.reason, decision_.reason.empty() ? "" : "; ", "node ", agent.info.node,
                  ": its agent is ending, and gets nothing new");
}

Decision Coordinator::RenewLease(const AgentHeartbeat& heartbeat, absl::Time now) {
  BeginStep(now);
  absl::StatusOr<Agent*> agent = agents_.FindSpeaking(heartbeat.node, heartbeat.instance);
  decision_.status = agent.status();
  if (agent.ok()) {
    Renew(**agent, heartbeat, now_);
    Answer(**agent);
  }
  return std::move(decision_);
}

// False for a heartbeat that comes late.
bool Coordinator::Renew(Agent& agent, const AgentHeartbeat& heartbeat, absl::Time now) {
  if (heartbeat.sequence <= agent.last_sequence) return false;
  agent.last_sequence = heartbeat.sequence;
  agent.last_heartbeat = now;
  agent.clock = heartbeat.clock;
  return true;
}

void Coordinator::Answer(Agent& agent) {
  // Counted from the start time, so that no token of an earlier coordinator can pass for a newer
  // one.
  const int64_t base = absl::ToUnixMicros(started_at_);
  agent.last_answer_token = std::max(agent.last_answer_token, base) + 1;
  decision_.answer.answer_token = agent.last_answer_token;
}

void Coordinator::Reconcile(Agent& agent, const std::vector<AttemptStatus>& attempts,
                            int64_t last_answer_token) {
  agent.foreign.clear();
  std::set<AttemptId> listed;
  for (const AttemptStatus& status : attempts) {
    listed.insert(status.attempt);
    if (FindCurrentOn(status.attempt, agent.info.node) != nullptr) {
      ReconcileOwn(agent, status);
    } else {
      ReconcileForeign(agent, status);
    }
  }
  FindMissing(agent, listed, last_answer_token);
}

// Requires: the attempt is current on this node.
void Coordinator::ReconcileOwn(const Agent& agent, const AttemptStatus& status) {
  const NodeId& node_id = agent.info.node;
  Job& job = *FindCurrent(status.attempt);
  NodePart& node = *job.attempt->FindNode(node_id);
  node.is_attached = true;
  node.agent_instance = agent.info.instance;
  if (node.phase == NodePhase::kCommitting && status.phase == AttemptStatus::Phase::kRunning) {
    node.phase = NodePhase::kCommitted;
    Touch(job);
  }
  for (const RankStatus& rank : status.ranks) {
    if (FindCurrentOn(status.attempt, node_id) == nullptr) break;
    // A list may overtake the reports of the last steps, which come in order with the finish behind
    // them. Only at the attempt's end is the list sure to come after them.
    if (rank.state == RankState::kFinished && status.phase != AttemptStatus::Phase::kEnded) {
      NoteEarlyFinish(job, node_id, rank);
      continue;
    }
    ApplyRankStatus(job, node_id, rank);
  }
  if (status.phase != AttemptStatus::Phase::kEnded) {
    const bool is_to_be_told = FindCurrentOn(status.attempt, node_id) != nullptr &&
                               job.attempt->FindNode(node_id)->is_unreachable;
    if (is_to_be_told) decision_.answer.stop_attempts.push_back(status.attempt);
    return;
  }
  decision_.answer.release_attempts.push_back(status.attempt);
  if (FindCurrentOn(status.attempt, node_id) == nullptr) return;
  LoseNode(job, *job.attempt->FindNode(node_id), FailureCause::Kind::kRankLost,
           absl::StrCat(kNothingLeft, status.end_reason.empty() ? "" : ": ", status.end_reason));
}

// An attempt that is old, over, or of no job that this coordinator knows. Only what is known to be
// superseded is stopped: having lost one's memory is no reason to kill.
void Coordinator::ReconcileForeign(Agent& agent, const AttemptStatus& status) {
  ExplainLoss(agent, status);
  if (status.phase == AttemptStatus::Phase::kEnded) {
    decision_.answer.release_attempts.push_back(status.attempt);
    return;
  }
  agent.foreign.push_back(status.attempt);
  Job* job = FindActive(status.attempt.job);
  const bool is_newer = job != nullptr && status.attempt.generation > job->generation;
  const bool is_known = job != nullptr || finished_->IsFinished(status.attempt.job);
  if (is_known && !is_newer) {
    decision_.answer.stop_attempts.push_back(status.attempt);
  } else if (is_newer && !job->attempt) {
    // The stored state is older than the attempt. The next generation must still be above it.
    job->generation = status.attempt.generation;
    job->may_have_trained = true;
    Touch(*job);
  }
}

// An agent that was given up comes back, and says what it did meanwhile. The job keeps it if it has
// not ended; a job that has ended does not change any more, and the log has it.
void Coordinator::ExplainLoss(const Agent& agent, const AttemptStatus& status) {
  if (status.end_reason.empty()) return;
  Job* job = FindCurrent(status.attempt);
  if (job == nullptr) {
    if (status.phase != AttemptStatus::Phase::kEnded) return;
    absl::StrAppend(&decision_.reason, decision_.reason.empty() ? "" : "; ", "node ",
                    agent.info.node, ": its agent says why it ended job ", status.attempt.job,
                    ", attempt ", status.attempt.generation, ": ", status.end_reason);
    return;
  }
  const bool is_cause = job->cause && job->cause->node == agent.info.node &&
                        (job->cause->kind == FailureCause::Kind::kAgentLost ||
                         job->cause->kind == FailureCause::Kind::kNotReattached);
  if (!is_cause || absl::StrContains(job->cause->message, status.end_reason)) return;
  absl::StrAppend(&job->cause->message, "; its agent is back and says: ", status.end_reason);
  job->reason = job->cause->message;
  Record(*job, ReasonChange{.reason = job->reason});
}

void Coordinator::FindMissing(const Agent& agent, const std::set<AttemptId>& listed,
                              int64_t last_answer_token) {
  const NodeId& node_id = agent.info.node;
  std::vector<JobId> ids;
  for (const auto& [id, job] : jobs_) ids.push_back(id);
  for (const JobId& id : ids) {
    Job& job = jobs_.at(id);
    NodePart* node = job.attempt ? job.attempt->FindNode(node_id) : nullptr;
    if (node == nullptr || node->phase == NodePhase::kEnded) continue;
    if (listed.contains({id, job.attempt->generation})) continue;
    if (node->agent_instance != agent.info.instance) {
      LoseNode(job, *node, FailureCause::Kind::kAgentLost, "its agent has restarted");
    } else if (!node->is_attached) {
      LoseNode(job, *node, FailureCause::Kind::kNotReattached,
               "its agent came back without the attempt");
    } else if ((node->phase != NodePhase::kPreparing || node->is_unreachable) &&
               last_answer_token > node->absence_counts_after) {
      LoseNode(job, *node, FailureCause::Kind::kAgentLost, "its agent no longer has the attempt");
    }
  }
}

void Coordinator::On(const AgentProbed& event) {
  Agent* agent = agents_.Find(event.node);
  const bool is_current = agent != nullptr && !agent->is_lost &&
                          agent->info.instance == event.instance &&
                          agent->last_heartbeat < event.asked_at;
  if (!is_current || !event.is_refused) return;
  LoseAgent(*agent, absl::StrCat("its agent is gone, nothing listens at ", agent->info.address));
}

void Coordinator::CheckAgents() {
  agents_.ForgetLost(now_ - options_.forget_lost_after);
  for (auto& [node, agent] : agents_.all()) {
    if (agent.is_lost) continue;
    const absl::Duration silence = now_ - agent.last_heartbeat;
    if (silence >= options_.lease) {
      LoseAgent(agent, absl::StrCat("its agent has been silent for its lease of ",
                                    absl::FormatDuration(options_.lease)));
    } else if (silence >= options_.suspect_after && now_ >= agent.probe_at) {
      agent.probe_at = now_ + options_.probe_interval;
      decision_.effects.push_back(ProbeAgent{.node = node,
                                             .instance = agent.info.instance,
                                             .address = agent.info.address,
                                             .asked_at = now_});
    }
  }
}

void Coordinator::LoseAgent(Agent& agent, const std::string& why) {
  agent.is_lost = true;
  agent.foreign.clear();
  decision_.reason = absl::StrCat("node ", agent.info.node, ": ", why);
  std::vector<JobId> ids;
  for (const auto& [id, job] : jobs_) ids.push_back(id);
  for (const JobId& id : ids) {
    Job& job = jobs_.at(id);
    NodePart* node = job.attempt ? job.attempt->FindNode(agent.info.node) : nullptr;
    if (node == nullptr || node->phase == NodePhase::kEnded) continue;
    LoseNode(job, *node, FailureCause::Kind::kAgentLost, why);
  }
}

// Nothing of the attempt is left on the node. A fault, unless its ranks had finished or were being
// stopped. Requires: the node's part has not ended.
void Coordinator::LoseNode(Job& job, NodePart& node, FailureCause::Kind kind,
                           const std::string& why) {
  ApplyEarlyFinishes(job, node.node);
  const Attempt& attempt = *job.attempt;
  const bool has_finished = std::ranges::all_of(attempt.ranks, [&](const RankPart& rank) {
    return rank.node != node.node || rank.state == RankState::kFinished;
  });
  FailureCause cause = NodeCause(attempt, node.node, kind, why);
  // That explains nothing, nor do the words of an agent that was told to end the attempt.
  cause.is_echo =
      why == kNothingLeft || (node.is_unreachable && absl::StartsWith(why, kNothingLeft));
  const NodeId node_id = node.node;
  EndNode(job, node, job.state == JobState::kStopping ? RankState::kStopped : RankState::kLost);
  if (job.state == JobState::kStopping) {
    if (!has_finished) ImproveCause(job, std::move(cause));
    EndAttemptIfGone(job);
  } else if (!has_finished) {
    if (!attempt.is_committed) {
      FailStart(job, node_id, absl::UnavailableError(why));
    } else {
      BeginStop(job, AttemptOutcome::kFault, std::move(cause));
    }
  }
}

// While an attempt is being stopped for a fault, its true cause may still come in.
void Coordinator::ImproveCause(Job& job, FailureCause cause) {
  const bool is_better = job.attempt->outcome == AttemptOutcome::kFault && job.cause &&
                         IsBetterCause(cause, *job.cause);
  // Agents of other nodes give back as their reason what they were told to stop for.
  if (!is_better || absl::StrContains(cause.message, job.cause->message)) return;
  cause.time = now_;
  job.reason = cause.message;
  job.cause = std::move(cause);
  Record(job, ReasonChange{.reason = job.reason});
}

}  // namespace autosp
