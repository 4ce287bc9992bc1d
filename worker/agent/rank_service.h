// What ranks call, on a unix socket.

#pragma once

#include "autosp/v1/rank.grpc.pb.h"
#include "worker/agent/agent.h"

namespace autosp::agent {

// One call per rank, open for as long as the rank lives. Thread-safe. The agent outlives it.
class RankServiceImpl final : public v1::RankService::Service {
 public:
  explicit RankServiceImpl(Agent& agent) : agent_(agent) {}

  grpc::Status Report(grpc::ServerContext* context, grpc::ServerReader<v1::RankReport>* reader,
                      v1::ReportResponse* response) override;

 private:
  absl::Status ReadReports(grpc::ServerReader<v1::RankReport>& reader);
  absl::Status Handle(const AttemptKey& key, Rank rank, const v1::RankReport& report);

  Agent& agent_;
};

}  // namespace autosp::agent
