// CoordinatorAgentService: what agents call.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "autosp/v1/agent.grpc.pb.h"
#include "server/service/driver.h"

namespace autosp {

// Thread-safe.
class CoordinatorAgentServiceImpl final : public v1::CoordinatorAgentService::Service {
 public:
  // `driver` outlives the service. `instance_id` is new with each process.
  CoordinatorAgentServiceImpl(CoordinatorDriver& driver, const CoordinatorOptions& options,
                              std::string instance_id)
      : driver_(driver),
        lease_(options.lease),
        heartbeat_interval_(options.heartbeat_interval),
        instance_id_(std::move(instance_id)) {}

  grpc::Status RegisterAgent(grpc::ServerContext* context, const v1::RegisterAgentRequest* request,
                             v1::RegisterAgentResponse* response) override;
  grpc::Status Heartbeat(grpc::ServerContext* context, const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* response) override;
  grpc::Status ReportRanks(grpc::ServerContext* context, const v1::ReportRanksRequest* request,
                           v1::ReportRanksResponse* response) override;

 private:
  // What the coordinator says to an event, or why it takes none of it.
  template <typename Event>
  absl::StatusOr<AgentAnswer> Handle(absl::StatusOr<Event> event);

  // Agents ask again every second or so: each refusal of a node is said once, until it changes.
  void LogRefusal(const std::string& peer, const std::string& node, const absl::Status& refusal);

  template <typename Response>
  void FillAnswer(const AgentAnswer& answer, Response* response) const;

  CoordinatorDriver& driver_;
  const absl::Duration lease_;
  const absl::Duration heartbeat_interval_;
  const std::string instance_id_;

  std::mutex refusals_mutex_;
  std::map<std::string, std::string> last_refusals_;  // by node; guarded by refusals_mutex_
};

}  // namespace autosp
