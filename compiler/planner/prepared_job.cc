#include "compiler/planner/prepared_job.h"

#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/remove_noise.h"
#include "compiler/lowering/loss_output.h"

namespace autosp {
namespace {

// What fills padded positions of an input: labels must not count.
std::map<std::string, int64_t> PadsOf(const ImportedModel& model, const JobSpec& job) {
  std::map<std::string, int64_t> pads;
  for (const GraphInput& input : model.graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    const std::optional<InputFeed> feed = InputFeedFor(job.data, input.name);
    if (!feed) continue;
    if (feed->source == InputSource::kTokens || feed->source == InputSource::kMlmTokens) {
      pads[input.name] = job.data.pad_token;
    } else if (feed->source == InputSource::kNextTokens ||
               feed->source == InputSource::kMlmLabels) {
      pads[input.name] = job.data.ignore_index;
    }
  }
  return pads;
}

// Next tokens have ignore_index where the data ends, if a sample ends there: no reason to refuse a
// job, and an error of the step that reads it.
std::vector<FedNumber> NumbersOf(const InputFeed& feed, const JobSpec& job) {
  using enum FedNumber::Kind;
  switch (feed.source) {
    case InputSource::kTokens:
      return {{kToken, "data.pad_token", job.data.pad_token}};
    case InputSource::kMlmTokens:
      return {{kToken, "data.pad_token", job.data.pad_token},
              {kToken, "data.mask_token", job.data.mask_token}};
    case InputSource::kMlmLabels:
      return {{kIgnoredLabel, "data.ignore_index", job.data.ignore_index}};
    case InputSource::kPositions:
      return {{kLastPosition, "training.seq_len", job.training.seq_len - 1}};
    default:
      return {};
  }
}

std::map<std::string, std::vector<FedNumber>> FedNumbersOf(const Graph& graph, const JobSpec& job) {
  std::map<std::string, std::vector<FedNumber>> numbers;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    if (const auto feed = InputFeedFor(job.data, input.name)) {
      numbers[input.name] = NumbersOf(*feed, job);
    }
  }
  return numbers;
}

LoweringOptions OptionsOf(const ImportedModel& model, const JobSpec& job) {
  LoweringOptions options;
  options.optimizer = job.training.optimizer;
  options.clip_grad_norm = job.training.clip_grad_norm;
  options.loss_output = job.model.loss_output;
  options.frozen = job.model.frozen;
  options.no_decay = job.model.no_decay;
  options.pads = PadsOf(model, job);
  options.seed = job.training.seed;
  return options;
}

// What only other outputs are made of may be what no plan can compute.
absl::Status LeaveOtherOutputs(const JobSpec& job, PreparedJob& prepared) {
  if (prepared.graph.NumResults() == 1) return absl::OkStatus();
  ASSIGN_OR_RETURN(const size_t loss, FindLossOutput(prepared.graph, job.model.loss_output));
  KeepLoss(loss, prepared.graph);
  prepared.options.loss_output.clear();  // an index would be another one now
  RemoveNoise(prepared.graph);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<InputRoles> RolesOf(const Graph& graph, const JobSpec& job) {
  InputRoles roles;
  std::vector<std::string> missing;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    const std::optional<InputFeed> feed = InputFeedFor(job.data, input.name);
    if (!feed) {
      missing.push_back(input.name);
      continue;
    }
    roles[input.name] = feed->dims;
  }
  if (missing.empty()) return roles;
  return InvalidArgument("the data does not feed the model's input ", absl::StrJoin(missing, ", "),
                         "; say how under data.inputs, for example data.inputs.", missing[0],
                         ": {from: tokens}");
}

absl::StatusOr<PreparedJob> PrepareJob(const ImportedModel& model, const JobSpec& job) {
  PreparedJob prepared;
  PassContext& context = prepared.context;
  ASSIGN_OR_RETURN(context.roles, RolesOf(model.graph, job));
  context.batch_size = job.training.global_batch_size;
  context.seq_len = job.training.seq_len;
  context.params = job.precision.params;
  context.constant_ranges = model.constant_ranges;
  context.fed_numbers = FedNumbersOf(model.graph, job);
  context.symbol_ranges = model.symbol_ranges;
  context.guards = model.guards;
  prepared.graph = model.graph;
  prepared.options = OptionsOf(model, job);
  RETURN_IF_ERROR(LeaveOtherOutputs(job, prepared));
  std::vector<std::string> warnings = model.warnings;
  context.warnings = &warnings;
  RETURN_IF_ERROR(RunSharedPasses(prepared.graph, context));
  context.warnings = nullptr;
  ASSIGN_OR_RETURN(prepared.factors, InferFactors(prepared.graph, context.roles));
  warnings.insert(warnings.end(), prepared.factors.warnings.begin(),
                  prepared.factors.warnings.end());
  prepared.warnings = std::move(warnings);
  return prepared;
}

absl::StatusOr<LoweredProgram> LowerForMesh(const PreparedJob& prepared, const Mesh& mesh,
                                            const MemoryChoice& memory) {
  LoweringOptions options = prepared.options;
  options.mesh = mesh;
  options.memory = memory;
  if (mesh.sp() == 1) {
    // No heads are split, so the passes that read the mesh have nothing to do. The lowering refines
    // factors: it gets its own.
    GraphFactors factors = prepared.factors;
    return LowerToProgram(prepared.graph, factors, options);
  }
  PassContext context = prepared.context;
  context.head_shards = mesh.ulysses;
  context.ring_size = mesh.ring;
  Graph graph = prepared.graph;
  RETURN_IF_ERROR(RunMeshPasses(graph, context));
  ASSIGN_OR_RETURN(GraphFactors factors, InferFactors(graph, context.roles));
  return LowerToProgram(graph, factors, options);
}

MemoryChoice ChoiceOf(const JobSpec& job) {
  return {.recompute = job.memory.recompute,
          .tiling = job.memory.tiling,
          .offload = job.memory.offload,
          .zero_stage = job.parallelism.zero.value_or(0),
          .ring_exchange = job.parallelism.ring_exchange};
}

absl::StatusOr<LoweredProgram> CompileForMesh(const ImportedModel& model, const JobSpec& job,
                                              const Mesh& mesh,
                                              std::vector<std::string>* warnings) {
  ASSIGN_OR_RETURN(const PreparedJob prepared, PrepareJob(model, job));
  if (warnings != nullptr) *warnings = prepared.warnings;
  return LowerForMesh(prepared, mesh, ChoiceOf(job));
}

}  // namespace autosp
