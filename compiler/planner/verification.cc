#include "compiler/planner/verification.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "compiler/analysis/simulate.h"
#include "compiler/config/job_yaml.h"
#include "compiler/import/link_models.h"
#include "compiler/lowering/select_kernels.h"
#include "compiler/planner/check_names.h"
#include "compiler/planner/compile_job.h"
#include "compiler/planner/estimate_mesh.h"
#include "compiler/planner/exported_graph.h"
#include "compiler/planner/short_sizes.h"
#include "compiler/program/program.h"

namespace autosp {
namespace {

// The second micro-step adds to the first; more of them add in the same way.
constexpr int64_t kMaxMicroSteps = 2;
constexpr double kUnreachableNorm = 1e30;

// Virtual ranks are threads: a job may be verified where it does not run.
ClusterSpec WithRanks(ClusterSpec cluster, const ParallelismSpec& wanted) {
  const int64_t product =
      wanted.dp.value_or(1) * wanted.ulysses.value_or(1) * wanted.ring.value_or(1);
  const int64_t missing = wanted.ranks.value_or(product) - cluster.num_devices();
  if (missing > 0) cluster.nodes.back().devices += missing;
  return cluster;
}

Mesh MeshOf(const PlanSummary& plan) {
  return {.accum = plan.grad_accum_steps,
          .dp = plan.dp_size,
          .ring = plan.ring_size,
          .ulysses = plan.ulysses_size};
}

MemoryChoice MemoryOf(const PlanSummary& plan) {
  MemoryChoice choice;
  for (Recompute each : {Recompute::kSelective, Recompute::kFull}) {
    if (plan.recompute == ToString(each)) choice.recompute = each;
  }
  for (Tiling each : {Tiling::kLoss, Tiling::kAll}) {
    if (plan.tiling == ToString(each)) choice.tiling = each;
  }
  for (Offload each : {Offload::kActivations, Offload::kEveryLayer}) {
    if (plan.offload == ToString(each)) choice.offload = each;
  }
  if (plan.ring_exchange == ToString(RingExchange::kAllGather)) {
    choice.ring_exchange = RingExchange::kAllGather;
  }
  choice.zero_stage = plan.zero_stage;
  return choice;
}

// As few micro-steps as show what more of them do; those of the job where its batch is given, which
// fewer may not divide.
int64_t FewMicroSteps(const Mesh& mesh, const VerificationRequest& request) {
  const int64_t few = std::min(mesh.accum, kMaxMicroSteps);
  const int64_t batch_size = request.batch_size.value_or(mesh.dp * few);
  const bool divide_all = batch_size % (mesh.dp * mesh.accum) == 0;
  return batch_size % (mesh.dp * few) != 0 && divide_all ? mesh.accum : few;
}

// The micro-steps follow from the job's batch where it says how large they are.
Mesh WithMicroSteps(Mesh mesh, const TrainingSpec& training) {
  mesh.accum = 1;
  if (!training.micro_batch_size) return mesh;
  const int64_t per_rank = training.global_batch_size / mesh.dp;
  mesh.accum = std::max<int64_t>(1, per_rank / *training.micro_batch_size);
  return mesh;
}

// `job_accum`: the micro-steps of the job, of which a verification may run fewer.
absl::Status CheckBatch(int64_t batch_size, const Mesh& mesh, int64_t job_accum) {
  const int64_t places = mesh.dp * mesh.accum;
  if (batch_size % places == 0) return absl::OkStatus();
  std::string others;
  if (job_accum != mesh.accum) {
    others =
        absl::StrCat(", as many as verify takes of the ", job_accum,
                     " of the job; give a multiple of ", places, " or of ", mesh.dp * job_accum);
  } else {
    others = absl::StrCat("; give a multiple of ", places);
  }
  return InvalidArgument("batch size: ", batch_size, " is no multiple of dp ", mesh.dp, " x ",
                         mesh.accum, " micro-steps", others);
}

absl::StatusOr<JobSpec> SmallJob(const JobSpec& job, const Mesh& mesh, const MemoryChoice& memory,
                                 const ShortSizes& sizes) {
  JobSpec small = job;
  TrainingSpec& training = small.training;
  training.seq_len = sizes.seq_len;
  training.global_batch_size = sizes.batch_size;
  training.micro_batch_size = training.global_batch_size / (mesh.dp * mesh.accum);
  training.steps = 1;
  training.schedule = {};
  if (training.clip_grad_norm > 0) training.clip_grad_norm = kUnreachableNorm;
  small.data.validation = {};
  small.parallelism = {.ranks = mesh.world_size(),
                       .dp = mesh.dp,
                       .ulysses = mesh.ulysses,
                       .ring = mesh.ring,
                       .ring_exchange = mesh.ring > 1 ? memory.ring_exchange : RingExchange::kAuto,
                       .zero = memory.zero_stage};
  small.memory = {.device_budget_bytes = {},
                  .recompute = memory.recompute,
                  .tiling = memory.tiling,
                  .offload = memory.offload};
  RETURN_IF_ERROR(CheckJobSpec(small));
  return small;
}

bool IsHalfTensor(const ProgramValue& value) { return !value.is_tape && IsHalf(value.dtype); }

// Of all ranks together.
absl::StatusOr<int64_t> PredictBytes(const Program& program) {
  ASSIGN_OR_RETURN(const SectionPrediction prediction, SimulateSection(program, "step"));
  int64_t bytes = 0;
  for (const Account account : {Account::kDevice, Account::kPinnedHost}) {
    const auto found = prediction.memory.find(account);
    if (found != prediction.memory.end()) bytes += found->second.peak_bytes;
  }
  return bytes * program.mesh.world_size();
}

// In fp32, as they are kept to be compared.
int64_t GradientBytes(const ImportedModel& model) {
  int64_t numel = 0;
  for (const GraphInput& input : model.graph.inputs) {
    if (input.kind == InputKind::kParameter) numel += model.graph.type(input.value).numel();
  }
  return numel * SizeOf(DType::kF32);
}

absl::StatusOr<std::string> DescribeProof(const std::string& plan, const Program& one_device) {
  const absl::StatusOr<Proof> proof = ProvePlan(plan, one_device);
  if (absl::IsUnimplemented(proof.status())) return std::string(proof.status().message());
  RETURN_IF_ERROR(proof.status());
  return absl::StrCat(proof->num_values, " values are where they should be, and ",
                      proof->num_results,
                      " outputs, parameters and states are shown to equal those of one device");
}

// A program of the compiler is the second choice: what a pass misreads is in it as well.
absl::Status ChooseOracle(const ImportedModel& model, const Program& one_device,
                          int64_t memory_bytes, Verification* result) {
  ASSIGN_OR_RETURN(const ExportedGraph exported, MakeExportedGraph(model, result->job));
  const TrainingSpec& training = result->job.training;
  std::string reason = WhyNotComparable(exported.graph, one_device);
  if (reason.empty() && exported.needed_bytes > memory_bytes) {
    reason = absl::StrCat("the model as exported needs ", FormatBytes(exported.needed_bytes),
                          " here, more than the ", FormatBytes(memory_bytes), " of this machine");
  }
  if (!reason.empty()) {
    result->oracle = absl::StrCat("the compiler's own one-device program, because ", reason);
    return absl::OkStatus();
  }
  result->exported = PrintGraph(exported.graph);
  result->needed_bytes = std::max(result->needed_bytes, exported.needed_bytes);
  result->oracle = absl::StrCat("the model as exported, op by op with PyTorch's autograd");
  if (exported.is_resized) {
    absl::StrAppend(&result->oracle, "; resized to ", training.global_batch_size, " x ",
                    training.seq_len, " by the pass that plans use too");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Verification> MakeVerification(const ImportedModel& model, const JobSpec& job,
                                              const ClusterSpec& cluster,
                                              const VerificationRequest& request) {
  RETURN_IF_ERROR(CheckNames(model.graph, job));
  Verification result;
  MemoryChoice memory = request.memory.value_or(ChoiceOf(job));
  if (request.mesh) {
    result.mesh =
        request.mesh->accum > 1 ? *request.mesh : WithMicroSteps(*request.mesh, job.training);
  } else {
    ASSIGN_OR_RETURN(const CompiledPlan plan,
                     CompileModel(model, job, WithRanks(cluster, job.parallelism)));
    result.mesh = MeshOf(plan.summary);
    memory = MemoryOf(plan.summary);
  }
  const int64_t job_accum = result.mesh.accum;
  result.mesh.accum = FewMicroSteps(result.mesh, request);
  ASSIGN_OR_RETURN(const PreparedJob full, PrepareJob(model, job));
  if (memory.ring_exchange == RingExchange::kAuto) {
    memory.ring_exchange = EstimateMesh(full.graph, job, cluster, result.mesh).ring_exchange;
  }
  const ShortSizes sizes =
      ChooseShortSizes(model, full, job.training, result.mesh, request.batch_size, request.seq_len);
  RETURN_IF_ERROR(CheckBatch(sizes.batch_size, result.mesh, job_accum));
  ASSIGN_OR_RETURN(result.job, SmallJob(job, result.mesh, memory, sizes));

  ASSIGN_OR_RETURN(const PreparedJob prepared, PrepareJob(model, result.job));
  result.warnings = prepared.warnings;
  ASSIGN_OR_RETURN(LoweredProgram plan, LowerForMesh(prepared, result.mesh, memory));
  if (cluster.has_gpus()) SelectCudaKernels(plan.program, cluster.kind());
  ASSIGN_OR_RETURN(const LoweredProgram one, LowerForMesh(prepared, Mesh{}));
  result.plan = PrintProgram(plan.program);
  result.one_device = PrintProgram(one.program);
  ASSIGN_OR_RETURN(result.proof, DescribeProof(result.plan, one.program));
  ASSIGN_OR_RETURN(result.needed_bytes, PredictBytes(plan.program));
  ASSIGN_OR_RETURN(int64_t one_bytes, PredictBytes(one.program));
  if (std::ranges::any_of(plan.program.values, IsHalfTensor)) {
    JobSpec in_fp32 = result.job;
    in_fp32.precision.params = ParamPrecision::kFp32;
    ASSIGN_OR_RETURN(const LoweredProgram exact, CompileForMesh(model, in_fp32, Mesh{}, nullptr));
    result.exact = PrintProgram(exact.program);
    ASSIGN_OR_RETURN(const int64_t exact_bytes, PredictBytes(exact.program));
    one_bytes = std::max(one_bytes, exact_bytes);
  }
  result.needed_bytes = std::max(result.needed_bytes, one_bytes);
  RETURN_IF_ERROR(ChooseOracle(model, one.program, request.memory_bytes, &result));
  // They run one after the other; the gradients of each stay.
  result.needed_bytes += 4 * GradientBytes(model);
  return result;
}

absl::StatusOr<Verification> VerifyPlanned(const JobSpec& job, const ClusterSpec& cluster,
                                           const PlanSummary& plan) {
  ASSIGN_OR_RETURN(const ImportedModel model, ImportModel(job.model.archives, job.model.tied));
  return MakeVerification(
      model, job, cluster,
      {.seq_len = {}, .batch_size = {}, .mesh = MeshOf(plan), .memory = MemoryOf(plan)});
}

std::string DigestOf(const Verification& verification) {
  Sha256 digest;
  for (const absl::string_view part :
       {absl::string_view(kVersion), absl::string_view(verification.plan),
        absl::string_view(verification.one_device), absl::string_view(verification.exact),
        absl::string_view(verification.exported)}) {
    // With its length, so that no text can be taken for the end of another and its beginning.
    digest.Update(absl::StrCat(part.size(), "\n"));
    digest.Update(part);
  }
  return digest.Finish();
}

}  // namespace autosp
