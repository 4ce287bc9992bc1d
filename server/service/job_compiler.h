// From the text of a job file to what is stored of its plan.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "autosp/v1/job.pb.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/planner/plan.h"
#include "compiler/planner/verification.h"

namespace autosp {

// What a job is compiled with: CompileJob and VerifyPlanned, or those of a test.
struct Compiler {
  std::function<absl::StatusOr<CompiledPlan>(const JobSpec& job, const ClusterSpec& cluster)>
      compile;
  // For a job that is verified.
  std::function<absl::StatusOr<Verification>(const JobSpec& job, const ClusterSpec& cluster,
                                             const PlanSummary& plan)>
      make_verification;
};

struct JobToCompile {
  std::string name;      // for messages
  std::string job_yaml;  // has been parsed before: it is right
  ClusterSpec cluster;
};

struct VerificationOrder {
  std::string attempt;  // a serialized v1::AttemptSpec
  std::string digest;
};

struct CompiledJob {
  std::string program_text;
  std::string plan_digest;
  v1::PlanSummary summary;
  std::string plan_text;                          // for people
  std::optional<VerificationOrder> verification;  // of a job that is verified before it trains
};

// CANCELLED soon after `is_unwanted` says that nobody needs the plan any more, where it can be
// ended. Thread-safe.
using JobCompiler = std::function<absl::StatusOr<CompiledJob>(
    const JobToCompile& job, const std::function<bool()>& is_unwanted)>;

// On the caller's thread, to the end.
absl::StatusOr<CompiledJob> CompileHere(const Compiler& compiler, const JobToCompile& job);

// For tests: a compiler that crashes takes the coordinator along. The coordinator's own is in
// compile_process.h.
JobCompiler InThisProcess(Compiler compiler);

}  // namespace autosp
