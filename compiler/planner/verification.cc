#include "compiler/planner/verification.h"

#include <algorithm>
#include <numeric>
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
#include "compiler/ir/linear_size.h"
#include "compiler/lowering/select_kernels.h"
#include "compiler/planner/check_names.h"
#include "compiler/planner/compile_job.h"
#include "compiler/planner/estimate_mesh.h"
#include "compiler/planner/exported_graph.h"
#include "compiler/program/program.h"
#include "compiler/rules/token_window.h"

namespace autosp {
namespace {

// Enough that a block has a middle and two ends.
constexpr int64_t kTokensPerBlock = 16;
// The second micro-step adds to the first; more of them add in the same way.
constexpr int64_t kMaxMicroSteps = 2;
// One sequence would hide a batch that is mixed up.
constexpr int64_t kMaxMicroBatch = 2;
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

// The micro-steps follow from the job's batch where it says how large they are.
Mesh WithMicroSteps(Mesh mesh, const TrainingSpec& training) {
  mesh.accum = 1;
  if (!training.micro_batch_size) return mesh;
  const int64_t per_rank = training.global_batch_size / mesh.dp;
  mesh.accum = std::max<int64_t>(1, per_rank / *training.micro_batch_size);
  return mesh;
}

// The longest look of a token at its neighbours: blocks are as long, so that ranks exchange borders
// as they do at the job's length.
int64_t LongestWindow(const Graph& graph) {
  int64_t longest = 0;
  for (const Node& node : graph.nodes) {
    const std::optional<TokenWindow> window = TokenWindowOf(graph, node);
    if (window) longest = std::max({longest, window->before, window->after});
  }
  return longest;
}

// What the model allows of lengths.
struct LengthRule {
  int64_t least = 0;
  int64_t block = 1;  // lengths differ by multiples of it
};

LengthRule LengthRuleOf(const ImportedModel& model, const PreparedJob& full) {
  LengthRule rule;
  if (full.factors.seq >= 0) {
    const FactorDim parts = full.factors.table.Resolve(FactorDim{full.factors.seq});
    for (size_t i = 1; i < parts.size(); ++i) rule.block *= full.factors.table.Size(parts[i]);
  }
  for (const GraphInput& input : model.graph.inputs) {
    const auto dims = full.context.roles.find(input.name);
    if (dims == full.context.roles.end()) continue;
    const TensorType& type = model.graph.type(input.value);
    for (size_t i = 0; i < type.sizes.size() && i < dims->second.size(); ++i) {
      if (dims->second[i] != DimRole::kSequence) continue;
      const auto linear = AsLinearSize(type.sizes[i].expr, model.graph.symbols);
      if (!linear) continue;
      rule.block = std::lcm(rule.block, linear->factor);
      const auto range = model.symbol_ranges.find(linear->symbol);
      if (range == model.symbol_ranges.end()) continue;
      rule.least = std::max(rule.least, linear->Range(range->second).min);
    }
  }
  return rule;
}

// A job whose length its ranks do not divide gets one that they do not divide either, so that its
// padding is there. A model that cuts its tokens into blocks gets whole ones.
int64_t ShortLength(int64_t seq_len, const Mesh& mesh, int64_t window, const LengthRule& rule) {
  const int64_t blocks = 2 * mesh.sp();
  const int64_t step = std::lcm(blocks, rule.block);
  const auto round_up = [step](int64_t length) { return (length + step - 1) / step * step; };
  int64_t length = round_up(std::max(kTokensPerBlock, window) * blocks) + seq_len % step;
  if (length < rule.least) length += round_up(rule.least - length);
  return std::min(seq_len, length);
}

int64_t SmallBatch(const TrainingSpec& training, const Mesh& mesh) {
  const int64_t places = mesh.dp * mesh.accum;
  const int64_t micro_batch =
      training.micro_batch_size.value_or(training.global_batch_size / places);
  return places * std::clamp<int64_t>(micro_batch, 1, kMaxMicroBatch);
}

// `short_len`: unless another is asked for.
absl::StatusOr<JobSpec> SmallJob(const JobSpec& job, const Mesh& mesh, const MemoryChoice& memory,
                                 int64_t short_len, const VerificationRequest& request) {
  JobSpec small = job;
  TrainingSpec& training = small.training;
  training.seq_len = request.seq_len.value_or(short_len);
  training.global_batch_size = request.batch_size.value_or(SmallBatch(job.training, mesh));
  if (training.global_batch_size % (mesh.dp * mesh.accum) != 0) {
    return InvalidArgument("batch size: ", training.global_batch_size, " is no multiple of dp ",
                           mesh.dp, " x ", mesh.accum, " micro-steps; give a multiple of ",
                           mesh.dp * mesh.accum);
  }
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
  result.mesh.accum = std::min(result.mesh.accum, kMaxMicroSteps);
  ASSIGN_OR_RETURN(const PreparedJob full, PrepareJob(model, job));
  if (memory.ring_exchange == RingExchange::kAuto) {
    memory.ring_exchange = EstimateMesh(full.graph, job, cluster, result.mesh).ring_exchange;
  }
  const int64_t short_len = ShortLength(job.training.seq_len, result.mesh,
                                        LongestWindow(full.graph), LengthRuleOf(model, full));
  ASSIGN_OR_RETURN(result.job, SmallJob(job, result.mesh, memory, short_len, request));

  ASSIGN_OR_RETURN(const PreparedJob prepared, PrepareJob(model, result.job));
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
