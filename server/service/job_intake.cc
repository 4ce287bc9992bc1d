#include "server/service/job_intake.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/secret.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "server/service/job_to_proto.h"
#include "server/service/limits.h"
#include "server/service/prepare_to_proto.h"

namespace autosp {
namespace {

// A plan of which nothing is proved is run before anybody trusts it.
bool IsVerified(VerifyMode mode, const PlanSummary& plan) {
  const bool is_proved = plan.num_checked_values > 0;
  return mode != VerifyMode::kNever && (mode != VerifyMode::kUnproved || !is_proved);
}

// Where the error has no reason of its own, it is one of the job.
absl::Status AsJobError(const absl::Status& status, const char* reason) {
  if (status.ok() || !GetErrorInfo(status).reason.empty()) return status;
  // A plan that is too large for the devices, or a damaged archive: to a client these codes would
  // speak of the server's own memory and data.
  if (absl::IsResourceExhausted(status) || absl::IsDataLoss(status)) {
    return WithErrorInfo(FailedPrecondition(status.message()), {.reason = reason});
  }
  return WithErrorInfo(status, {.reason = reason});
}

std::string KindOfDevices(const ClusterSpec& cluster) {
  const bool is_cpu = cluster.nodes.empty() || cluster.nodes[0].kind == DeviceKind::kCpu;
  return is_cpu ? "cpu" : "cuda";
}

// What a rank may allocate: what the job says, else the memory of the smallest device.
int64_t DeviceBudget(const JobSpec& spec, const ClusterSpec& cluster) {
  if (spec.memory.device_budget_bytes) return *spec.memory.device_budget_bytes;
  int64_t smallest = 0;
  for (const NodeSpec& node : cluster.nodes) {
    if (smallest == 0 || node.device_memory_bytes < smallest) smallest = node.device_memory_bytes;
  }
  return smallest;
}

std::shared_ptr<JobRequest> MakeRequest(const Submission& submission, const JobSpec& spec,
                                        const CompiledPlan& plan, const ClusterSpec& cluster) {
  auto request = std::make_shared<JobRequest>();
  request->request_id = submission.request_id;
  request->request_digest = submission.digest;
  request->name = spec.name;
  request->world_size = plan.summary.world_size;
  request->device_kind = KindOfDevices(cluster);
  request->num_steps = spec.training.steps;
  request->tokens_per_step = plan.summary.tokens_per_step;
  request->model_flops = plan.summary.model_flops;
  request->peak_flops_per_second = plan.summary.peak_flops_per_second;
  request->plan_digest = plan.digest;
  request->output_directory = spec.output.dir;
  request->secret = RandomSecret();
  request->max_restarts = spec.training.max_restarts;
  return request;
}

absl::Status CallerHasLeft(const std::string& job) {
  return Cancelled("job ", job, " was not submitted: its caller did not wait for the answer");
}

}  // namespace

JobIntake::JobIntake(Compiler compiler, std::optional<ClusterSpec> cluster,
                     CoordinatorDriver& driver, const JobStore& store)
    : compiler_(std::move(compiler)),
      cluster_(std::move(cluster)),
      driver_(driver),
      store_(store) {}

absl::StatusOr<JobIntake::Accepted> JobIntake::Submit(const Submission& submission,
                                                      const std::function<bool()>& has_left) {
  if (const std::optional<SubmittedJob> known = store_.FindByRequest(submission.request_id)) {
    RETURN_IF_ERROR(CheckSameRequest(submission.request_id, submission.digest, *known));
    return Accepted{.job = known->job, .was_duplicate = true};
  }
  absl::StatusOr<JobSpec> spec = ParseJobYaml(submission.job_yaml, "job file");
  if (!spec.ok()) return AsJobError(spec.status(), "JOB_FILE_INVALID");
  // Looked at again once it is compiled; here it saves the time that this takes.
  RETURN_IF_ERROR(driver_.CheckRoom(spec->name));
  const ClusterSpec cluster = CurrentCluster();
  const absl::StatusOr<Compiled> compiled = Compile(*spec, cluster, has_left);
  if (!compiled.ok()) return AsJobError(compiled.status(), "JOB_NOT_PLANNED");
  const CompiledPlan& plan = compiled->plan;

  JobInputs inputs{.job_yaml = submission.job_yaml,
                   .files = submission.files,
                   .plan_summary = PlanSummaryToProto(plan.summary).SerializeAsString(),
                   .plan_text = plan.summary.ToText(),
                   .program_text = plan.program_text,
                   .device_budget_bytes = DeviceBudget(*spec, cluster)};
  const std::shared_ptr<JobRequest> request = MakeRequest(submission, *spec, plan, cluster);
  if (compiled->verification) {
    request->verification_digest = DigestOf(*compiled->verification);
    request->verify_always = spec->verify == VerifyMode::kAlways;
    inputs.verification = VerificationOrderToProto(*compiled->verification).SerializeAsString();
  }
  const Decision decision =
      driver_.Handle(JobSubmitted{.job = JobId(RandomId("job")), .request = request}, &inputs);
  RETURN_IF_ERROR(decision.status);
  if (!decision.was_duplicate) {
    driver_.RecordPrediction(decision.job, plan.summary.predicted_peak_bytes);
  }
  return Accepted{.job = decision.job, .was_duplicate = decision.was_duplicate};
}

void JobIntake::Stop() {
  const std::lock_guard lock(mutex_);
  is_stopped_ = true;
  changed_.notify_all();
}

absl::Status JobIntake::AwaitTurn(const JobSpec& spec, const std::function<bool()>& has_left) {
  std::unique_lock lock(mutex_);
  const auto has_turn = [this] { return is_stopped_ || num_compiles_ < kMaxCompiles; };
  if (!has_turn() && num_waiters_ < kMaxCompileWaiters) {
    ++num_waiters_;
    changed_.wait_for(lock, absl::ToChronoMilliseconds(kMaxCompileWait), has_turn);
    --num_waiters_;
  }
  if (is_stopped_) return Unavailable("the coordinator is shutting down");
  if (!has_turn()) {
    return WithErrorInfo(
        Unavailable("the coordinator is still compiling other jobs; submit again later"),
        {.reason = "COMPILER_BUSY", .subject = spec.name, .remedy = "submit again later"});
  }
  if (has_left()) return CallerHasLeft(spec.name);
  ++num_compiles_;
  return absl::OkStatus();
}

absl::StatusOr<JobIntake::Compiled> JobIntake::Compile(const JobSpec& spec,
                                                       const ClusterSpec& cluster,
                                                       const std::function<bool()>& has_left) {
  RETURN_IF_ERROR(AwaitTurn(spec, has_left));
  const absl::Cleanup give_back = [this] {
    const std::lock_guard lock(mutex_);
    --num_compiles_;
    changed_.notify_all();
  };
  Compiled compiled;
  ASSIGN_OR_RETURN(compiled.plan, compiler_.compile(spec, cluster));
  if (IsVerified(spec.verify, compiled.plan.summary)) {
    ASSIGN_OR_RETURN(compiled.verification,
                     compiler_.make_verification(spec, cluster, compiled.plan.summary), "verify");
  }
  // A job of which nobody has the id would run all the same.
  if (has_left()) return CallerHasLeft(spec.name);
  return compiled;
}

ClusterSpec JobIntake::CurrentCluster() const {
  if (cluster_) return *cluster_;
  ClusterSpec cluster;
  for (const NodeView& node : driver_.Nodes()) {
    // Which GPU it is, agents do not say; nodes with GPUs have to be named in a cluster file.
    const bool is_here =
        node.state == NodeView::State::kReady || node.state == NodeView::State::kSuspect;
    if (!is_here || node.device_kind != "cpu") continue;
    cluster.nodes.push_back({.name = node.node.value(),
                             .address = node.agent_address,
                             .devices = node.num_devices,
                             .device_memory_bytes = node.device_memory_bytes,
                             .kind = DeviceKind::kCpu});
  }
  return cluster.nodes.empty() ? LocalCluster() : cluster;
}

}  // namespace autosp
