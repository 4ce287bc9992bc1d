// What follows the micro-steps: gradients are completed, their norm taken and clipped, parameters
// updated.
//
// Under ZeRO each rank updates its part of a parameter from its part of the gradient and of the
// states. Where the parameter itself is whole, the parts of all ranks are then gathered into it.
//
//   update autosp.all_reduce_(%g2) {axes="ulysses"}              what no two ranks divide
//   %n = call autosp.sum_of_squares([%g1]) : f64[], partial over ulysses; all_reduce
//   %norm = call autosp.norm_of_sums([%n, ...]) : f32[]
//   %s1 = alias aten.slice.Tensor(%w1, ...)                      the rank's part, in place
//   update autosp.adamw_([%s1, %w2], [%g1, %g2], ...)
//   update autosp.all_gather_([%w1], [%s1]) {axes="ulysses", dim=[0]}
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compiler/config/job_spec.h"
#include "compiler/lowering/program_builder.h"
#include "compiler/lowering/zero_shard.h"

namespace autosp {

struct TrainedParameter {
  ValueId parameter;
  ValueId gradient = {};
  ValueId first = {};   // first moment, or momentum
  ValueId second = {};  // second moment
  ValueId master = {};  // f32 copy of a parameter of another dtype
  std::string name;
  bool decays = true;
  // How gradient, moments and master are split; nullopt: whole.
  std::optional<ZeroShard> shard = {};
  // Whether the parameter is split in the same way.
  bool is_split = false;
};

struct UpdateOptions {
  OptimizerSpec optimizer;
  double clip_grad_norm = 0;  // 0: no clipping
  ValueId learning_rate;
  ValueId step;
};

class ParameterUpdate {
 public:
  // All must outlive the update.
  ParameterUpdate(ProgramBuilder& builder, const std::vector<TrainedParameter>& trained,
                  const UpdateOptions& options)
      : builder_(builder), trained_(trained), options_(options) {}

  // Appends the reductions over all ranks that no gradient has had yet.
  void ReduceGradients();
  // Requires: gradients are complete.
  void ClipAndUpdate();

 private:
  // Gradients by the axes that `axes_of` gives, in the order of the first with these.
  template <typename AxesOf>
  std::vector<std::pair<AxisList, ValueList>> GradientsBy(AxesOf axes_of) const;
  ValueList Gradients() const;
  ValueId GradientNorm();
  void TakeParts();
  void Update(const std::vector<size_t>& group, double weight_decay);
  void GatherParts();

  ProgramBuilder& builder_;
  const std::vector<TrainedParameter>& trained_;
  const UpdateOptions& options_;
  ValueList targets_;  // by parameter: what the optimizer writes to, all or the rank's part
};

}  // namespace autosp
