#include "server/service/coordinator_agent_service.h"

#include "common/clock.h"
#include "proto/grpc_status.h"
#include "server/service/agent_from_proto.h"

namespace autosp {

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

grpc::Status CoordinatorAgentServiceImpl::RegisterAgent(grpc::ServerContext* /*context*/,
                                                        const v1::RegisterAgentRequest* request,
                                                        v1::RegisterAgentResponse* response) {
  absl::StatusOr<AgentRegistered> event = AgentRegisteredFromProto(*request);
  if (!event.ok()) return ToGrpcStatus(event.status());

  const Decision decision = driver_.Handle(*std::move(event));
  if (!decision.status.ok()) return ToGrpcStatus(decision.status);

  FillAnswer(decision.answer, response);
  return grpc::Status::OK;
}

grpc::Status CoordinatorAgentServiceImpl::Heartbeat(grpc::ServerContext* /*context*/,
                                                    const v1::HeartbeatRequest* request,
                                                    v1::HeartbeatResponse* response) {
  absl::StatusOr<AgentHeartbeat> event = AgentHeartbeatFromProto(*request);
  if (!event.ok()) return ToGrpcStatus(event.status());
  event->clock = ClockFromProto(*request, Clock::Real().Now());

  const Decision decision = driver_.Handle(*std::move(event));
  if (!decision.status.ok()) return ToGrpcStatus(decision.status);

  FillAnswer(decision.answer, response);
  return grpc::Status::OK;
}

grpc::Status CoordinatorAgentServiceImpl::ReportRanks(grpc::ServerContext* /*context*/,
                                                      const v1::ReportRanksRequest* request,
                                                      v1::ReportRanksResponse* response) {
  absl::StatusOr<RanksReported> event = RanksReportedFromProto(*request);
  if (!event.ok()) return ToGrpcStatus(event.status());

  const Decision decision = driver_.Handle(*std::move(event));
  if (!decision.status.ok()) return ToGrpcStatus(decision.status);

  for (const AttemptId& attempt : decision.answer.stop_attempts) {
    *response->add_stop_attempts() = AttemptToProto(attempt);
  }
  return grpc::Status::OK;
}

}  // namespace autosp
