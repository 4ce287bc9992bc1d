// The agent of a node: performs what AttemptTable decides.
//
//   coordinator --orders--> AgentService --+                     +--> RankProcesses (kill, start)
//   ranks -------reports--> RankService ---+--> loop: the table -+--> ReportQueue -> coordinator
//   time, ends of processes ---------------+                     +--> files, metrics
//
// The loop thread owns the table and the processes. Everything else hands it events. Heartbeats and
// leases depend on it, so what may wait for a slow disk happens outside: an attempt's files are
// checked and written by the threads of orders, and removed by one that cleans up; another one
// starts processes, one after the other.

#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "autosp/v1/agent.pb.h"
#include "common/metrics_exporter.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/attempt_order.h"
#include "worker/agent/attempt_table.h"
#include "worker/agent/event_loop.h"
#include "worker/agent/log_pump.h"
#include "worker/agent/rank_listeners.h"
#include "worker/agent/rank_processes.h"
#include "worker/agent/report_queue.h"

namespace autosp::agent {

struct AgentOptions {
  NodeId node_id;
  int num_devices = 1;
  int num_cores = 1;  // Shared by the ranks of an attempt for their operators.
  int64_t host_memory_bytes = 0;
  std::string state_dir;
  RankPrograms programs;
  std::string socket_path;  // Of RankService, for the ranks.
  ListenOptions rank_listen;
};

// Thread-safe, but for Run, which one thread calls once.
class Agent {
 public:
  // Cleans up after an earlier life. `registry` and `queue` outlive the agent.
  static absl::StatusOr<std::unique_ptr<Agent>> Create(const AgentOptions& options,
                                                       MetricRegistry& registry,
                                                       ReportQueue& queue);

  // Called on the loop when something is worth a heartbeat before its time: an attempt has ended,
  // or the agent is ending. Set before Run.
  void set_on_news(std::function<void()> callback) { on_news_ = std::move(callback); }

  // Returns after EndLoop.
  void Run();
  // Refuses new attempts and stops all ranks, with a short grace. A second call kills them at once.
  void RequestShutdown(const std::string& reason);
  // Until a shutdown has been requested and no rank is left. The loop still runs, so that the
  // coordinator can be told. One thread calls it, once.
  void WaitUntilDrained() { drained_.get_future().wait(); }
  void EndLoop() { loop_.Stop(); }

  // Orders of the coordinator.
  // Where the ranks listen, if the attempt spans nodes.
  absl::StatusOr<RankAddresses> Prepare(const AttemptOrder& order);
  absl::Status Commit(const NodeId& node_id, const AttemptKey& key, const PeersOrder& peers);
  absl::Status Abort(const NodeId& node_id, const AttemptKey& key);
  absl::Status Stop(const NodeId& node_id, const AttemptKey& key, absl::Duration grace,
                    const std::string& reason);

  // Reports of ranks.
  absl::Status Hello(const AttemptKey& key, Rank rank, int64_t pid);
  absl::Status StepDone(const AttemptKey& key, Rank rank, const v1::StepReport& step);
  absl::Status CheckpointDone(const AttemptKey& key, Rank rank,
                              const v1::CheckpointReport& checkpoint);
  absl::Status Finished(const AttemptKey& key, Rank rank, RankResult result);
  absl::Status Failed(const AttemptKey& key, Rank rank, RankFailureInfo failure);
  void StreamClosed(const AttemptKey& key, Rank rank);

  // For heartbeats: everything that the agent holds.
  absl::StatusOr<std::vector<v1::AttemptStatus>> Statuses();
  // Whether a shutdown has been requested: nothing new is taken from then on.
  bool is_ending() const { return is_shutting_down_; }
  // The coordinator has answered what was sent at `sent_at` (steady time).
  void RenewLease(absl::Duration sent_at, absl::Duration lease);
  void StopListed(std::vector<AttemptKey> keys);
  void Release(std::vector<AttemptKey> keys);

  std::string LogPath(const AttemptKey& key, Rank rank) const { return files_.LogPath(key, rank); }
  // Whether the rank may still write to its log.
  bool IsLogGrowing(const AttemptKey& key, Rank rank);

  const NodeId& node_id() const { return options_.node_id; }

 private:
  Agent(const AgentOptions& options, std::unique_ptr<LogPump> pump, MetricRegistry& registry,
        ReportQueue& queue);

  absl::Status CheckNode(const NodeId& node_id) const;
  absl::Status CheckRunning() const;
  absl::StatusOr<ReserveResult> Reserve(const Reservation& reservation);
  absl::StatusOr<RankAddresses> MakeReady(const AttemptOrder& order);
  absl::StatusOr<RankAddresses> OpenListeners(const AttemptOrder& order);
  absl::Status PrepareFiles(const AttemptOrder& order) const;
  absl::Status WritePeers(const AttemptKey& key, const PeersOrder& peers) const;

  // On the loop.
  void Tick();
  void WatchLease(absl::Duration now);
  void WatchShutdown();
  void Perform(Effects effects);
  void Do(const StartRank& effect, Effects& more);
  void Do(const SignalRank& effect, Effects& more);
  void Do(const ReportRank& effect, Effects& more);
  void Do(const CleanUpAttempt& effect, Effects& more);
  void Do(const ForgetAttempt& effect, Effects& more);
  void Start(const AttemptKey& key, Rank rank);
  void TakeOver(const AttemptKey& key, Rank rank, absl::StatusOr<RankProcesses::Spawned> spawned);
  v1::RankStatus StatusOf(const AttemptKey& key, const RankRecord& rank) const;
  void LogState(const AttemptKey& key, const RankRecord& rank) const;
  void RetireSeries(absl::Duration now);
  // Runs a method of the table on the loop and performs what it asks for.
  absl::Status Apply(const std::function<absl::Status(absl::Duration now, Effects&)>& change);

  const AgentOptions options_;
  const AttemptFiles files_;
  MetricRegistry& registry_;
  ReportQueue& queue_;
  std::function<void()> on_news_ = [] {};
  std::atomic<bool> is_shutting_down_ = false;  // set on the loop

  RankListeners listeners_;
  EventLoop loop_;
  EventLoop cleaning_;
  EventLoop starting_;
  // Owned by the loop.
  AttemptTable table_;
  std::unique_ptr<LogPump> pump_;
  RankProcesses processes_;
  std::deque<StartRank> starts_;
  bool is_starting_ = false;  // One of them is with the thread that starts.
  bool had_lease_ = false;
  bool is_drained_ = false;
  std::promise<void> drained_;
  // Metrics of jobs that have left, kept a while so that the last values are scraped.
  std::deque<std::pair<absl::Duration, JobId>> retired_;
};

}  // namespace autosp::agent
