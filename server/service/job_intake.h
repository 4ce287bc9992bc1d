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
#include "compiler/planner/verification.h"
#include "server/service/driver.h"
#include "server/service/request_from_proto.h"

namespace autosp {

// What a job is compiled with: CompileJob and VerifyPlanned, or those of a test.
struct Compiler {
  std::function<absl::StatusOr<CompiledPlan>(const JobSpec& job, const ClusterSpec& cluster)>
      compile;
  // For a job that asks to be verified.
  std::function<absl::StatusOr<Verification>(const JobSpec& job, const ClusterSpec& cluster,
                                             const PlanSummary& plan)>
      make_verification;
};

// Thread-safe. Compiles on the caller's thread, kMaxCompiles at a time.
class JobIntake {
 public:
  // `cluster` is that of the cluster file. Without one a job is planned for the nodes that have
  // registered, and for this machine as long as none has.
  JobIntake(Compiler compiler, std::optional<ClusterSpec> cluster, CoordinatorDriver& driver,
            const JobStore& store);

  struct Accepted {
    JobId job;
    bool was_duplicate = false;
  };
  // Ok only once the job is durable. A request that was accepted before is not compiled again.
  // Cancelled, and no job, where `has_left` says that the caller no longer waits for an answer.
  absl::StatusOr<Accepted> Submit(const Submission& submission,
                                  const std::function<bool()>& has_left);

  // Who still waits for a turn is refused from here on. What is being compiled is not ended.
  void Stop();

 private:
  struct Compiled {
    CompiledPlan plan;
    std::optional<Verification> verification;
  };
  absl::StatusOr<Compiled> Compile(const JobSpec& spec, const ClusterSpec& cluster,
                                   const std::function<bool()>& has_left);
  absl::Status AwaitTurn(const JobSpec& spec, const std::function<bool()>& has_left);
  ClusterSpec CurrentCluster() const;

  const Compiler compiler_;
  const std::optional<ClusterSpec> cluster_;
  CoordinatorDriver& driver_;
  const JobStore& store_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  int num_compiles_ = 0;
  int num_waiters_ = 0;
  bool is_stopped_ = false;
};

}  // namespace autosp
