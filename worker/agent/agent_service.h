// What the coordinator calls: parse, one call of the agent, answer.

#pragma once

#include <atomic>

#include "autosp/v1/agent.grpc.pb.h"
#include "common/metrics_exporter.h"
#include "worker/agent/agent.h"

namespace autosp::agent {

// Thread-safe. The agent and the registry outlive it.
class AgentServiceImpl final : public v1::AgentService::Service {
 public:
  AgentServiceImpl(Agent& agent, MetricRegistry& registry) : agent_(agent), registry_(registry) {}

  grpc::Status Prepare(grpc::ServerContext* context, const v1::PrepareRequest* request,
                       v1::PrepareResponse* response) override;
  grpc::Status Commit(grpc::ServerContext* context, const v1::CommitRequest* request,
                      v1::CommitResponse* response) override;
  grpc::Status Abort(grpc::ServerContext* context, const v1::AbortRequest* request,
                     v1::AbortResponse* response) override;
  grpc::Status StopAttempt(grpc::ServerContext* context, const v1::StopAttemptRequest* request,
                           v1::StopAttemptResponse* response) override;
  grpc::Status ReadLog(grpc::ServerContext* context, const v1::ReadLogRequest* request,
                       grpc::ServerWriter<v1::ReadLogResponse>* writer) override;

 private:
  absl::Status DoReadLog(const grpc::ServerContext& context, const v1::ReadLogRequest& request,
                         grpc::ServerWriter<v1::ReadLogResponse>& writer);

  Agent& agent_;
  MetricRegistry& registry_;
  std::atomic<int> num_log_readers_ = 0;
};

}  // namespace autosp::agent
