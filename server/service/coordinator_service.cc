#include "server/service/coordinator_service.h"

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "proto/grpc_status.h"
#include "proto/shutting_down.h"
#include "server/coordinator/count_noun.h"
#include "server/service/job_to_proto.h"
#include "server/service/limits.h"
#include "server/service/log_relay.h"
#include "server/service/request_from_proto.h"

namespace autosp {
namespace {

absl::Status WithJobReason(absl::Status status, const JobId& job) {
  if (!absl::IsNotFound(status)) return status;
  return WithErrorInfo(NotFound("job ", job, " does not exist; `autosp-cli list` shows the jobs"),
                       {.reason = "JOB_NOT_FOUND",
                        .subject = job.value(),
                        .remedy = "`autosp-cli list` shows the jobs"});
}

bool IsLastEntry(const HistoryEntry& entry) {
  const auto* change = std::get_if<StateChange>(&entry.what);
  return change != nullptr && IsTerminal(change->to);
}

// Null for an attempt that there never was, or that is older than the job remembers.
const NodeId* NodeOfLog(const Job& job, const LogQuery& query) {
  const AttemptPlace* place = job.FindPlace(Generation(query.generation));
  return place == nullptr ? nullptr : place->NodeOf(query.rank);
}

absl::Status NoSuchLog(const Job& job, const LogQuery& query) {
  std::string known = absl::StrCat("its last attempt is ", job.generation, " with ",
                                   CountNoun(std::ssize(job.ranks()), "rank"));
  if (job.places.size() > 1) {
    absl::StrAppend(&known, ", and those from ", job.places.front().generation, " on have logs");
  }
  return WithErrorInfo(NotFound("job ", query.job, " has no log of rank ", query.rank,
                                " in attempt ", query.generation, "; ", known),
                       {.reason = "LOG_NOT_FOUND", .subject = query.job.value()});
}

absl::Status TooManyStreams() {
  return WithErrorInfo(ResourceExhausted("more than ", kMaxStreams,
                                         " callers watch jobs or read logs; try again later"),
                       {.reason = "TOO_MANY_STREAMS"});
}

}  // namespace

grpc::Status CoordinatorServiceImpl::SubmitJob(grpc::ServerContext* context,
                                               const v1::SubmitJobRequest* request,
                                               v1::SubmitJobResponse* response) {
  absl::StatusOr<Submission> submission = SubmissionFromProto(*request);
  if (!submission.ok()) return ToGrpcStatus(submission.status());

  absl::StatusOr<JobIntake::Accepted> accepted =
      intake_.Submit(*submission, [context] { return context->IsCancelled(); });
  if (!accepted.ok()) return ToGrpcStatus(accepted.status());

  response->set_was_duplicate(accepted->was_duplicate);
  return ToGrpcStatus(FillJob(accepted->job, response->mutable_job()));
}

grpc::Status CoordinatorServiceImpl::GetJob(grpc::ServerContext* /*context*/,
                                            const v1::GetJobRequest* request,
                                            v1::GetJobResponse* response) {
  absl::StatusOr<JobId> job = JobIdFromProto(request->job_id());
  if (!job.ok()) return ToGrpcStatus(job.status());
  return ToGrpcStatus(FillJob(*job, response->mutable_job()));
}

absl::Status CoordinatorServiceImpl::FillJob(const JobId& id, v1::Job* job) const {
  absl::StatusOr<Job> stored = store_.GetJob(id);
  if (!stored.ok()) return WithJobReason(stored.status(), id);
  ASSIGN_OR_RETURN(const JobInputs inputs, store_.GetInputs(id));
  *job = JobToProto(*stored);
  if (job->mutable_plan()->ParseFromString(inputs.plan_summary)) return absl::OkStatus();
  return DataLoss("job ", id, ": its stored plan cannot be read");
}

grpc::Status CoordinatorServiceImpl::ListJobs(grpc::ServerContext* /*context*/,
                                              const v1::ListJobsRequest* request,
                                              v1::ListJobsResponse* response) {
  absl::StatusOr<JobPage> page = JobPageFromProto(*request);
  if (!page.ok()) return ToGrpcStatus(page.status());

  const int64_t limit = page->limit;
  ++page->limit;  // One more says whether there is another page.
  absl::StatusOr<std::vector<Job>> jobs = store_.ListJobs(*page);
  if (!jobs.ok()) return ToGrpcStatus(jobs.status());

  for (const Job& job : *jobs) {
    if (response->jobs_size() == limit) {
      response->set_next_page_token(PageToken("jobs", response->jobs(limit - 1).job_id()));
      break;
    }
    *response->add_jobs() = JobToProto(job);
  }
  return grpc::Status::OK;
}

grpc::Status CoordinatorServiceImpl::CancelJob(grpc::ServerContext* /*context*/,
                                               const v1::CancelJobRequest* request,
                                               v1::CancelJobResponse* response) {
  absl::StatusOr<Cancellation> cancellation = CancellationFromProto(*request);
  if (!cancellation.ok()) return ToGrpcStatus(cancellation.status());

  const Decision decision =
      driver_.Handle(CancelRequested{cancellation->job, cancellation->reason});
  if (!decision.status.ok()) return ToGrpcStatus(decision.status);
  return ToGrpcStatus(FillJob(cancellation->job, response->mutable_job()));
}

grpc::Status CoordinatorServiceImpl::WatchJob(grpc::ServerContext* context,
                                              const v1::WatchJobRequest* request,
                                              grpc::ServerWriter<v1::WatchJobResponse>* writer) {
  absl::StatusOr<JobId> job = JobIdFromProto(request->job_id());
  if (!job.ok()) return ToGrpcStatus(job.status());
  absl::StatusOr<Job> stored = store_.GetJob(*job);
  if (!stored.ok()) return ToGrpcStatus(WithJobReason(stored.status(), *job));

  const absl::Cleanup leave = [this] { --num_streams_; };
  if (++num_streams_ > kMaxStreams) return ToGrpcStatus(TooManyStreams());
  return ToGrpcStatus(Watch(*context, *job, request->after_sequence(), *writer));
}

absl::Status CoordinatorServiceImpl::Watch(grpc::ServerContext& context, const JobId& job,
                                           int64_t after_sequence,
                                           grpc::ServerWriter<v1::WatchJobResponse>& writer) const {
  int64_t sequence = after_sequence;
  while (!context.IsCancelled()) {
    if (driver_.is_stopped()) return ShuttingDown();
    // Before the history: what ends in between is read with its last entry.
    ASSIGN_OR_RETURN(const Job stored, store_.GetJob(job));
    ASSIGN_OR_RETURN(const std::vector<HistoryEntry> entries,
                     store_.History(job, sequence, kHistoryBatch));
    for (const HistoryEntry& entry : entries) {
      v1::WatchJobResponse response;
      *response.mutable_event() = HistoryEntryToProto(entry);
      if (!writer.Write(response)) return Cancelled("the watcher has gone");
      sequence = entry.sequence;
      if (IsLastEntry(entry)) return absl::OkStatus();
    }
    if (!entries.empty()) continue;
    if (IsTerminal(stored.state)) return absl::OkStatus();
    driver_.WaitForHistory(job, sequence, kWatchPoll);
  }
  return Cancelled("the watcher has gone");
}

grpc::Status CoordinatorServiceImpl::GetLogs(grpc::ServerContext* context,
                                             const v1::GetLogsRequest* request,
                                             grpc::ServerWriter<v1::GetLogsResponse>* writer) {
  absl::StatusOr<LogQuery> query = LogQueryFromProto(*request);
  if (!query.ok()) return ToGrpcStatus(query.status());
  absl::StatusOr<std::string> address = AddressOfLog(*query);
  if (!address.ok()) return ToGrpcStatus(address.status());

  const absl::Cleanup leave = [this] { --num_streams_; };
  if (++num_streams_ > kMaxStreams) return ToGrpcStatus(TooManyStreams());
  return ToGrpcStatus(RelayLog(*context, *address, credentials_, *query, *writer));
}

absl::StatusOr<std::string> CoordinatorServiceImpl::AddressOfLog(LogQuery& query) const {
  absl::StatusOr<Job> job = store_.GetJob(query.job);
  if (!job.ok()) return WithJobReason(job.status(), query.job);
  if (query.generation == 0) query.generation = job->generation.value();
  const NodeId* found = NodeOfLog(*job, query);
  if (found == nullptr) return NoSuchLog(*job, query);
  const NodeId node_id = *found;
  const std::vector<NodeView> nodes = driver_.Nodes();
  auto node = std::ranges::find(nodes, node_id, &NodeView::node);
  const bool is_here =
      node != nodes.end() && !node->agent_address.empty() && node->state != NodeView::State::kLost;
  if (is_here) return node->agent_address;
  return WithErrorInfo(Unavailable("the log is on node ", node_id,
                                   ", whose agent is not connected; start it and try again"),
                       {.reason = "NODE_NOT_CONNECTED", .subject = node_id.value()});
}

grpc::Status CoordinatorServiceImpl::ListNodes(grpc::ServerContext* /*context*/,
                                               const v1::ListNodesRequest* request,
                                               v1::ListNodesResponse* response) {
  absl::StatusOr<NodePage> page = NodePageFromProto(*request);
  if (!page.ok()) return ToGrpcStatus(page.status());

  for (const NodeView& node : driver_.Nodes()) {
    if (node.node.value() <= page->after) continue;
    if (response->nodes_size() == page->limit) {
      const std::string& last = response->nodes(response->nodes_size() - 1).node_id();
      response->set_next_page_token(PageToken("nodes", last));
      break;
    }
    *response->add_nodes() = NodeToProto(node);
  }
  return grpc::Status::OK;
}

grpc::Status CoordinatorServiceImpl::GetPlan(grpc::ServerContext* /*context*/,
                                             const v1::GetPlanRequest* request,
                                             v1::GetPlanResponse* response) {
  absl::StatusOr<JobId> id = JobIdFromProto(request->job_id());
  if (!id.ok()) return ToGrpcStatus(id.status());
  v1::Job job;
  if (absl::Status status = FillJob(*id, &job); !status.ok()) return ToGrpcStatus(status);
  absl::StatusOr<JobInputs> inputs = store_.GetInputs(*id);
  if (!inputs.ok()) return ToGrpcStatus(inputs.status());

  v1::Plan& plan = *response->mutable_plan();
  plan.set_job_id(id->value());
  plan.set_digest(job.plan_digest());
  *plan.mutable_summary() = std::move(*job.mutable_plan());
  plan.set_summary_text(inputs->plan_text);
  if (request->include_program_text()) plan.set_program_text(inputs->program_text);
  response->set_job_yaml(inputs->job_yaml);
  return grpc::Status::OK;
}

grpc::Status CoordinatorServiceImpl::GetServerInfo(grpc::ServerContext* /*context*/,
                                                   const v1::GetServerInfoRequest* /*request*/,
                                                   v1::GetServerInfoResponse* response) {
  response->set_version(kVersion);
  SetTime(Clock::Real().Now(), *response->mutable_time());
  return grpc::Status::OK;
}

}  // namespace autosp
