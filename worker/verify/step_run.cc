#include "worker/verify/step_run.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"
#include "worker/rank/learning_rate.h"
#include "worker/rank/rank_threads.h"

namespace autosp {
namespace {

// The accumulators of the program: "grad:lm_head.weight".
constexpr std::string_view kGradientPrefix = "grad:";

}  // namespace

absl::StatusOr<std::unique_ptr<StepRun>> StepRun::Run(const Program& program, const JobSpec& job,
                                                      WeightSource& weights,
                                                      const VirtualWorld::MakeFeeder& make_feeder,
                                                      TorchGpu* gpu) {
  const VirtualRankOptions options{.num_threads = ThreadsPerRank(program.mesh.world_size()),
                                   .gpu = gpu};
  ASSIGN_OR_RETURN(std::unique_ptr<VirtualWorld> ranks,
                   VirtualWorld::Create(program, &weights, make_feeder, options));
  auto run = std::unique_ptr<StepRun>(new StepRun(std::move(ranks)));
  VirtualWorld& world = *run->ranks_;
  const double learning_rate = LearningRateAt(job.training, 0);
  RETURN_IF_ERROR(world.SetScalar("learning_rate", static_cast<float>(learning_rate)));
  RETURN_IF_ERROR(world.SetScalar("step", 1.0F));
  ASSIGN_OR_RETURN(const std::vector<SectionResult> results, world.Run("step"));
  for (const SectionResult& result : results) {
    ASSIGN_OR_RETURN(run->losses_.emplace_back(), result.Number("loss"));
    ASSIGN_OR_RETURN(run->grad_norms_.emplace_back(), result.Number("grad_norm"));
  }
  return run;
}

std::vector<StepRun::Gradient> StepRun::FindGradients(const Program& program) {
  std::vector<Gradient> gradients;
  for (const Persistent& persistent : program.persistents) {
    if (persistent.kind != PersistentKind::kState || !persistent.name.starts_with(kGradientPrefix))
      continue;
    gradients.push_back({.parameter = persistent.name.substr(kGradientPrefix.size()),
                         .held = persistent.name,
                         .value = &program.value(persistent.value)});
  }
  for (const Persistent* buffer : program.WrittenBuffers()) {
    gradients.push_back({.parameter = absl::StrCat(kBufferPrefix, buffer->name),
                         .held = buffer->name,
                         .value = &program.value(buffer->value)});
  }
  return gradients;
}

std::vector<std::string> StepRun::GradientNames(const Program& program) {
  std::vector<std::string> names;
  for (Gradient& gradient : FindGradients(program)) names.push_back(std::move(gradient.parameter));
  return names;
}

ShardPlace StepRun::PlaceOf(int64_t rank) const {
  return {.rank = CoordinateOf(program().mesh, rank), .micro_step = 0};
}

absl::StatusOr<NamedTensors> StepRun::Gradients() const {
  NamedTensors whole;
  for (const auto& [parameter, held, value] : FindGradients(program())) {
    const bool is_buffer = parameter.starts_with(kBufferPrefix);
    for (int64_t rank = 0; rank < ranks_->world_size(); ++rank) {
      ASSIGN_OR_RETURN(const at::Tensor local, ranks_->executor(rank).Get(held));
      RETURN_IF_ERROR(CatchTorch([&] {
        const at::ScalarType dtype = is_buffer ? at::kDouble : at::kFloat;
        at::Tensor& gradient = whole[parameter];
        if (!gradient.defined()) gradient = at::zeros(GlobalSizes(program(), *value), dtype);
        PutShard(program(), *value, PlaceOf(rank), local.cpu().to(dtype), gradient);
        return absl::OkStatus();
      }));
    }
  }
  return whole;
}

absl::Status StepRun::CompareWith(const NamedTensors& expected,
                                  GradientComparison& comparison) const {
  const std::vector<Gradient> gradients = FindGradients(program());
  for (const auto& [name, tensor] : expected) {
    if (std::ranges::find(gradients, name, &Gradient::parameter) == gradients.end()) {
      return Internal("the plan has no gradient of ", name, ", which it is compared in");
    }
  }
  for (const auto& [parameter, held, value] : gradients) {
    const auto found = expected.find(parameter);
    if (found == expected.end()) {
      return Internal("the plan has a gradient of ", parameter,
                      ", and what it is compared with has none");
    }
    for (int64_t rank = 0; rank < ranks_->world_size(); ++rank) {
      ASSIGN_OR_RETURN(const at::Tensor local, ranks_->executor(rank).Get(held));
      ASSIGN_OR_RETURN(const at::Tensor part,
                       TakeShard(program(), *value, PlaceOf(rank), found->second), "gradient ",
                       parameter);
      RETURN_IF_ERROR(comparison.Add(parameter, rank, local.cpu(), part));
    }
  }
  return absl::OkStatus();
}

}  // namespace autosp
