// CoordinatorService: what users call. Each handler parses, makes one call, converts and answers;
// streams only forward.
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "autosp/v1/coordinator.grpc.pb.h"
#include "proto/credentials.h"
#include "server/service/driver.h"
#include "server/service/job_intake.h"
#include "server/store/job_store.h"

namespace autosp {

// Thread-safe.
class CoordinatorServiceImpl final : public v1::CoordinatorService::Service {
 public:
  // All but `credentials`, with which agents are dialled, outlive the service.
  CoordinatorServiceImpl(CoordinatorDriver& driver, JobIntake& intake, const JobStore& store,
                         Credentials credentials)
      : driver_(driver), intake_(intake), store_(store), credentials_(std::move(credentials)) {}

  grpc::Status SubmitJob(grpc::ServerContext* context, const v1::SubmitJobRequest* request,
                         v1::SubmitJobResponse* response) override;
  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request,
                      v1::GetJobResponse* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context, const v1::CancelJobRequest* request,
                         v1::CancelJobResponse* response) override;
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override;
  grpc::Status GetLogs(grpc::ServerContext* context, const v1::GetLogsRequest* request,
                       grpc::ServerWriter<v1::GetLogsResponse>* writer) override;
  grpc::Status ListNodes(grpc::ServerContext* context, const v1::ListNodesRequest* request,
                         v1::ListNodesResponse* response) override;
  grpc::Status GetPlan(grpc::ServerContext* context, const v1::GetPlanRequest* request,
                       v1::GetPlanResponse* response) override;
  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest* request,
                             v1::GetServerInfoResponse* response) override;

 private:
  absl::Status FillJob(const JobId& id, v1::Job* job) const;
  absl::Status Watch(grpc::ServerContext& context, const JobId& job, int64_t after_sequence,
                     grpc::ServerWriter<v1::WatchJobResponse>& writer) const;
  // Where the agent that has the log listens.
  absl::StatusOr<std::string> AddressOfLog(LogQuery& query) const;

  CoordinatorDriver& driver_;
  JobIntake& intake_;
  const JobStore& store_;
  const Credentials credentials_;
  std::atomic<int> num_streams_ = 0;
};

}  // namespace autosp
