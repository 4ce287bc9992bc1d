#include "server/service/log_relay.h"

#include "autosp/v1/agent.grpc.pb.h"
#include "proto/dial.h"
#include "proto/grpc_status.h"

namespace autosp {

absl::Status RelayLog(grpc::ServerContext& context, const std::string& agent_address,
                      const Credentials& credentials, const LogQuery& query,
                      grpc::ServerWriter<v1::GetLogsResponse>& writer) {
  auto stub = v1::AgentService::NewStub(Dial(agent_address, credentials));
  v1::ReadLogRequest request;
  request.mutable_attempt()->set_job_id(query.job.value());
  request.mutable_attempt()->set_generation(query.generation);
  request.set_rank(static_cast<int32_t>(query.rank.value()));
  request.set_tail_lines(query.tail_lines);
  request.set_follow(query.follow);

  // Ends with the user's call, so a log that is followed holds nothing when its reader has gone.
  auto agent_context = grpc::ClientContext::FromServerContext(context);
  auto reader = stub->ReadLog(agent_context.get(), request);
  v1::ReadLogResponse chunk;
  while (reader->Read(&chunk)) {
    v1::GetLogsResponse response;
    response.set_data(std::move(*chunk.mutable_data()));
    if (!writer.Write(response)) agent_context->TryCancel();
  }
  return FromGrpcStatus(reader->Finish());
}

}  // namespace autosp
