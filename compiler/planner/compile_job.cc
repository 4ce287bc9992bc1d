#include "compiler/planner/compile_job.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/analysis/program_flops.h"
#include "compiler/checker/check_program.h"
#include "compiler/import/link_models.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/planner/check_names.h"
#include "compiler/planner/first_proved.h"
#include "compiler/planner/plan_search.h"
#include "compiler/weights/resolve_weights.h"

namespace autosp {
namespace {

absl::StatusOr<int64_t> WorldSize(const JobSpec& job, const ClusterSpec& cluster) {
  const ParallelismSpec& wanted = job.parallelism;
  int64_t ranks = cluster.num_devices();
  const bool all_axes = wanted.dp && wanted.ulysses && wanted.ring;
  if (wanted.ranks) {
    ranks = *wanted.ranks;
  } else if (all_axes) {
    ranks = *wanted.dp * *wanted.ulysses * *wanted.ring;
  }
  if (ranks <= cluster.num_devices()) return ranks;
  return InvalidArgument("parallelism.ranks: ", ranks, " ranks are wanted, but the cluster's ",
                         cluster.nodes.size(), " nodes have ", cluster.num_devices(),
                         " devices; ask for at most ", cluster.num_devices(),
                         ", or describe a larger cluster");
}

std::vector<int64_t> Divisors(int64_t number) {
  std::vector<int64_t> divisors;
  for (int64_t divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) divisors.push_back(divisor);
  }
  return divisors;
}

// All meshes that the job allows; small rings first.
absl::StatusOr<std::vector<Mesh>> CandidateMeshes(const JobSpec& job, int64_t world_size) {
  const ParallelismSpec& wanted = job.parallelism;
  std::vector<Mesh> meshes;
  for (int64_t ring : Divisors(world_size)) {
    if (wanted.ring && *wanted.ring != ring) continue;
    for (int64_t dp : Divisors(world_size / ring)) {
      const int64_t ulysses = world_size / ring / dp;
      if (wanted.dp && *wanted.dp != dp) continue;
      if (wanted.ulysses && *wanted.ulysses != ulysses) continue;
      if (job.training.global_batch_size % dp != 0) continue;
      meshes.push_back({.accum = 1, .dp = dp, .ring = ring, .ulysses = ulysses});
    }
  }
  if (!meshes.empty()) return meshes;
  const auto text = [](const std::optional<int64_t>& size) {
    return size ? absl::StrCat(*size) : "auto";
  };
  return InvalidArgument("parallelism: no mesh of ", world_size, " ranks has dp ", text(wanted.dp),
                         ", ulysses ", text(wanted.ulysses), " and ring ", text(wanted.ring),
                         " with dp dividing training.global_batch_size (",
                         job.training.global_batch_size, "); change one of them");
}

std::string Describe(const AxisList& axes, const Mesh& mesh) {
  std::vector<std::string> parts;
  for (Axis axis : axes) {
    if (mesh.size(axis) > 1) {
      parts.push_back(absl::StrCat(Absl(AxisName(axis)), " ", mesh.size(axis)));
    }
  }
  return parts.empty() ? "one rank" : absl::StrJoin(parts, " x ");
}

// Of the sequence, padding included.
int64_t LocalTokens(const JobSpec& job, const Program& program) {
  AxisList sp;
  for (Axis axis : {Axis::kRing, Axis::kUlysses}) {
    if (program.mesh.size(axis) > 1) sp.push_back(axis);
  }
  for (size_t i = 0; i < program.factors.size(); ++i) {
    if (program.factors[i].name != "seq" || program.factors[i].size != job.training.seq_len)
      continue;
    return program.LocalSize(DimFactor{.factor = {static_cast<int32_t>(i)}, .axes = sp});
  }
  return (job.training.seq_len + program.mesh.sp() - 1) / program.mesh.sp();
}

absl::Status CountOperations(const Program& program, const ClusterSpec& cluster,
                             PlanSummary* summary) {
  ASSIGN_OR_RETURN(FlopTotals flops, CountFlops(program, "step"));
  summary->flops_per_rank = TotalOf(flops);
  summary->attention_flops_per_rank = flops[FlopKind::kAttention];
  if (!cluster.nodes.empty()) {
    summary->peak_flops_per_second = PeakFlops(cluster.nodes.front().kind).value_or(0);
  }
  return absl::OkStatus();
}

PlanSummary Summarize(const ImportedModel& model, const JobSpec& job, const Candidate& candidate) {
  const Mesh& mesh = candidate.mesh;
  PlanSummary summary;
  summary.model_name = model.graph.name;
  summary.world_size = mesh.world_size();
  summary.dp_size = mesh.dp;
  summary.ulysses_size = mesh.ulysses;
  summary.ring_size = mesh.ring;
  summary.ring_exchange = std::string(ToString(candidate.memory.ring_exchange));
  summary.zero_stage = candidate.memory.zero_stage;
  summary.seq_len = job.training.seq_len;
  summary.seq_len_local = LocalTokens(job, candidate.lowered.program);
  summary.global_batch_size = job.training.global_batch_size;
  summary.grad_accum_steps = mesh.accum;
  summary.micro_batch_size = job.training.global_batch_size / mesh.dp / mesh.accum;
  summary.tokens_per_step = job.training.global_batch_size * job.training.seq_len;
  for (const GraphInput& input : model.graph.inputs) {
    if (input.kind == InputKind::kParameter) {
      summary.num_parameters += model.graph.type(input.value).numel();
    }
  }
  for (const auto& [account, peak] : candidate.prediction.memory) {
    summary.predicted_peak_bytes[std::string(AccountName(account))] = peak.peak_bytes;
  }
  summary.collectives = candidate.prediction.collectives;
  summary.links = model.links;
  summary.shardings.push_back(absl::StrCat(
      "mesh: ", Describe({Axis::kDp, Axis::kRing, Axis::kUlysses}, mesh), "; each rank holds ",
      summary.seq_len_local, " of ", summary.seq_len, " tokens of ", summary.micro_batch_size,
      summary.micro_batch_size == 1 ? " sequence" : " sequences"));
  for (const std::string& decision : candidate.lowered.decisions) {
    summary.shardings.push_back(decision);
  }
  summary.recompute = std::string(ToString(candidate.memory.recompute));
  summary.tiling = std::string(ToString(candidate.memory.tiling));
  summary.offload = std::string(ToString(candidate.memory.offload));
  return summary;
}

// Tensors that no model asks for are mostly harmless (buffers that another version kept), but may
// also be a sign of the wrong file.
void WarnOfUnused(const ResolvedWeights& weights, std::vector<std::string>* warnings) {
  if (weights.unused.empty()) return;
  const size_t others = weights.unused.size() - 1;
  warnings->push_back(absl::StrCat(
      "model.weights: the model has no ", weights.unused.front(),
      others == 0 ? "" : absl::StrCat(" and ", others, " more tensors"), " of ",
      weights.safetensors->path(), "; they are not read: check that it is the file of this model"));
}

// What the checker has no table for is not disproved: the plan says so in a warning.
absl::Status Check(const Program& one_device, CompiledPlan* plan) {
  const absl::StatusOr<Proof> proof = ProvePlan(plan->program_text, one_device);
  if (absl::IsUnimplemented(proof.status())) {
    plan->summary.warnings.push_back(
        absl::StrCat(proof.status().message(),
                     "; autosp-cli verify compares the two by running them, as a node "
                     "does before the job trains (verify: unproved)"));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(proof.status());
  plan->summary.num_checked_values = proof->num_values;
  plan->summary.num_checked_results = proof->num_results;
  return absl::OkStatus();
}

// All of them at once, so that nobody repairs one only to meet the next.
absl::Status RefuseWarnings(const JobSpec& job, const std::vector<std::string>& warnings) {
  if (!job.strict || warnings.empty()) return absl::OkStatus();
  std::string list;
  for (size_t i = 0; i < warnings.size(); ++i) {
    absl::StrAppend(&list, "\n  ", i + 1, ". ", warnings[i]);
  }
  return InvalidArgument("strict: true allows no warning, and planning has ", warnings.size(),
                         "; remove what they name, or set strict to false to accept them:", list);
}

// Whether some plan of the job fits at another length. Few meshes are tried: the best come first.
bool FitsAt(const ImportedModel& model, JobSpec job, const ClusterSpec& cluster,
            std::vector<Mesh> meshes, int64_t seq_len) {
  constexpr size_t kMaxMeshes = 8;
  if (meshes.size() > kMaxMeshes) meshes.resize(kMaxMeshes);
  job.training.seq_len = seq_len;
  const absl::StatusOr<PreparedJob> prepared = PrepareJob(model, job);
  return prepared.ok() && ChoosePlan(*prepared, job, cluster, meshes).ok();
}

// The longest sequence, below the job's, that a plan was found for; 0 where there is none. Memory
// grows with the length, so it is halved until a plan fits, and then looked for above that.
int64_t FittingLength(const ImportedModel& model, const JobSpec& job, const ClusterSpec& cluster,
                      const std::vector<Mesh>& meshes) {
  constexpr int64_t kShortest = 16;
  constexpr int kRefinements = 3;
  int64_t fitting = job.training.seq_len / 2;
  while (fitting >= kShortest && !FitsAt(model, job, cluster, meshes, fitting)) fitting /= 2;
  if (fitting < kShortest) return 0;
  int64_t step = fitting / 2;
  for (int i = 0; i < kRefinements; ++i, step /= 2) {
    if (FitsAt(model, job, cluster, meshes, fitting + step)) fitting += step;
  }
  return fitting;
}

// The best plan of `meshes`, with what the checker says of it.
absl::StatusOr<CheckedPlan> BestOf(const std::vector<Mesh>& meshes, const ImportedModel& model,
                                   const PreparedJob& prepared, const JobSpec& job,
                                   const ClusterSpec& cluster) {
  ASSIGN_OR_RETURN(Candidate chosen, ChoosePlan(prepared, job, cluster, meshes));
  CheckedPlan checked;
  checked.mesh = chosen.mesh;
  checked.mesh.accum = 1;
  CompiledPlan& plan = checked.plan;
  plan.program_text = PrintProgram(chosen.lowered.program);
  plan.digest = Sha256Hex(plan.program_text);
  plan.summary = Summarize(model, job, chosen);
  plan.summary.warnings = prepared.warnings;
  const std::vector<std::string>& whole = chosen.lowered.warnings;
  plan.summary.warnings.insert(plan.summary.warnings.end(), whole.begin(), whole.end());
  RETURN_IF_ERROR(CountOperations(chosen.lowered.program, cluster, &plan.summary));
  // One rank in one micro-step is its own reference, where nothing is given up for memory. Any
  // other program goes before its is made.
  LoweredProgram one_device = std::move(chosen.lowered);
  if (chosen.mesh != Mesh{} || chosen.memory != MemoryChoice{}) {
    one_device = {};
    ASSIGN_OR_RETURN(one_device, LowerForMesh(prepared, Mesh{}));
  }
  ASSIGN_OR_RETURN(const FlopTotals model_flops, CountFlops(one_device.program, "step"));
  plan.summary.model_flops = TotalOf(model_flops);
  checked.verdict = Check(one_device.program, &plan);
  return checked;
}

// `more`: warnings that are known already.
absl::StatusOr<CompiledPlan> Compile(const ImportedModel& model, const JobSpec& job,
                                     const ClusterSpec& cluster,
                                     const std::vector<std::string>& more) {
  RETURN_IF_ERROR(CheckNames(model.graph, job));
  ASSIGN_OR_RETURN(const int64_t world_size, WorldSize(job, cluster));
  ASSIGN_OR_RETURN(const std::vector<Mesh> meshes, CandidateMeshes(job, world_size));
  ASSIGN_OR_RETURN(const PreparedJob prepared, PrepareJob(model, job));
  absl::StatusOr<CompiledPlan> plan = FirstProved(meshes, [&](const std::vector<Mesh>& left) {
    return BestOf(left, model, prepared, job, cluster);
  });
  if (absl::IsResourceExhausted(plan.status())) {
    const int64_t length = FittingLength(model, job, cluster, meshes);
    if (length == 0) return plan.status();
    return ResourceExhausted(plan.status().message(), "; a training.seq_len of ", length, " fits");
  }
  RETURN_IF_ERROR(plan.status());
  std::vector<std::string>& warnings = plan->summary.warnings;
  warnings.insert(warnings.end(), more.begin(), more.end());
  RETURN_IF_ERROR(RefuseWarnings(job, warnings));
  return plan;
}

absl::StatusOr<CompiledPlan> CompileWithWeights(const JobSpec& job, const ClusterSpec& cluster,
                                                MissingWeights missing) {
  ASSIGN_OR_RETURN(const ImportedModel model, ImportModel(job.model.archives, job.model.tied));
  ASSIGN_OR_RETURN(const ResolvedWeights weights,
                   ResolveWeights(model, job.model.weights, missing));
  std::vector<std::string> warnings;
  WarnOfUnused(weights, &warnings);
  if (!weights.missing.empty()) {
    warnings.push_back(absl::StrCat(weights.missing, "; the job cannot be submitted without"));
  }
  return Compile(model, job, cluster, warnings);
}

}  // namespace

absl::StatusOr<Proof> ProvePlan(const std::string& program_text, const Program& one_device) {
  ASSIGN_OR_RETURN(const Program program, ParseProgram(program_text));
  absl::StatusOr<Proof> proof = CheckEquivalent(program, one_device);
  if (proof.ok()) return proof;
  if (absl::IsUnimplemented(proof.status())) {
    return Unimplemented("the plan is not proved to equal one device: ", proof.status().message());
  }
  return Internal(
      "the plan is refused, because it is not proved to compute what the model computes on one "
      "device: ",
      proof.status().message(),
      "; this is a fault of the compiler: please report it with the job file and the archive");
}

absl::StatusOr<CompiledPlan> CompileModel(const ImportedModel& model, const JobSpec& job,
                                          const ClusterSpec& cluster) {
  return Compile(model, job, cluster, {});
}

absl::StatusOr<CompiledPlan> CompileJob(const JobSpec& job, const ClusterSpec& cluster) {
  return CompileWithWeights(job, cluster, MissingWeights::kRefuse);
}

absl::StatusOr<CompiledPlan> PlanJob(const JobSpec& job, const ClusterSpec& cluster) {
  return CompileWithWeights(job, cluster, MissingWeights::kLeave);
}

}  // namespace autosp
