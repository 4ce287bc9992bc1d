// A CoordinatorService whose answers are set by the test, on a real port.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "common/check.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "proto/grpc_status.h"
#include "proto/shutting_down.h"

namespace autosp {

// Thread-safe.
class FakeCoordinator final : public v1::CoordinatorService::Service {
 public:
  struct Answers {
    std::map<std::string, v1::Job> jobs;
    std::vector<v1::JobEvent> events;  // of every job
    std::vector<v1::Node> nodes;
    std::string log = "line 1\nline 2\n";
    int num_unavailable = 0;       // so many calls find nobody first
    int num_shutting_down = 0;     // so many submissions are told that it ends
    int events_per_stream = 1000;  // the stream breaks after so many
    bool hangs_after_events = false;
    bool hangs = false;    // SubmitJob and GetJob do, until they are broken off
    bool is_busy = false;  // it does not take jobs now
  };
  struct Seen {
    std::vector<v1::SubmitJobRequest> submissions;
    std::vector<v1::CancelJobRequest> cancellations;
    v1::GetLogsRequest logs_request;
    v1::ListJobsRequest list_request;
    int num_turned_away = 0;
    int num_hanging = 0;
  };

  FakeCoordinator() { Start("127.0.0.1:0"); }
  ~FakeCoordinator() override { Stop(); }

  const std::string& address() const { return address_; }

  // As if the process had ended: connections break, the port refuses.
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_ = nullptr;
  }

  // On the same port.
  void Restart() { Start(address_); }

  void Change(const std::function<void(Answers&)>& change) {
    const std::lock_guard lock(mutex_);
    change(answers_);
  }

  Seen Get() {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

  grpc::Status SubmitJob(grpc::ServerContext* context, const v1::SubmitJobRequest* request,
                         v1::SubmitJobResponse* response) override {
    Hang(*context);
    const std::lock_guard lock(mutex_);
    seen_.submissions.push_back(*request);
    if (TurnsAway()) return Away();
    if (answers_.num_shutting_down-- > 0) return ToGrpcStatus(ShuttingDown());
    if (answers_.is_busy) {
      return ToGrpcStatus(
          WithErrorInfo(Unavailable("the coordinator is still compiling other jobs"),
                        {.reason = "COMPILER_BUSY", .remedy = "submit again later"}));
    }
    v1::Job& job = *response->mutable_job();
    job.set_job_id("job-1");
    job.set_name("llama");
    job.mutable_plan()->add_warnings("op aten.foo has no rule and is gathered");
    answers_.jobs["job-1"] = job;
    return grpc::Status::OK;
  }

  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request,
                      v1::GetJobResponse* response) override {
    Hang(*context);
    const std::lock_guard lock(mutex_);
    if (TurnsAway()) return Away();
    const auto found = answers_.jobs.find(request->job_id());
    if (found == answers_.jobs.end()) {
      return ToGrpcStatus(
          WithErrorInfo(NotFound("job ", request->job_id(), " does not exist"),
                        {.reason = "JOB_NOT_FOUND", .remedy = "see autosp-cli list"}));
    }
    *response->mutable_job() = found->second;
    return grpc::Status::OK;
  }

  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest* request,
                         v1::CancelJobResponse* response) override {
    const std::lock_guard lock(mutex_);
    seen_.cancellations.push_back(*request);
    response->mutable_job()->set_job_id(request->job_id());
    response->mutable_job()->set_state(v1::JOB_STATE_STOPPING);
    return grpc::Status::OK;
  }

  // Pages of two.
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    const std::lock_guard lock(mutex_);
    seen_.list_request = *request;
    const std::map<std::string, v1::Job>& jobs = answers_.jobs;
    auto it = jobs.upper_bound(request->page_token());
    for (int i = 0; i < 2 && it != jobs.end(); ++i, ++it) *response->add_jobs() = it->second;
    if (it != jobs.end()) response->set_next_page_token(std::prev(it)->first);
    return grpc::Status::OK;
  }

  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override {
    const Answers answers = CurrentAnswers();
    int num_sent = 0;
    for (const v1::JobEvent& event : answers.events) {
      if (event.sequence() <= request->after_sequence()) continue;
      if (num_sent++ == answers.events_per_stream) return Away();
      v1::WatchJobResponse response;
      *response.mutable_event() = event;
      writer->Write(response);
    }
    while (CurrentAnswers().hangs_after_events && !context->IsCancelled()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    return grpc::Status::OK;
  }

  grpc::Status GetLogs(grpc::ServerContext*, const v1::GetLogsRequest* request,
                       grpc::ServerWriter<v1::GetLogsResponse>* writer) override {
    const std::lock_guard lock(mutex_);
    seen_.logs_request = *request;
    v1::GetLogsResponse response;
    response.set_data(answers_.log);
    writer->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                         v1::ListNodesResponse* response) override {
    for (const v1::Node& node : CurrentAnswers().nodes) *response->add_nodes() = node;
    return grpc::Status::OK;
  }

 private:
  static grpc::Status Away() { return {grpc::StatusCode::UNAVAILABLE, "away"}; }

  // Requires: mutex_ is held.
  bool TurnsAway() {
    if (answers_.num_unavailable == 0) return false;
    --answers_.num_unavailable;
    ++seen_.num_turned_away;
    return true;
  }

  void Hang(const grpc::ServerContext& context) {
    if (!CurrentAnswers().hangs) return;
    {
      const std::lock_guard lock(mutex_);
      ++seen_.num_hanging;
    }
    while (CurrentAnswers().hangs && !context.IsCancelled()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }

  Answers CurrentAnswers() {
    const std::lock_guard lock(mutex_);
    return answers_;
  }

  void Start(const std::string& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    // Otherwise a second server could share the port of the first.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    AUTOSP_CHECK(server_ != nullptr, address);
    address_ = absl::StrCat("127.0.0.1:", port);
  }

  std::mutex mutex_;  // Guards the next two.
  Answers answers_;
  Seen seen_;

  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// Event `sequence`: step `step` is done.
inline v1::JobEvent StepEvent(int64_t sequence, int64_t step, double loss) {
  v1::JobEvent event;
  event.set_job_id("job-1");
  event.set_sequence(sequence);
  event.mutable_time()->set_seconds(1'700'000'000 + step);
  v1::StepReport& report = *event.mutable_step_finished()->mutable_report();
  report.set_step(step);
  report.set_loss(loss);
  report.set_tokens(100);
  report.set_step_seconds(1.0);
  return event;
}

inline v1::JobEvent StateEvent(int64_t sequence, v1::JobState to, const std::string& reason) {
  v1::JobEvent event;
  event.set_job_id("job-1");
  event.set_sequence(sequence);
  event.mutable_state_changed()->set_to(to);
  event.mutable_state_changed()->set_reason(reason);
  return event;
}

}  // namespace autosp
