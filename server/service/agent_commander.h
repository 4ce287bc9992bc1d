// Performs the coordinator's effects: calls to agents, in order per node, and questions to
// machines.
//
// Each node has a queue and a thread of its own while there is something to do, so that one that
// does not answer holds back nobody else. What is asked twice while it waits is sent once.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "autosp/v1/agent.grpc.pb.h"
#include "proto/credentials.h"
#include "server/service/driver.h"
#include "server/service/limits.h"
#include "server/store/job_store.h"

namespace autosp {

// Thread-safe.
class AgentCommander final : public EffectSink {
 public:
  // Driver and store outlive the commander.
  AgentCommander(CoordinatorDriver& driver, const JobStore& store, Credentials credentials,
                 absl::Duration idle = kCommanderIdle);
  // Gives up what is on its way; the coordinator sends it again when it is back.
  ~AgentCommander() override;

  void Perform(const Effect& effect) override;

 private:
  // One line of waiting effects and the thread that works on it.
  class Worker;

  void PushTo(const std::string& name, const Effect& effect);
  void Run(const Effect& effect, Worker& worker);
  absl::StatusOr<std::vector<RankAddress>> Prepare(const PrepareRanks& command, Worker& worker);
  absl::Status Commit(const CommandAttempt& command, Worker& worker);
  absl::Status Command(const CommandAttempt& command, Worker& worker);

  CoordinatorDriver& driver_;
  const JobStore& store_;
  const Credentials credentials_;
  const absl::Duration idle_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Worker>> workers_;  // Guarded by mutex_.
};

// Whether `address` ("host:port") refuses connections: its machine answers, and nothing listens.
// False when something listens, and when nobody answers in time.
bool RefusesConnections(const std::string& address, absl::Duration timeout);

}  // namespace autosp
