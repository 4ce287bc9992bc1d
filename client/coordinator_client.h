// The coordinator as C++ functions.
//
// Every call has a deadline. A call that found nobody is tried again with growing pauses: that is
// safe, because reads change nothing and a change carries a request_id under which the coordinator
// does it once. One that a coordinator has turned away because it ends waits for the next.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "proto/credentials.h"

namespace autosp {

struct CoordinatorClientOptions {
  absl::Duration deadline = absl::Seconds(20);        // of a short call, each try
  absl::Duration logs_deadline = absl::Seconds(120);  // that are not followed
  // Waits for a turn and compiles, which may take minutes; what nobody waits for makes no job.
  absl::Duration submit_deadline = absl::Minutes(30);
  int max_tries = 5;
  absl::Duration first_pause = absl::Milliseconds(200);  // before the second try; then doubled
  absl::Duration max_pause = absl::Seconds(2);
  // How long WatchJob goes on without a coordinator, and a call after one that was there and ends:
  // one that restarts is back in seconds.
  absl::Duration restart_patience = absl::Seconds(30);
};

struct ServerAddress {
  // Without credentials: clear text.
  ServerAddress(std::string address, Credentials credentials = {})  // NOLINT: converts on purpose
      : address(std::move(address)), credentials(std::move(credentials)) {}

  std::string address;  // host:port
  Credentials credentials;
};

// Thread-safe.
class CoordinatorClient {
 public:
  explicit CoordinatorClient(const ServerAddress& server, CoordinatorClientOptions options = {});

  // `request.request_id` is filled in where it is empty.
  absl::StatusOr<v1::SubmitJobResponse> SubmitJob(v1::SubmitJobRequest request);
  absl::StatusOr<v1::Job> GetJob(const std::string& job_id);
  absl::StatusOr<v1::Job> CancelJob(const std::string& job_id, const std::string& reason);
  absl::StatusOr<v1::Plan> GetPlan(const std::string& job_id, bool include_program_text);
  // As it was submitted, in its canonical form.
  absl::StatusOr<std::string> GetJobFile(const std::string& job_id);
  absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo();

  // Newest first, every page until there are `limit`.
  absl::StatusOr<std::vector<v1::Job>> ListJobs(const std::vector<v1::JobState>& states, int limit);
  absl::StatusOr<std::vector<v1::Node>> ListNodes();

  // Calls `on_event` for each event of the job, from the first to the last. When the coordinator
  // goes away, waits for it to come back and goes on where it was. Returns after the last event,
  // or CANCELLED after CancelCalls.
  absl::Status WatchJob(const std::string& job_id,
                        const std::function<void(const v1::JobEvent&)>& on_event);

  // Calls `on_data` with pieces of the log as they come.
  absl::Status GetLogs(const v1::GetLogsRequest& request,
                       const std::function<void(absl::string_view)>& on_data);

  // Ends the calls that run, and those that begin later, with CANCELLED. From any thread.
  void CancelCalls();

 private:
  template <typename Request, typename Response, typename Method>
  absl::StatusOr<Response> Call(Method method, const Request& request, absl::Duration deadline);

  // Registers the call for CancelCalls while `body` runs.
  absl::Status RunCall(const std::function<grpc::Status(grpc::ClientContext&)>& body);

  // Waits for a coordinator to come back after a stream broke with `broken`.
  absl::Status AwaitConnection(const absl::Status& broken);

  // False when CancelCalls came before the time was over.
  bool Pause(absl::Duration duration);

  // The same, and connects meanwhile: gRPC does so only while somebody waits for it.
  bool PauseAndConnect(absl::Duration duration);

  const ServerAddress server_;
  const CoordinatorClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::vector<grpc::ClientContext*> calls_;
  bool is_cancelled_ = false;
};

}  // namespace autosp
