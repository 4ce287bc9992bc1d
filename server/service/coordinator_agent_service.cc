#include "server/service/coordinator_agent_service.h"

#include <utility>

#include "common/clock.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "proto/grpc_status.h"
#include "server/service/agent_from_proto.h"

namespace autosp {
namespace {

// Names of nodes come from whoever calls.
constexpr size_t kMaxRefusedNodes = 1024;

}  // namespace

template <typename Response>
void CoordinatorAgentServiceImpl::FillAnswer(const AgentAnswer& answer, Response* response) const {
  response->set_coordinator_instance_id(instance_id_);
  response->set_lease_ms(absl::ToInt64Milliseconds(lease_));
  response->set_heartbeat_interval_ms(absl::ToInt64Milliseconds(heartbeat_interval_));
  response->set_answer_token(answer.answer_token);
  for (const AttemptId& attempt : answer.stop_attempts) {
    *response->add_stop_attempts() = AttemptToProto(attempt);
  }
  for (const AttemptId& attempt : answer.release_attempts) {
    *response->add_release_attempts() = AttemptToProto(attempt);
  }
}

template <typename Event>
absl::StatusOr<AgentAnswer> CoordinatorAgentServiceImpl::Handle(absl::StatusOr<Event> event) {
  RETURN_IF_ERROR(event.status());
  Decision decision = driver_.Handle(*std::move(event));
  RETURN_IF_ERROR(decision.status);
  return std::move(decision.answer);
}

void CoordinatorAgentServiceImpl::LogRefusal(const std::string& peer, const std::string& node,
                                             const absl::Status& refusal) {
  const std::string message(refusal.message());
  const std::lock_guard lock(refusals_mutex_);
  if (last_refusals_.size() >= kMaxRefusedNodes) last_refusals_.clear();
  if (std::exchange(last_refusals_[node], message) == message) return;
  LogWarning("the agent of node \"", node, "\" at ", peer, " is refused: ", message);
}

grpc::Status CoordinatorAgentServiceImpl::RegisterAgent(grpc::ServerContext* context,
                                                        const v1::RegisterAgentRequest* request,
                                                        v1::RegisterAgentResponse* response) {
  const absl::StatusOr<AgentAnswer> answer = Handle(AgentRegisteredFromProto(*request));
  if (!answer.ok()) {
    LogRefusal(context->peer(), request->node_id().substr(0, 256), answer.status());
    return ToGrpcStatus(answer.status());
  }
  {
    const std::lock_guard lock(refusals_mutex_);
    last_refusals_.erase(request->node_id());
  }
  FillAnswer(*answer, response);
  return grpc::Status::OK;
}

grpc::Status CoordinatorAgentServiceImpl::Heartbeat(grpc::ServerContext* /*context*/,
                                                    const v1::HeartbeatRequest* request,
                                                    v1::HeartbeatResponse* response) {
  absl::StatusOr<AgentHeartbeat> event = AgentHeartbeatFromProto(*request);
  if (event.ok()) event->clock = ClockFromProto(*request, Clock::Real().Now());
  const absl::StatusOr<AgentAnswer> answer = Handle(std::move(event));
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  FillAnswer(*answer, response);
  return grpc::Status::OK;
}

grpc::Status CoordinatorAgentServiceImpl::ReportRanks(grpc::ServerContext* /*context*/,
                                                      const v1::ReportRanksRequest* request,
                                                      v1::ReportRanksResponse* response) {
  const absl::StatusOr<AgentAnswer> answer = Handle(RanksReportedFromProto(*request));
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  for (const AttemptId& attempt : answer->stop_attempts) {
    *response->add_stop_attempts() = AttemptToProto(attempt);
  }
  return grpc::Status::OK;
}

}  // namespace autosp
