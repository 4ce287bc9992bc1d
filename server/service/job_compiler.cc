#include "server/service/job_compiler.h"

#include <utility>

#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "server/service/job_to_proto.h"
#include "server/service/prepare_to_proto.h"

namespace autosp {
namespace {

// A plan of which nothing is proved is run before anybody trusts it.
bool IsVerified(VerifyMode mode, const PlanSummary& plan) {
  const bool is_proved = plan.num_checked_values > 0;
  return mode != VerifyMode::kNever && (mode != VerifyMode::kUnproved || !is_proved);
}

}  // namespace

absl::StatusOr<CompiledJob> CompileHere(const Compiler& compiler, const JobToCompile& job) {
  ASSIGN_OR_RETURN(const JobSpec spec, ParseJobYaml(job.job_yaml, "job file"));
  ASSIGN_OR_RETURN(CompiledPlan plan, compiler.compile(spec, job.cluster));
  CompiledJob compiled{.program_text = std::move(plan.program_text),
                       .plan_digest = plan.digest,
                       .summary = PlanSummaryToProto(plan.summary),
                       .plan_text = plan.summary.ToText(),
                       .verification = {}};
  if (!IsVerified(spec.verify, plan.summary)) return compiled;
  ASSIGN_OR_RETURN(const Verification verification,
                   compiler.make_verification(spec, job.cluster, plan.summary), "verify");
  compiled.verification = {.attempt = VerificationOrderToProto(verification).SerializeAsString(),
                           .digest = DigestOf(verification)};
  return compiled;
}

JobCompiler InThisProcess(Compiler compiler) {
  return [compiler = std::move(compiler)](const JobToCompile& job, const std::function<bool()>&) {
    return CompileHere(compiler, job);
  };
}

}  // namespace autosp
