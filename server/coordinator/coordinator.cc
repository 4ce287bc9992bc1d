#include "server/coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "server/coordinator/count_noun.h"
#include "server/coordinator/failure.h"

namespace autosp {

absl::Status CheckSameRequest(const RequestId& request_id, absl::string_view request_digest,
                              const SubmittedJob& first) {
  if (request_digest == first.request_digest) return absl::OkStatus();
  return WithErrorInfo(
      AlreadyExists("request ", request_id, " has made job ", first.job,
                    ", from another job file or other files; submit a different job under a "
                    "request_id of its own"),
      {.reason = "REQUEST_DIFFERS",
       .subject = request_id.value(),
       .remedy = "submit a different job under a request_id of its own",
       .metadata = {{"job_id", first.job.value()}}});
}

Coordinator::Coordinator(CoordinatorOptions options, std::vector<Job> active,
                         const FinishedJobs* finished, absl::Time now)
    : options_(std::move(options)), finished_(finished), started_at_(now), now_(now) {
  for (Job& job : active) {
    job.has_old_pending = job.pending.has_value();
    if (job.attempt) {
      for (NodePart& node : job.attempt->nodes) {
        node.is_attached = node.phase == NodePhase::kEnded;
      }
      for (RankPart& rank : job.attempt->ranks) {
        // What some ranks had reported of later steps is lost; those that go on report again.
        if (!HasEnded(rank.state)) rank.last_step = job.progress.last_step;
      }
      // The time that was spent before the crash is forgotten: patience starts anew.
      job.attempt->deadline = now + options_.lease + PatienceOf(*job.attempt);
      job.attempt->resend_at = now;
      job.attempt->last_progress = now;
    }
    jobs_.emplace(job.id, std::move(job));
  }
}

void Coordinator::BeginStep(absl::Time now) {
  // Stored times have microseconds; decisions must not depend on more than is stored.
  now_ = std::max(now_, absl::FromUnixMicros(absl::ToUnixMicros(now)));
  decision_ = Decision();
  changed_.clear();
}

Decision Coordinator::Step(const Event& event, absl::Time now) {
  BeginStep(now);
  std::visit([this](const auto& e) { On(e); }, event);
  if (decision_.status.ok()) {
    ScheduleQueue();
    FinishStep();
  }
  return std::move(decision_);
}

void Coordinator::On(const JobSubmitted& event) {
  const JobRequest& request = *event.request;
  std::optional<SubmittedJob> earlier = finished_->FindByRequest(request.request_id);
  for (const auto& [id, job] : jobs_) {
    if (job.request->request_id == request.request_id) {
      earlier = {.job = id, .request_digest = job.request->request_digest};
    }
  }
  if (earlier) {
    decision_.status = CheckSameRequest(request.request_id, request.request_digest, *earlier);
    if (!decision_.status.ok()) return;
    decision_.job = earlier->job;
    decision_.was_duplicate = true;
    return;
  }
  decision_.status = CheckFits(request);
  if (!decision_.status.ok()) return;

  Job& job = jobs_[event.job];
  job.id = event.job;
  job.request = event.request;
  job.reason = "accepted";
  job.create_time = now_;
  Record(job, StateChange{.to = JobState::kQueued, .reason = job.reason});
  decision_.job = job.id;
}

void Coordinator::On(const CancelRequested& event) {
  Job* job = FindActive(event.job);
  if (job == nullptr) {
    // Cancelling what has ended is no error: the caller has what it wanted.
    if (finished_->IsFinished(event.job)) return;
    decision_.status = WithErrorInfo(
        NotFound("job ", event.job, " does not exist; `autosp-cli list` shows the jobs"),
        {.reason = "JOB_NOT_FOUND", .subject = event.job.value()});
    return;
  }
  FailureCause cause = CancelCause(job->attempt ? &*job->attempt : nullptr, event.reason);
  cause.time = now_;
  if (job->state == JobState::kQueued) {
    job->cause = cause;
    Move(*job, JobTrigger::kCancelRequested, cause.message);
  } else if (job->state != JobState::kStopping) {
    BeginStop(*job, AttemptOutcome::kCancelled, cause);
  } else if (GoesOnAfterStop(*job)) {
    job->attempt->outcome = AttemptOutcome::kCancelled;
    job->cause = cause;
    Touch(*job);
  }
}

void Coordinator::On(const Tick& /*event*/) {
  CheckAgents();
  std::vector<JobId> ids;
  for (const auto& [id, job] : jobs_) ids.push_back(id);
  for (const JobId& id : ids) {
    Job& job = jobs_.at(id);
    if (job.attempt) CheckPatience(job);
  }
}

absl::Status Coordinator::CheckRoom(const std::string& job_name) const {
  if (jobs_.size() < options_.max_jobs) return absl::OkStatus();
  const std::string remedy = "cancel some, or submit again when some have ended";
  return WithErrorInfo(
      ResourceExhausted(CountNoun(std::ssize(jobs_), "job"),
                        " wait or run, as many as the coordinator takes; ", remedy),
      {.reason = "QUEUE_FULL", .subject = job_name, .remedy = remedy});
}

absl::Status Coordinator::CheckFits(const JobRequest& request) const {
  RETURN_IF_ERROR(CheckRoom(request.name));
  const Capacity capacity = KnownCapacity(request.device_kind);
  const bool is_any_known = !options_.expected_nodes.empty() || !agents_.all().empty();
  if (!is_any_known || request.world_size <= capacity.num_devices) return absl::OkStatus();
  return WithErrorInfo(
      InvalidArgument("job ", request.name, " needs ",
                      CountNoun(request.world_size, absl::StrCat(request.device_kind, " device")),
                      ", and the cluster has ", capacity.num_devices, " on ",
                      CountNoun(capacity.num_nodes, "node"),
                      "; ask for fewer ranks in parallelism, or add nodes"),
      {.reason = "JOB_NEVER_FITS",
       .subject = "parallelism.ranks",
       .remedy = "ask for fewer ranks in parallelism, or add nodes",
       .metadata = {{"devices_needed", absl::StrCat(request.world_size)},
                    {"devices_total", absl::StrCat(capacity.num_devices)},
                    {"nodes", absl::StrCat(capacity.num_nodes)}}});
}

// What the cluster file promises and what agents have shown, the larger of the two per node.
Coordinator::Capacity Coordinator::KnownCapacity(const std::string& device_kind) const {
  std::map<NodeId, int64_t> devices;
  for (const ExpectedNode& node : options_.expected_nodes) {
    if (node.device_kind == device_kind) devices[node.node] = node.num_devices;
  }
  for (const auto& [node, agent] : agents_.all()) {
    if (agent.info.device_kind != device_kind) continue;
    devices[node] = std::max(devices[node], agent.info.num_devices);
  }
  Capacity capacity;
  capacity.num_nodes = static_cast<int64_t>(devices.size());
  for (const auto& [node, num_devices] : devices) capacity.num_devices += num_devices;
  return capacity;
}

Coordinator::Capacity Coordinator::RegisteredCapacity(const std::string& device_kind) const {
  Capacity capacity;
  for (const auto& [node, agent] : agents_.all()) {
    if (agent.is_lost || agent.info.device_kind != device_kind) continue;
    if (agent.is_ending) {
      capacity.ending.push_back(node);
      continue;
    }
    capacity.num_devices += agent.info.num_devices;
    ++capacity.num_nodes;
  }
  return capacity;
}

void Coordinator::Record(Job& job, HistoryEvent what) {
  decision_.history.push_back({.job = job.id,
                               .sequence = ++job.last_sequence,
                               .time = now_,
                               .generation = job.generation,
                               .what = std::move(what)});
  Touch(job);
}

void Coordinator::Move(Job& job, JobTrigger trigger, const std::string& reason) {
  absl::StatusOr<JobState> next = NextState(job.state, trigger);
  AUTOSP_CHECK(next.ok(), "job ", job.id, ": ", next.status().message());
  const JobState from = std::exchange(job.state, *next);
  job.reason = reason;
  job.pending.reset();
  if (job.state == JobState::kRunning && job.start_time == absl::InfiniteFuture()) {
    job.start_time = now_;
  }
  if (IsTerminal(job.state)) job.end_time = now_;
  const bool has_cause = job.state == JobState::kStopping || job.state == JobState::kFailed ||
                         job.state == JobState::kCancelled;
  Record(job, StateChange{.from = from,
                          .to = job.state,
                          .reason = reason,
                          .cause = has_cause ? job.cause : std::nullopt});
  absl::StrAppend(&decision_.reason, decision_.reason.empty() ? "" : "; ", "job ", job.id, ": ",
                  ToString(from), " -> ", ToString(job.state), ": ", reason);
}

void Coordinator::FinishStep() {
  for (const JobId& id : changed_) {
    auto job = jobs_.find(id);
    ++job->second.revision;
    decision_.changed_jobs.push_back(job->second);
    if (IsTerminal(job->second.state)) jobs_.erase(job);
  }
}

Job* Coordinator::FindActive(const JobId& job) {
  auto found = jobs_.find(job);
  return found == jobs_.end() || IsTerminal(found->second.state) ? nullptr : &found->second;
}

Job* Coordinator::FindCurrent(const AttemptId& attempt) {
  Job* job = FindActive(attempt.job);
  if (job == nullptr || !job->attempt || job->attempt->generation != attempt.generation) {
    return nullptr;
  }
  return job;
}

Job* Coordinator::FindCurrentOn(const AttemptId& attempt, const NodeId& node) {
  Job* job = FindCurrent(attempt);
  const NodePart* part = job == nullptr ? nullptr : job->attempt->FindNode(node);
  return part == nullptr || part->phase == NodePhase::kEnded ? nullptr : job;
}

}  // namespace autosp
