// The queue: first come, first served. A job that waits for devices holds back those after it, so
// that a large job is never starved by small ones. A job that the registered nodes could not hold
// even when idle holds back nobody.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/count_noun.h"

namespace autosp {
namespace {

// "; nodes a, b are ending", of nodes that a job may have counted on.
std::string EndingText(const std::vector<NodeId>& nodes) {
  constexpr size_t kMaxNames = 4;
  if (nodes.empty()) return "";
  std::vector<std::string> names;
  for (const NodeId& node : nodes) {
    if (names.size() < kMaxNames) names.push_back(node.value());
  }
  const size_t num_more = nodes.size() - names.size();
  return absl::StrCat(nodes.size() == 1 ? "; node " : "; nodes ", absl::StrJoin(names, ", "),
                      num_more > 0 ? absl::StrCat(" and ", num_more, " more") : "",
                      nodes.size() == 1 ? " is" : " are", " ending");
}

}  // namespace

void Coordinator::ScheduleQueue() {
  std::vector<Job*> queue;
  for (auto& [id, job] : jobs_) {
    if (job.state == JobState::kQueued) queue.push_back(&job);
  }
  std::ranges::sort(queue, [](const Job* a, const Job* b) {
    return std::tie(a->create_time, a->id) < std::tie(b->create_time, b->id);
  });

  std::vector<const Job*> waiting;
  const Job* blocking = nullptr;
  // Found out once, and again after a start: the queue may be long.
  std::vector<NodeDevices> devices = DevicesOfNodes();
  for (Job* job : queue) {
    const bool may_start =
        blocking == nullptr && now_ >= job->retry_at && !StillRunsElsewhere(*job);
    if (may_start) {
      const AttemptKind kind =
          NeedsVerification(*job) ? AttemptKind::kVerification : AttemptKind::kTraining;
      auto ranks = PlaceRanks(RanksOf(*job), job->request->device_kind, devices);
      if (ranks) {
        StartAttempt(*job, kind, *std::move(ranks));
        devices = DevicesOfNodes();
        continue;
      }
    }
    PendingReason pending = WhyPending(*job, waiting, blocking, devices);
    // A job that is about to restart keeps its place.
    const bool blocks = pending.code == PendingReason::Code::kDevices ||
                        pending.code == PendingReason::Code::kRestart;
    if (blocking == nullptr && blocks) blocking = job;
    SetPending(*job, std::move(pending));
    waiting.push_back(job);
  }
}

// Of the job's next attempt. A verification runs in one process.
int64_t Coordinator::RanksOf(const Job& job) {
  return MayNeedVerification(job) ? 1 : job.request->world_size;
}

std::vector<int64_t> Coordinator::FreeDevices(const NodeId& node) const {
  const Agent* agent = agents_.FindLive(node);
  if (agent == nullptr || agent->is_ending || !agent->foreign.empty()) return {};
  std::set<int64_t> taken;
  for (const auto& [id, job] : jobs_) {
    const NodePart* part = job.attempt ? job.attempt->FindNode(node) : nullptr;
    if (part == nullptr || part->phase == NodePhase::kEnded) continue;
    for (const RankPart& rank : job.attempt->ranks) {
      if (rank.node == node) taken.insert(rank.device_index);
    }
  }
  std::vector<int64_t> free;
  for (int64_t i = 0; i < agent->info.num_devices; ++i) {
    if (!taken.contains(i)) free.push_back(i);
  }
  return free;
}

std::vector<NodeDevices> Coordinator::DevicesOfNodes() const {
  std::vector<NodeDevices> nodes;
  for (const auto& [node, agent] : agents_.all()) {
    nodes.push_back({.node = node,
                     .device_kind = agent.info.device_kind,
                     .num_devices = agent.info.num_devices,
                     .free = FreeDevices(node)});
  }
  return nodes;
}

// An attempt of this very job that this coordinator does not know, left by a state that was lost.
bool Coordinator::StillRunsElsewhere(const Job& job) const {
  for (const auto& [node, agent] : agents_.all()) {
    if (agent.is_lost) continue;
    for (const AttemptId& attempt : agent.foreign) {
      if (attempt.job == job.id) return true;
    }
  }
  return false;
}

PendingReason Coordinator::WhyPending(const Job& job, const std::vector<const Job*>& before,
                                      const Job* blocking,
                                      const std::vector<NodeDevices>& devices) const {
  const std::string& kind = job.request->device_kind;
  const Capacity registered = RegisteredCapacity(kind);
  const bool is_restart =
      job.restarts.total > 0 && job.cause && job.cause->message == job.restarts.last_reason;
  PendingReason pending;
  pending.devices_needed = RanksOf(job);
  pending.devices_total = registered.num_devices;
  pending.nodes_registered = registered.num_nodes;
  pending.queue_position = static_cast<int64_t>(before.size());
  for (const NodeDevices& node : devices) {
    if (node.device_kind == kind) pending.devices_free += static_cast<int64_t>(node.free.size());
  }
  const std::string needs =
      absl::StrCat("needs ", CountNoun(pending.devices_needed, absl::StrCat(kind, " device")),
                   MayNeedVerification(job) ? " to verify its plan" : "", "; ");
  if (StillRunsElsewhere(job)) {
    pending.code = PendingReason::Code::kReattach;
    pending.message = "an older attempt of this job still runs on a node; waits for its end";
  } else if (now_ < job.retry_at && is_restart) {
    pending.code = PendingReason::Code::kRestart;
    pending.message = absl::StrCat("restart ", job.restarts.used, " of ", job.request->max_restarts,
                                   " follows within ", absl::FormatDuration(options_.retry_delay));
  } else if (now_ < job.retry_at) {
    pending.code = PendingReason::Code::kRetryStart;
    pending.message =
        absl::StrCat("tries again within ", absl::FormatDuration(options_.retry_delay), " (",
                     job.num_failed_starts, " of ", options_.max_failed_starts, " starts failed); ",
                     job.cause ? job.cause->message : "");
  } else if (registered.num_devices < pending.devices_needed) {
    const bool is_early = now_ < started_at_ + options_.lease + options_.reattach_margin;
    pending.code = is_early ? PendingReason::Code::kReattach : PendingReason::Code::kNodes;
    pending.message = absl::StrCat(needs, "the registered nodes (", pending.nodes_registered,
                                   ") have ", pending.devices_total, EndingText(registered.ending),
                                   is_early ? "; the coordinator has just started" : "");
  } else if (blocking != nullptr) {
    pending.code = PendingReason::Code::kBehindJob;
    pending.blocking_job = blocking->id;
    pending.message = absl::StrCat("waits behind job ", blocking->id, ", which needs ",
                                   RanksOf(*blocking), "; ", pending.queue_position, " before it");
  } else {
    pending.code = PendingReason::Code::kDevices;
    pending.message =
        absl::StrCat(needs, pending.devices_free, " of ", pending.devices_total, " are free");
  }
  return pending;
}

void Coordinator::SetPending(Job& job, PendingReason pending) {
  // Until agents have registered again, what was true before the start says more; and a queue of
  // thousands is not written anew at each one.
  const bool is_stale = job.has_old_pending && pending.code == PendingReason::Code::kReattach;
  if (is_stale && !StillRunsElsewhere(job)) return;
  job.has_old_pending = false;
  // What people see is the message; a number behind it that changes alone is not worth an entry.
  const bool is_same =
      job.pending && job.pending->code == pending.code && job.pending->message == pending.message;
  if (is_same) return;
  job.pending = pending;
  job.reason = pending.message;
  Record(job, ReasonChange{.reason = job.reason, .pending = std::move(pending)});
}

}  // namespace autosp
