// One training step of a program on virtual ranks, and what it leaves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/program/program.h"
#include "worker/executor/weight_source.h"
#include "worker/ops/shard_indices.h"
#include "worker/rank/virtual_ranks.h"
#include "worker/verify/comparison.h"

namespace autosp {

class StepRun {
 public:
  // Runs the first step of `job`, on `gpu` or, where it is null, on the CPU. Keeps the ranks and
  // what they hold.
  static absl::StatusOr<std::unique_ptr<StepRun>> Run(const Program& program, const JobSpec& job,
                                                      WeightSource& weights,
                                                      const VirtualWorld::MakeFeeder& make_feeder,
                                                      TorchGpu* gpu = nullptr);

  // By rank; every rank should have the same.
  const std::vector<double>& losses() const { return losses_; }
  // The norm of all gradients.
  const std::vector<double>& grad_norms() const { return grad_norms_; }

  // The parameters that the program has a gradient of, by their first names, and buffers that it
  // writes, as "buffer:NAME".
  static std::vector<std::string> GradientNames(const Program& program);

  // Every gradient put together from the ranks, in fp32, and what buffers hold.
  absl::StatusOr<NamedTensors> Gradients() const;

  // Adds the gradients of every rank to `comparison`, each with its part of `expected`. Error: a
  // gradient that only one side has.
  absl::Status CompareWith(const NamedTensors& expected, GradientComparison& comparison) const;

 private:
  struct Gradient {
    std::string parameter;  // or "buffer:NAME"
    std::string held;       // what ranks call it
    const ProgramValue* value = nullptr;
  };

  explicit StepRun(std::unique_ptr<VirtualWorld> ranks) : ranks_(std::move(ranks)) {}
  const Program& program() const { return ranks_->executor(0).program(); }
  static std::vector<Gradient> FindGradients(const Program& program);
  ShardPlace PlaceOf(int64_t rank) const;

  std::unique_ptr<VirtualWorld> ranks_;
  std::vector<double> losses_;
  std::vector<double> grad_norms_;
};

}  // namespace autosp
