// From a submission to a job: parse, plan, store, queue.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/planner/plan.h"
#include "server/service/driver.h"
#include "server/service/request_from_proto.h"

namespace autosp {

using CompileFn =
    std::function<absl::StatusOr<CompiledPlan>(const JobSpec& job, const ClusterSpec& cluster)>;

// Thread-safe. Compiles on the caller's thread, kMaxCompiles at a time.
class JobIntake {
 public:
  // `cluster` is that of the cluster file. Without one a job is planned for the nodes that have
  // registered, and for this machine as long as none has.
  JobIntake(CompileFn compile, std::optional<ClusterSpec> cluster, CoordinatorDriver& driver,
            const JobStore& store);

  struct Accepted {
    JobId job;
    bool was_duplicate = false;
  };
  // Ok only once the job is durable. A request that was accepted before is not compiled again.
  absl::StatusOr<Accepted> Submit(const Submission& submission);

 private:
  absl::StatusOr<CompiledPlan> Compile(const JobSpec& spec, const ClusterSpec& cluster);
  ClusterSpec CurrentCluster() const;

  const CompileFn compile_;
  const std::optional<ClusterSpec> cluster_;
  CoordinatorDriver& driver_;
  const JobStore& store_;

  std::mutex mutex_;
  std::condition_variable changed_;
  int num_compiles_ = 0;  // Guarded by mutex_.
};

}  // namespace autosp
