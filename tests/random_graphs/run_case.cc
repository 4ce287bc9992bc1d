#include "tests/random_graphs/run_case.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/planner/compile_job.h"
#include "compiler/planner/exported_graph.h"
#include "tests/random_graphs/example_values.h"
#include "tests/worker/executor/virtual_ranks.h"
#include "worker/verify/comparison.h"
#include "worker/verify/eager_step.h"
#include "worker/verify/rounding_noise.h"
#include "worker/verify/step_run.h"

namespace autosp {
namespace {

constexpr double kTolerance = 1e-5;
JobSpec JobOf(const RandomCase& random_case) {
  JobSpec job;
  job.name = "random";
  job.data.ignore_index = kIgnoreIndex;
  job.training.seq_len = random_case.seq_len;
  job.training.global_batch_size = random_case.batch_size;
  const Mesh& mesh = random_case.mesh;
  job.training.micro_batch_size = random_case.batch_size / (mesh.dp * mesh.accum);
  job.training.steps = 1;
  // Any stage of ZeRO; it follows from the case, which has no number for it.
  job.parallelism = {.ranks = mesh.world_size(),
                     .dp = mesh.dp,
                     .ulysses = mesh.ulysses,
                     .ring = mesh.ring,
                     .zero = random_case.seq_len % 4};
  job.memory.recompute = random_case.recompute;
  job.memory.tiling = random_case.tiling;
  for (const GraphInput& input : random_case.graph.inputs) {
    if (input.kind == InputKind::kUser) job.data.inputs[input.name] = FeedOf(input);
  }
  return job;
}

ClusterSpec ClusterOf(const Mesh& mesh) {
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "local",
                           .address = "",
                           .devices = mesh.world_size(),
                           .device_memory_bytes = int64_t{1} << 30});
  return cluster;
}

// One step on virtual ranks, held against the graph run eagerly.
struct Distances {
  double loss = 0;
  std::vector<GradientError> gradients;
};

// Relative, but for a small loss: the cross entropy of a class that is all but certain is what is
// left of two numbers, and rounded as they are.
double LossError(double loss, double expected) {
  constexpr double kSmall = 0.05;
  return RelativeError(loss, expected) * std::min(1.0, std::abs(expected) / kSmall);
}

absl::StatusOr<Distances> DistancesOf(const Program& program, const JobSpec& job,
                                      const EagerStep& expected, WeightSource& weights,
                                      const NamedTensors& inputs) {
  auto batch = std::make_shared<const NamedTensors>(inputs);
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRun> run,
                   StepRun::Run(program, job, weights,
                                [&](int64_t /*rank*/) -> absl::StatusOr<std::unique_ptr<Feeder>> {
                                  return std::make_unique<BatchFeeder>(batch);
                                }));
  Distances distances;
  for (const double loss : run->losses()) {
    const double error = LossError(loss, expected.loss);
    distances.loss = std::max(distances.loss, std::isnan(error) ? INFINITY : error);
  }
  GradientComparison comparison(expected.gradients);
  RETURN_IF_ERROR(run->CompareWith(expected.gradients, comparison));
  distances.gradients = comparison.Errors();
  return distances;
}

// What is off by more than `noise` explains, or "".
std::string Excess(const Distances& distances, const RoundingNoise& noise) {
  const auto excess = [](absl::string_view what, double error, double of_noise) {
    const double bound = NoiseBound(of_noise, kTolerance);
    if (error <= bound) return std::string();
    return absl::StrCat(what, " is off by ", error, ", more than ", bound);
  };
  std::string worst = excess("the loss", distances.loss, noise.loss);
  for (const GradientError& each : distances.gradients) {
    if (!worst.empty()) break;
    const auto found = noise.gradients.find(each.name);
    const double of_noise = found == noise.gradients.end() ? 0 : found->second;
    worst = excess(absl::StrCat("the gradient of ", each.name), each.error, of_noise);
  }
  return worst;
}

// A graph that a pass left wrong is no fault of its author.
bool IsRefusal(const absl::Status& status) {
  if (absl::StrContains(status.message(), "after pass ")) return false;
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
}

RunOutcome Failure(CaseResult result, std::string message) {
  return {.result = result, .message = std::move(message), .not_proved = ""};
}

RunOutcome OfStatus(const absl::Status& status) {
  const std::string message(status.message());
  if (IsRefusal(status)) return Failure(CaseResult::kRefused, message);
  const bool is_disproved = absl::StrContains(message, "it is not proved to compute");
  return Failure(is_disproved ? CaseResult::kDisproved : CaseResult::kFailed, message);
}

absl::StatusOr<RunOutcome> CompareRuns(const RandomCase& random_case, const JobSpec& job,
                                       const Program& program) {
  ImportedModel model;
  model.graph = random_case.graph;
  ASSIGN_OR_RETURN(const ExportedGraph exported, MakeExportedGraph(model, job));
  const NamedTensors whole = ExampleWeights(exported.graph, random_case.seed);
  const NamedTensors inputs = ExampleInputs(exported.graph, random_case.seed);
  MapWeights weights(whole);
  ASSIGN_OR_RETURN(const EagerStep expected, RunEagerly(exported.graph, job.model, weights, inputs),
                   "as exported");
  RunOutcome outcome{.message = "", .not_proved = "", .is_resized = exported.is_resized};
  // A graph that was shrunk may divide by zero.
  if (!std::isfinite(expected.loss)) return outcome;
  ASSIGN_OR_RETURN(const Distances distances, DistancesOf(program, job, expected, weights, inputs),
                   "the plan");
  if (Excess(distances, RoundingNoise()).empty()) return outcome;
  ASSIGN_OR_RETURN(
      const RoundingNoise noise,
      MeasureRoundingNoise(weights, expected, [&, seed = uint64_t{0}](WeightSource& moved) mutable {
        return RunEagerly(exported.graph, job.model, moved, inputs, {.moved_gradients = seed++});
      }));
  outcome.message = Excess(distances, noise);
  if (!outcome.message.empty()) outcome.result = CaseResult::kDiffers;
  return outcome;
}

}  // namespace

RunOutcome RunCase(const RandomCase& random_case) {
  ImportedModel model;
  model.graph = random_case.graph;
  const JobSpec job = JobOf(random_case);
  const absl::StatusOr<CompiledPlan> plan = CompileModel(model, job, ClusterOf(random_case.mesh));
  if (!plan.ok()) return OfStatus(plan.status());
  const absl::StatusOr<Program> program = ParseProgram(plan->program_text);
  if (!program.ok()) return Failure(CaseResult::kFailed, std::string(program.status().message()));
  absl::StatusOr<RunOutcome> outcome = CompareRuns(random_case, job, *program);
  // Once a plan was given out, there is nothing left to refuse.
  if (!outcome.ok()) return Failure(CaseResult::kFailed, std::string(outcome.status().message()));
  for (const std::string& warning : plan->summary.warnings) {
    if (absl::StrContains(warning, "is not proved")) outcome->not_proved = warning;
  }
  return *std::move(outcome);
}

}  // namespace autosp
