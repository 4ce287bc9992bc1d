// A real autosp-agent as a child process, with a fake coordinator and scripted ranks.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "autosp/v1/agent.grpc.pb.h"
#include "common/subprocess.h"
#include "tests/worker/agent/fake_coordinator.h"

namespace autosp::agent {

// Thread-compatible.
class AgentProcess {
 public:
  // Waits until it has registered. `extra_flags` come last; `env` is added to its environment.
  static absl::StatusOr<std::unique_ptr<AgentProcess>> Start(
      FakeCoordinator& coordinator, const std::string& folder,
      const std::vector<std::string>& extra_flags = {}, const std::vector<std::string>& env = {});

  // Orders, as the coordinator gives them.
  absl::Status Prepare(const v1::PrepareRequest& request);
  absl::StatusOr<v1::PrepareResponse> PrepareForAnswer(const v1::PrepareRequest& request);
  absl::Status Commit(const std::string& job_id, int64_t generation = 1,
                      const std::vector<std::string>& rank_addresses = {},
                      const std::string& secret = "");
  absl::Status Abort(const std::string& job_id, int64_t generation = 1);
  absl::Status StopAttempt(const std::string& job_id, absl::Duration grace, int64_t generation = 1);
  absl::StatusOr<std::string> ReadLog(const std::string& job_id, int rank, int64_t tail_lines = 0,
                                      bool follow = false);

  // What gRPC's health service answers for `service`; "": for the agent as a whole.
  bool IsServing(const std::string& service) const;

  Subprocess& process() { return process_; }
  // What the agent itself logs.
  std::string LogText() const;

 private:
  AgentProcess(Subprocess process, std::string address, std::string log_path);

  Subprocess process_;
  const std::string address_;
  std::string log_path_;
  std::unique_ptr<v1::AgentService::Stub> stub_;
};

// A Prepare of `num_ranks` ranks on the first devices of the node, whose ranks run `script`
// (fake_rank.cc).
v1::PrepareRequest MakePrepare(const std::string& folder, const std::string& job_id, int num_ranks,
                               const std::string& script);

// Whether none of these processes exists, within the time. Zombies of others count as ended.
bool AreGone(const std::vector<int64_t>& pids, absl::Duration timeout);

}  // namespace autosp::agent
