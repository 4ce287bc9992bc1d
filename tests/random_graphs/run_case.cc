#include "tests/random_graphs/run_case.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn_like.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/planner/compile_job.h"
#include "compiler/planner/exported_graph.h"
#include "tests/random_graphs/example_values.h"
#include "tests/worker/executor/virtual_ranks.h"
#include "worker/verify/comparison.h"
#include "worker/verify/eager_step.h"
#include "worker/verify/step_run.h"

namespace autosp {
namespace {

constexpr double kTolerance = 1e-5;
// Where rounding alone moves the result: 2^-24 of every weight.
constexpr double kRounding = 6e-8;
constexpr int kNumSamples = 3;
// Ops round as the weights do, each of them, forward and backward.
constexpr double kRoundings = 50;
constexpr double kMaxTolerance = 1e-2;

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

struct Distance {
  double error = 0;  // in parts of the largest entry, as verify has it
  std::string where;
};

// A gradient that is zero in theory, as that of a bias before a softmax, holds what rounding leaves
// of sums over all tokens. How much depends on the order of the sums, and counts for a tenth.
bool IsRounding(const at::Tensor& gradient, double scale) {
  return gradient.abs().max().item<double>() < 1e-3 * scale;
}

Distance WorstOf(const GradientComparison& comparison, const NamedTensors& expected,
                 double loss_error) {
  Distance worst{.error = loss_error, .where = "the loss"};
  for (const GradientError& each : comparison.Errors()) {
    const bool is_rounding = IsRounding(expected.at(each.name), each.scale);
    const double error = is_rounding ? each.error / 10 : each.error;
    if (error > worst.error) worst = {error, "the gradient of " + each.name};
  }
  return worst;
}

double RelativeError(double actual, double expected) {
  const double apart = std::abs(actual - expected);
  if (std::isnan(apart)) return INFINITY;
  // A loss of nearly zero is a difference of terms of about one.
  return apart / std::max(std::abs(expected), 1e-2);
}

absl::StatusOr<Distance> DistanceOf(const Program& program, const JobSpec& job,
                                    const EagerStep& expected, const NamedTensors& whole,
                                    const NamedTensors& inputs) {
  MapWeights weights(whole);
  auto batch = std::make_shared<const NamedTensors>(inputs);
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRun> run,
                   StepRun::Run(program, job, weights,
                                [&](int64_t /*rank*/) -> absl::StatusOr<std::unique_ptr<Feeder>> {
                                  return std::make_unique<BatchFeeder>(batch);
                                }));
  double loss_error = 0;
  for (const double loss : run->losses()) {
    loss_error = std::max(loss_error, RelativeError(loss, expected.loss));
  }
  GradientComparison comparison(expected.gradients);
  RETURN_IF_ERROR(run->CompareWith(expected.gradients, comparison));
  return WorstOf(comparison, expected.gradients, loss_error);
}

// How far a change of the weights by their last bit moves loss and gradients: what no plan can be
// held below.
absl::StatusOr<double> RoundingOf(const Graph& graph, const EagerStep& expected,
                                  const NamedTensors& whole, const NamedTensors& inputs) {
  double largest = 0;
  for (int sample = 0; sample < kNumSamples; ++sample) {
    NamedTensors moved;
    for (const auto& [name, tensor] : whole) {
      moved[name] = tensor * (1 + kRounding * at::randn_like(tensor));
    }
    MapWeights weights(moved);
    ASSIGN_OR_RETURN(const EagerStep step, RunEagerly(graph, ModelSpec(), weights, inputs));
    GradientComparison comparison(expected.gradients);
    for (const auto& [name, gradient] : step.gradients) {
      RETURN_IF_ERROR(comparison.Add(name, 0, gradient, expected.gradients.at(name)));
    }
    const double loss_error = RelativeError(step.loss, expected.loss);
    largest = std::max(largest, WorstOf(comparison, expected.gradients, loss_error).error);
  }
  return largest;
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
  ASSIGN_OR_RETURN(const Distance distance, DistanceOf(program, job, expected, whole, inputs),
                   "the plan");
  if (distance.error <= kTolerance) return outcome;
  ASSIGN_OR_RETURN(const double rounding, RoundingOf(exported.graph, expected, whole, inputs));
  const double bound = std::clamp(kRoundings * rounding, kTolerance, kMaxTolerance);
  if (distance.error <= bound) return outcome;
  outcome.result = CaseResult::kDiffers;
  outcome.message =
      absl::StrCat(distance.where, " is off by ", distance.error, ", more than ", bound);
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
