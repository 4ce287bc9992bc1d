#include "tests/worker/agent/fake_coordinator.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "proto/grpc_status.h"
#include "worker/agent/agent_errors.h"

namespace autosp::agent {

const v1::AttemptStatus* FakeCoordinator::Seen::Attempt(const std::string& job_id) const {
  for (const v1::AttemptStatus& attempt : last_heartbeat.attempts()) {
    if (attempt.attempt().job_id() == job_id) return &attempt;
  }
  return nullptr;
}

FakeCoordinator::FakeCoordinator() { Start(); }

FakeCoordinator::~FakeCoordinator() { Stop(); }

void FakeCoordinator::Start() {
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port_), grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  AUTOSP_CHECK(server_ != nullptr, "cannot listen on port ", port_);
}

void FakeCoordinator::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
  const std::lock_guard lock(mutex_);
  is_registered_ = false;
}

void FakeCoordinator::Change(const std::function<void(Answers&)>& change) {
  const std::lock_guard lock(mutex_);
  change(answers_);
}

FakeCoordinator::Seen FakeCoordinator::Get() {
  const std::lock_guard lock(mutex_);
  return seen_;
}

bool FakeCoordinator::WaitUntil(const std::function<bool(const Seen&)>& condition,
                                absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return seen_more_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                             [&] { return condition(seen_); });
}

grpc::Status FakeCoordinator::RegisterAgent(grpc::ServerContext* /*context*/,
                                            const v1::RegisterAgentRequest* request,
                                            v1::RegisterAgentResponse* response) {
  const std::lock_guard lock(mutex_);
  if (!answers_.refuse_registration_reason.empty()) {
    return ToGrpcStatus(
        WithReason(absl::FailedPreconditionError(absl::StrCat("this agent is not wanted: ",
                                                              answers_.refuse_registration_reason)),
                   answers_.refuse_registration_reason));
  }
  seen_.registrations.push_back(*request);
  seen_more_.notify_all();
  is_registered_ = true;
  response->set_lease_ms(answers_.lease_ms);
  response->set_heartbeat_interval_ms(answers_.heartbeat_interval_ms);
  response->set_answer_token(100);
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::CheckRegistered() {
  if (is_registered_) return grpc::Status::OK;
  return ToGrpcStatus(WithReason(absl::NotFoundError("who are you"), kReasonAgentNotRegistered));
}

grpc::Status FakeCoordinator::Heartbeat(grpc::ServerContext* /*context*/,
                                        const v1::HeartbeatRequest* request,
                                        v1::HeartbeatResponse* response) {
  const std::lock_guard lock(mutex_);
  if (const grpc::Status status = CheckRegistered(); !status.ok()) return status;
  seen_.last_heartbeat = *request;
  ++seen_.num_heartbeats;
  seen_more_.notify_all();
  response->set_lease_ms(answers_.lease_ms);
  response->set_heartbeat_interval_ms(answers_.heartbeat_interval_ms);
  response->set_answer_token(100 + seen_.num_heartbeats);
  for (const v1::AttemptRef& ref : answers_.stop_attempts) *response->add_stop_attempts() = ref;
  for (const v1::AttemptRef& ref : answers_.release_attempts) {
    *response->add_release_attempts() = ref;
  }
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::ReportRanks(grpc::ServerContext* /*context*/,
                                          const v1::ReportRanksRequest* request,
                                          v1::ReportRanksResponse* /*response*/) {
  const std::lock_guard lock(mutex_);
  ++seen_.num_report_calls;
  seen_more_.notify_all();
  if (answers_.refuse_reports) return {grpc::StatusCode::UNAVAILABLE, "busy"};
  if (const grpc::Status status = CheckRegistered(); !status.ok()) return status;
  for (const v1::AttemptRankReport& report : request->reports()) {
    const std::string& job_id = report.attempt().job_id();
    if (report.has_step()) seen_.steps[job_id][report.rank()].push_back(report.step());
    if (report.has_status()) seen_.statuses[job_id][report.rank()] = report.status();
  }
  return grpc::Status::OK;
}

}  // namespace autosp::agent
