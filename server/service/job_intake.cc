#include "server/service/job_intake.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/secret.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "proto/shutting_down.h"
#include "server/metrics.h"
#include "server/service/compile_process.h"
#include "server/service/limits.h"

namespace autosp {
namespace {

// Between two looks at whether who waits for a turn still does.
constexpr absl::Duration kWaiterPoll = absl::Milliseconds(100);

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
                                        const CompiledJob& compiled, const ClusterSpec& cluster) {
  const v1::PlanSummary& plan = compiled.summary;
  auto request = std::make_shared<JobRequest>();
  request->request_id = submission.request_id;
  request->request_digest = submission.digest;
  request->name = spec.name;
  request->world_size = plan.world_size();
  request->device_kind = KindOfDevices(cluster);
  request->num_steps = spec.training.steps;
  request->tokens_per_step = plan.tokens_per_step();
  request->model_flops = plan.model_flops();
  request->peak_flops_per_second = plan.peak_flops_per_second();
  request->plan_digest = compiled.plan_digest;
  request->output_directory = spec.output.dir;
  request->secret = RandomSecret();
  request->max_restarts = spec.training.max_restarts;
  if (compiled.verification) {
    request->verification_digest = compiled.verification->digest;
    request->verify_always = spec.verify == VerifyMode::kAlways;
  }
  return request;
}

// The values of kCompileDuration's label.
constexpr char kPlanned[] = "planned";
constexpr char kRefused[] = "refused";
constexpr char kCompilerFailed[] = "failed";
constexpr char kUnwanted[] = "unwanted";

const char* OutcomeOf(const absl::Status& status) {
  if (status.ok()) return kPlanned;
  if (absl::IsCancelled(status)) return kUnwanted;
  return IsCompilerFailure(status) ? kCompilerFailed : kRefused;
}

absl::Status CallerHasLeft(const std::string& job) {
  return Cancelled("job ", job, " was not submitted: its caller did not wait for the answer");
}

}  // namespace

JobIntake::JobIntake(JobCompiler compile, std::optional<ClusterSpec> cluster,
                     CoordinatorDriver& driver, const JobStore& store, MetricRegistry& metrics)
    : compile_(std::move(compile)),
      cluster_(std::move(cluster)),
      driver_(driver),
      store_(store),
      metrics_(metrics) {
  // What an alert watches exists from the start.
  for (const char* outcome : {kPlanned, kRefused, kCompilerFailed, kUnwanted}) {
    metrics_.Declare(kCompileDuration, {outcome});
  }
  RecordCounts();
}

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
  const absl::StatusOr<CompiledJob> compiled =
      Compile({.name = spec->name, .job_yaml = submission.job_yaml, .cluster = cluster}, has_left);
  if (!compiled.ok()) return AsJobError(compiled.status(), "JOB_NOT_PLANNED");
  const v1::PlanSummary& plan = compiled->summary;

  JobInputs inputs{.job_yaml = submission.job_yaml,
                   .files = submission.files,
                   .plan_summary = plan.SerializeAsString(),
                   .plan_text = compiled->plan_text,
                   .program_text = compiled->program_text,
                   .device_budget_bytes = DeviceBudget(*spec, cluster)};
  if (compiled->verification) inputs.verification = compiled->verification->attempt;
  const std::shared_ptr<JobRequest> request = MakeRequest(submission, *spec, *compiled, cluster);
  const Decision decision =
      driver_.Handle(JobSubmitted{.job = JobId(RandomId("job")), .request = request}, &inputs);
  RETURN_IF_ERROR(decision.status);
  if (!decision.was_duplicate) {
    driver_.RecordPrediction(
        decision.job, {plan.predicted_peak_bytes().begin(), plan.predicted_peak_bytes().end()});
  }
  return Accepted{.job = decision.job, .was_duplicate = decision.was_duplicate};
}

void JobIntake::RecordCounts() {
  metrics_.Set(kCompiles, {"running"}, num_compiles_);
  metrics_.Set(kCompiles, {"waiting"}, num_waiters_);
}

void JobIntake::Stop() {
  const std::lock_guard lock(mutex_);
  is_stopped_ = true;
  changed_.notify_all();
}

bool JobIntake::is_stopped() {
  const std::lock_guard lock(mutex_);
  return is_stopped_;
}

absl::Status JobIntake::AwaitTurn(const std::string& job, const std::function<bool()>& has_left) {
  std::unique_lock lock(mutex_);
  const auto has_turn = [this] { return is_stopped_ || num_compiles_ < kMaxCompiles; };
  if (!has_turn() && num_waiters_ < kMaxCompileWaiters) {
    ++num_waiters_;
    RecordCounts();
    // In slices: who has left makes no notice, and must not keep others out.
    const absl::Duration give_up = Clock::Real().Steady() + kMaxCompileWait;
    while (!has_turn() && !has_left() && Clock::Real().Steady() < give_up) {
      changed_.wait_for(lock, absl::ToChronoMilliseconds(kWaiterPoll), has_turn);
    }
    --num_waiters_;
    RecordCounts();
  }
  if (is_stopped_) return ShuttingDown();
  if (has_left()) return CallerHasLeft(job);
  if (!has_turn()) {
    return WithErrorInfo(
        Unavailable("the coordinator is still compiling other jobs; submit again later"),
        {.reason = "COMPILER_BUSY", .subject = job, .remedy = "submit again later"});
  }
  ++num_compiles_;
  RecordCounts();
  return absl::OkStatus();
}

absl::StatusOr<CompiledJob> JobIntake::Compile(const JobToCompile& job,
                                               const std::function<bool()>& has_left) {
  RETURN_IF_ERROR(AwaitTurn(job.name, has_left));
  const absl::Cleanup give_back = [this] {
    const std::lock_guard lock(mutex_);
    --num_compiles_;
    RecordCounts();
    changed_.notify_all();
  };
  const absl::Duration begin = Clock::Real().Steady();
  absl::StatusOr<CompiledJob> compiled = compile_(job, [&] { return has_left() || is_stopped(); });
  metrics_.Observe(kCompileDuration, {OutcomeOf(compiled.status())},
                   absl::ToDoubleSeconds(Clock::Real().Steady() - begin));
  // A job of which nobody has the id would run all the same.
  if (has_left()) return CallerHasLeft(job.name);
  if (absl::IsCancelled(compiled.status()) && is_stopped()) return ShuttingDown();
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
