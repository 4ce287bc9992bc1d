#include "client/coordinator_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "proto/dial.h"
#include "proto/grpc_status.h"
#include "proto/shutting_down.h"

namespace autosp {
namespace {

constexpr int kPageSize = 500;
// A job with thousands of data files has an answer of a megabyte or so; a program is longer.
constexpr int kMaxMessageBytes = 64 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const ServerAddress& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Without this, gRPC waits up to two minutes before it looks for a restarted server again.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  // Not a pause, whatever its name says: how long one attempt to connect may take. A server on a
  // busy machine takes its time.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return Dial(server.address, server.credentials, std::move(arguments));
}

// Between two looks at whether the caller was interrupted.
constexpr absl::Duration kConnectSlice = absl::Milliseconds(100);

// It was there, so that the next one is probably on its way.
bool IsShuttingDown(const absl::Status& status) {
  return GetErrorInfo(status).reason == kShuttingDownReason;
}

// Nobody answered, or a coordinator that may soon take it. One that gives another reason of its own
// (it still compiles other jobs) has waited already.
bool IsWorthARetry(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return false;
  const std::string reason = GetErrorInfo(status).reason;
  return reason.empty() || reason == absl::StatusCodeToString(status.code()) ||
         IsShuttingDown(status);
}

}  // namespace

CoordinatorClient::CoordinatorClient(const ServerAddress& server, CoordinatorClientOptions options)
    : server_(server),
      options_(options),
      channel_(MakeChannel(server)),
      stub_(v1::CoordinatorService::NewStub(channel_)) {}

template <typename Request, typename Response, typename Method>
absl::StatusOr<Response> CoordinatorClient::Call(Method method, const Request& request,
                                                 absl::Duration deadline) {
  absl::Status status;
  absl::Duration pause = options_.first_pause;
  absl::Time give_up = absl::InfinitePast();  // once it was tried often enough
  for (int i = 0; i < options_.max_tries || absl::Now() < give_up; ++i) {
    if (i > 0) {
      if (!PauseAndConnect(pause)) return Cancelled("interrupted");
      pause = std::min(2 * pause, options_.max_pause);
    }
    Response response;
    status = RunCall([&](grpc::ClientContext& context) {
      context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
      return (stub_.get()->*method)(&context, request, &response);
    });
    if (status.ok()) return response;
    if (!IsWorthARetry(status)) return status;
    if (IsShuttingDown(status)) give_up = absl::Now() + options_.restart_patience;
  }
  if (!GetErrorInfo(status).reason.empty()) return status;  // It is there, and says so.
  const std::string why = ExplainTls(server_.address, server_.credentials);
  return Unavailable("no coordinator at ", server_.address, ": ", status.message(), "; ",
                     why.empty() ? "is it running? --server names another" : why);
}

absl::StatusOr<v1::SubmitJobResponse> CoordinatorClient::SubmitJob(v1::SubmitJobRequest request) {
  if (request.request_id().empty()) request.set_request_id(RandomId("submit"));
  return Call<v1::SubmitJobRequest, v1::SubmitJobResponse>(&v1::CoordinatorService::Stub::SubmitJob,
                                                           request, options_.submit_deadline);
}

absl::StatusOr<v1::Job> CoordinatorClient::GetJob(const std::string& job_id) {
  v1::GetJobRequest request;
  request.set_job_id(job_id);
  ASSIGN_OR_RETURN(v1::GetJobResponse response,
                   (Call<v1::GetJobRequest, v1::GetJobResponse>(
                       &v1::CoordinatorService::Stub::GetJob, request, options_.deadline)));
  return std::move(*response.mutable_job());
}

absl::StatusOr<v1::Job> CoordinatorClient::CancelJob(const std::string& job_id,
                                                     const std::string& reason) {
  v1::CancelJobRequest request;
  request.set_request_id(RandomId("cancel"));
  request.set_job_id(job_id);
  request.set_reason(reason);
  ASSIGN_OR_RETURN(v1::CancelJobResponse response,
                   (Call<v1::CancelJobRequest, v1::CancelJobResponse>(
                       &v1::CoordinatorService::Stub::CancelJob, request, options_.deadline)));
  return std::move(*response.mutable_job());
}

absl::StatusOr<v1::Plan> CoordinatorClient::GetPlan(const std::string& job_id,
                                                    bool include_program_text) {
  v1::GetPlanRequest request;
  request.set_job_id(job_id);
  request.set_include_program_text(include_program_text);
  ASSIGN_OR_RETURN(v1::GetPlanResponse response,
                   (Call<v1::GetPlanRequest, v1::GetPlanResponse>(
                       &v1::CoordinatorService::Stub::GetPlan, request, options_.deadline)));
  return std::move(*response.mutable_plan());
}

absl::StatusOr<std::string> CoordinatorClient::GetJobFile(const std::string& job_id) {
  v1::GetPlanRequest request;
  request.set_job_id(job_id);
  ASSIGN_OR_RETURN(v1::GetPlanResponse response,
                   (Call<v1::GetPlanRequest, v1::GetPlanResponse>(
                       &v1::CoordinatorService::Stub::GetPlan, request, options_.deadline)));
  return std::move(*response.mutable_job_yaml());
}

absl::StatusOr<v1::GetServerInfoResponse> CoordinatorClient::GetServerInfo() {
  return Call<v1::GetServerInfoRequest, v1::GetServerInfoResponse>(
      &v1::CoordinatorService::Stub::GetServerInfo, v1::GetServerInfoRequest(), options_.deadline);
}

absl::StatusOr<std::vector<v1::Job>> CoordinatorClient::ListJobs(
    const std::vector<v1::JobState>& states, int limit) {
  v1::ListJobsRequest request;
  for (const v1::JobState state : states) request.add_states(state);
  std::vector<v1::Job> jobs;
  while (static_cast<int>(jobs.size()) < limit) {
    request.set_page_size(std::min<int>(kPageSize, limit - static_cast<int>(jobs.size())));
    ASSIGN_OR_RETURN(v1::ListJobsResponse response,
                     (Call<v1::ListJobsRequest, v1::ListJobsResponse>(
                         &v1::CoordinatorService::Stub::ListJobs, request, options_.deadline)));
    for (v1::Job& job : *response.mutable_jobs()) jobs.push_back(std::move(job));
    request.set_page_token(response.next_page_token());
    if (request.page_token().empty()) break;
  }
  return jobs;
}

absl::StatusOr<std::vector<v1::Node>> CoordinatorClient::ListNodes() {
  v1::ListNodesRequest request;
  request.set_page_size(kPageSize);
  std::vector<v1::Node> nodes;
  do {
    ASSIGN_OR_RETURN(v1::ListNodesResponse response,
                     (Call<v1::ListNodesRequest, v1::ListNodesResponse>(
                         &v1::CoordinatorService::Stub::ListNodes, request, options_.deadline)));
    for (v1::Node& node : *response.mutable_nodes()) nodes.push_back(std::move(node));
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return nodes;
}

absl::Status CoordinatorClient::RunCall(
    const std::function<grpc::Status(grpc::ClientContext&)>& body) {
  grpc::ClientContext context;
  {
    const std::lock_guard lock(mutex_);
    if (is_cancelled_) return Cancelled("interrupted");
    calls_.push_back(&context);
  }
  const grpc::Status status = body(context);
  const std::lock_guard lock(mutex_);
  calls_.erase(std::find(calls_.begin(), calls_.end(), &context));
  if (is_cancelled_ && !status.ok()) return Cancelled("interrupted");
  return FromGrpcStatus(status);
}

bool CoordinatorClient::Pause(absl::Duration duration) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, absl::ToChronoNanoseconds(duration),
                            [this] { return is_cancelled_; });
}

bool CoordinatorClient::PauseAndConnect(absl::Duration duration) {
  const absl::Time end = absl::Now() + duration;
  while (absl::Now() < end) {
    const absl::Time slice_end = std::min(end, absl::Now() + kConnectSlice);
    // Connected, it pauses all the same: somebody who is there may have turned the call away.
    channel_->WaitForConnected(absl::ToChronoTime(slice_end));
    if (!Pause(slice_end - absl::Now())) return false;
  }
  return Pause(absl::ZeroDuration());
}

absl::Status CoordinatorClient::WatchJob(const std::string& job_id,
                                         const std::function<void(const v1::JobEvent&)>& on_event) {
  v1::WatchJobRequest request;
  request.set_job_id(job_id);
  while (true) {
    const absl::Status status = RunCall([&](grpc::ClientContext& context) {
      auto reader = stub_->WatchJob(&context, request);
      v1::WatchJobResponse response;
      while (reader->Read(&response)) {
        // After a reconnect the server may repeat what was on its way when the connection broke.
        if (response.event().sequence() <= request.after_sequence()) continue;
        request.set_after_sequence(response.event().sequence());
        on_event(response.event());
      }
      return reader->Finish();
    });
    if (status.code() != absl::StatusCode::kUnavailable) return status;
    RETURN_IF_ERROR(AwaitConnection(status));
  }
}

absl::Status CoordinatorClient::AwaitConnection(const absl::Status& broken) {
  const absl::Time give_up = absl::Now() + options_.restart_patience;
  while (absl::Now() < give_up) {
    // The pause is also for a coordinator that is there and still refuses.
    if (!Pause(options_.first_pause)) return Cancelled("interrupted");
    const absl::Time slice_end = absl::Now() + options_.first_pause;
    if (channel_->WaitForConnected(absl::ToChronoTime(slice_end))) return absl::OkStatus();
  }
  return Unavailable("no coordinator at ", server_.address, " for ",
                     absl::FormatDuration(options_.restart_patience), ": ", broken.message(),
                     "; the job may still run: watch it again later");
}

absl::Status CoordinatorClient::GetLogs(const v1::GetLogsRequest& request,
                                        const std::function<void(absl::string_view)>& on_data) {
  return RunCall([&](grpc::ClientContext& context) {
    if (!request.follow()) {
      context.set_deadline(absl::ToChronoTime(absl::Now() + options_.logs_deadline));
    }
    auto reader = stub_->GetLogs(&context, request);
    v1::GetLogsResponse response;
    while (reader->Read(&response)) on_data(response.data());
    return reader->Finish();
  });
}

void CoordinatorClient::CancelCalls() {
  const std::lock_guard lock(mutex_);
  is_cancelled_ = true;
  changed_.notify_all();
  for (grpc::ClientContext* context : calls_) context->TryCancel();
}

}  // namespace autosp
