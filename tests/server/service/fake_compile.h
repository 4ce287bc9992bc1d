// A planner that takes any job and gives it the ranks that it asks for. Files are not looked at.
#pragma once

#include <chrono>
#include <thread>

#include "absl/status/statusor.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/planner/plan.h"
#include "server/service/job_compiler.h"

namespace autosp {

// The plan of a job of this name is not proved.
inline constexpr char kUnprovedJob[] = "not-proved";

// Jobs of this name take so long to be planned.
inline constexpr char kSlowJob[] = "slow-to-plan";
inline constexpr std::chrono::seconds kSlowPlan(30);

inline absl::StatusOr<CompiledPlan> FakeCompile(const JobSpec& job, const ClusterSpec&) {
  if (job.name == "cannot-be-planned") return InvalidArgument("model.archive: it is too odd");
  if (job.name == kSlowJob) std::this_thread::sleep_for(kSlowPlan);
  CompiledPlan plan;
  plan.program_text = "program of " + job.name + "\n";
  plan.digest = Sha256Hex(plan.program_text);
  plan.summary.model_name = job.name;
  plan.summary.num_checked_values = job.name == kUnprovedJob ? 0 : 1;
  plan.summary.world_size = job.parallelism.ranks.value_or(1);
  plan.summary.ulysses_size = plan.summary.world_size;
  plan.summary.seq_len = job.training.seq_len;
  plan.summary.tokens_per_step = job.training.seq_len * job.training.global_batch_size;
  plan.summary.predicted_peak_bytes = {{"device", 1 << 20}};
  return plan;
}

// What a verification would run, of a job that is no real one.
inline absl::StatusOr<Verification> FakeVerification(const JobSpec& job, const ClusterSpec&,
                                                     const PlanSummary&) {
  if (job.name == "cannot-be-verified") return InvalidArgument("batch size: it is too odd");
  Verification verification;
  verification.job = job;
  verification.plan = "small program of " + job.name + "\n";
  verification.one_device = "program of one device\n";
  verification.needed_bytes = 1 << 20;
  return verification;
}

inline Compiler FakeCompiler() { return {FakeCompile, FakeVerification}; }

}  // namespace autosp
