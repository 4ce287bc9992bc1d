// From a submission to a job: parse, plan, store, queue.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/metrics_exporter.h"
#include "compiler/config/cluster_spec.h"
#include "server/service/driver.h"
#include "server/service/job_compiler.h"
#include "server/service/request_from_proto.h"

namespace autosp {

// Thread-safe. A caller waits until its job is compiled, which kMaxCompiles are at a time.
class JobIntake {
 public:
  // `cluster` is that of the cluster file. Without one a job is planned for the nodes that have
  // registered, and for this machine as long as none has. `metrics` has those of server/metrics.h
  // and outlives the intake.
  JobIntake(JobCompiler compile, std::optional<ClusterSpec> cluster, CoordinatorDriver& driver,
            const JobStore& store, MetricRegistry& metrics);

  struct Accepted {
    JobId job;
    bool was_duplicate = false;
  };
  // Ok only once the job is durable. A request that was accepted before is not compiled again.
  // Cancelled, and no job, where `has_left` says that the caller no longer waits for an answer.
  absl::StatusOr<Accepted> Submit(const Submission& submission,
                                  const std::function<bool()>& has_left);

  // Who waits, for a turn or for a plan, is refused from here on.
  void Stop();

 private:
  absl::StatusOr<CompiledJob> Compile(const JobToCompile& job,
                                      const std::function<bool()>& has_left);
  absl::Status AwaitTurn(const std::string& job, const std::function<bool()>& has_left);
  // Under the lock, whenever a count has changed.
  void RecordCounts();
  bool is_stopped();
  ClusterSpec CurrentCluster() const;

  const JobCompiler compile_;
  const std::optional<ClusterSpec> cluster_;
  CoordinatorDriver& driver_;
  const JobStore& store_;
  MetricRegistry& metrics_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  int num_compiles_ = 0;
  int num_waiters_ = 0;
  bool is_stopped_ = false;
};

}  // namespace autosp
