#include "tests/equality/zoo_model.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/checkpoint/weight_files.h"

namespace autosp {

NamedTensors WithPrefix(const NamedTensors& tensors, const std::string& prefix) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) result[name.substr(prefix.size())] = tensor;
  }
  return result;
}

absl::StatusOr<std::unique_ptr<ZooModel>> ZooModel::Load(const std::string& name) {
  auto zoo = std::make_unique<ZooModel>();
  ASSIGN_OR_RETURN(zoo->model_, ImportZoo(name));
  if (zoo->model_.is_graph_only) return zoo;
  ASSIGN_OR_RETURN(const std::unique_ptr<WeightFiles> files, WeightFiles::Open(ZooSpec(name)));
  for (const GraphInput& input : zoo->model_.graph.inputs) {
    if (input.kind == InputKind::kUser) continue;
    ASSIGN_OR_RETURN(const at::Tensor tensor, files->Load(input.name));
    zoo->weights_[input.name] = tensor.clone();
  }
  return zoo;
}

JobSpec ZooModel::Job(int64_t batch, int64_t seq_len) const {
  JobSpec job;
  job.name = "zoo";
  job.training.seq_len = seq_len;
  job.training.global_batch_size = batch;
  job.training.steps = 3;
  // Labels that the caller shifted are fed as they are; only how padding is filled depends on this.
  for (const char* name : {"shift_labels", "targets", "labels"}) {
    job.data.inputs[name] = {.source = InputSource::kNextTokens};
  }
  return job;
}

absl::StatusOr<std::unique_ptr<VirtualRanks>> ZooModel::Start(
    const JobSpec& job, const Mesh& mesh, Program* program,
    const VirtualRankOptions& options) const {
  ASSIGN_OR_RETURN(const PreparedJob prepared, PrepareJob(model_, job));
  return Start(prepared, mesh, ChoiceOf(job), program, options);
}

absl::StatusOr<std::unique_ptr<VirtualRanks>> ZooModel::Start(
    const PreparedJob& prepared, const Mesh& mesh, const MemoryChoice& memory, Program* program,
    const VirtualRankOptions& options) const {
  ASSIGN_OR_RETURN(const LoweredProgram lowered, LowerForMesh(prepared, mesh, memory));
  // What ranks get is the text.
  ASSIGN_OR_RETURN(const Program parsed, ParseProgram(PrintProgram(lowered.program)));
  if (program != nullptr) *program = parsed;
  return VirtualRanks::Create(parsed, weights_, options);
}

absl::StatusOr<std::string> ZooModel::Canonical(const Program& program,
                                                const std::string& name) const {
  for (const Persistent& persistent : program.persistents) {
    if (persistent.kind != PersistentKind::kParam) continue;
    if (persistent.name == name || std::ranges::count(persistent.aliases, name) > 0) {
      return persistent.name;
    }
  }
  return NotFound("the program has no parameter ", name);
}

at::Tensor LikeReference(const at::Tensor& ours, const at::Tensor& reference) {
  const at::Tensor flat = ours.contiguous().to(at::kFloat).flatten();
  if (flat.numel() == reference.numel()) return flat;
  constexpr int64_t kSampleStride = 7;
  return flat.slice(0, 0, flat.numel(), kSampleStride).contiguous();
}

std::string CompareGradients(const NamedTensors& actual, const NamedTensors& expected,
                             double tolerance) {
  double largest = 0;
  for (const auto& [name, tensor] : expected) {
    largest = std::max(largest, tensor.to(at::kFloat).abs().max().item<double>());
  }
  std::string worst;
  double worst_ratio = 1.0;
  for (const auto& [name, tensor] : expected) {
    const auto found = actual.find(name);
    if (found == actual.end()) return name + " is missing";
    const at::Tensor reference = tensor.to(at::kFloat).flatten();
    const at::Tensor ours = LikeReference(found->second, reference);
    if (ours.numel() != reference.numel()) return name + " has another size";
    const double error = (ours - reference).abs().max().item<double>();
    const double scale = std::max(reference.abs().max().item<double>(), 1e-3 * largest);
    const double ratio = error / (tolerance * scale);
    if (ratio <= worst_ratio) continue;  // also false for NaN, which is caught below
    worst_ratio = ratio;
    worst = absl::StrCat(name, ": error ", error, " of ", scale, ", ", ratio, " x the tolerance");
  }
  for (const auto& [name, tensor] : actual) {
    if (tensor.isnan().any().item<bool>()) return name + " is NaN";
  }
  return worst;
}

}  // namespace autosp
