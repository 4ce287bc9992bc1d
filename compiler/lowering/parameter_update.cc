#include "compiler/lowering/parameter_update.h"

#include <algorithm>

namespace autosp {

template <typename AxesOf>
std::vector<std::pair<AxisList, ValueList>> ParameterUpdate::GradientsBy(AxesOf axes_of) const {
  std::vector<std::pair<AxisList, ValueList>> groups;
  for (const TrainedParameter& trained : trained_) {
    const AxisList axes = axes_of(trained);
    auto group = std::ranges::find(groups, axes, &std::pair<AxisList, ValueList>::first);
    if (group == groups.end()) group = groups.insert(groups.end(), {axes, {}});
    group->second.push_back(trained.gradient);
  }
  return groups;
}

ValueList ParameterUpdate::Gradients() const {
  ValueList list;
  for (const TrainedParameter& trained : trained_) list.push_back(trained.gradient);
  return list;
}

void ParameterUpdate::ReduceGradients() {
  const AxisList all =
      NonTrivial(builder_.program().mesh, {kDeviceAxes.begin(), kDeviceAxes.end()});
  const auto missing = [&all](const TrainedParameter& trained) {
    return trained.shard ? Without(all, trained.shard->axes) : all;
  };
  for (auto& [axes, gradients] : GradientsBy(missing)) {
    if (axes.empty()) continue;
    builder_.Update("autosp.all_reduce_", {std::move(gradients)},
                    {{"axes", AxisListName(axes)}, {"reduction", std::string("sum")}});
  }
}

// Squares of parts are summed over the ranks that hold them; what is whole counts once.
ValueId ParameterUpdate::GradientNorm() {
  const auto split = [](const TrainedParameter& trained) {
    return trained.shard ? trained.shard->axes : AxisList{};
  };
  const auto groups = GradientsBy(split);
  const ProgramValue norm = builder_.Typed(DType::kF32, {});
  if (groups.size() == 1 && groups[0].first.empty()) {
    return builder_.Call("autosp.grad_norm", {groups[0].second}, norm);
  }
  ValueList sums;
  for (const auto& [axes, gradients] : groups) {
    ValueId sum = builder_.Call("autosp.sum_of_squares", {gradients},
                                builder_.Typed(DType::kF64, {}, {.axes = axes}));
    if (!axes.empty()) sum = builder_.AllReduce(sum, axes);
    sums.push_back(sum);
  }
  return builder_.Call("autosp.norm_of_sums", {std::move(sums)}, norm);
}

void ParameterUpdate::ClipAndUpdate() {
  const ValueId norm = GradientNorm();
  builder_.Append(InstructionKind::kOutput, "grad_norm", {norm}, {});
  if (options_.clip_grad_norm > 0) {
    builder_.Update("autosp.clip_", {Gradients(), norm}, {{"max_norm", options_.clip_grad_norm}});
  }
  TakeParts();
  for (bool decays : {true, false}) {
    std::vector<size_t> group;
    for (size_t i = 0; i < trained_.size(); ++i) {
      if (trained_[i].decays == decays) group.push_back(i);
    }
    if (!group.empty()) Update(group, decays ? options_.optimizer.weight_decay : 0.0);
  }
  GatherParts();
}

void ParameterUpdate::TakeParts() {
  const Program& program = builder_.program();
  for (const TrainedParameter& trained : trained_) {
    if (!trained.shard || trained.is_split) {
      targets_.push_back(trained.parameter);
      continue;
    }
    const auto dim = static_cast<int64_t>(trained.shard->dim);
    const ProgramDim part =
        ShardedDims(program.value(trained.parameter).dims, *trained.shard)[trained.shard->dim];
    const LinearExpr start =
        ProgramBuilder::GroupIndex(program.mesh, trained.shard->axes, program.LocalSize(part));
    targets_.push_back(builder_.Slice(trained.parameter, dim, part, start));
  }
}

void ParameterUpdate::Update(const std::vector<size_t>& group, double weight_decay) {
  const auto list = [&](ValueId TrainedParameter::*member) {
    ValueList values;
    for (size_t i : group) values.push_back(trained_[i].*member);
    return values;
  };
  ValueList targets;
  for (size_t i : group) targets.push_back(targets_[i]);
  const OptimizerSpec& optimizer = options_.optimizer;
  const bool has_masters =
      std::ranges::any_of(group, [this](size_t i) { return trained_[i].master.valid(); });
  const Argument masters =
      has_masters ? Argument(list(&TrainedParameter::master)) : Argument(None{});
  if (optimizer.kind == OptimizerKind::kAdamW) {
    builder_.Update(
        "autosp.adamw_",
        {std::move(targets), list(&TrainedParameter::gradient), list(&TrainedParameter::first),
         list(&TrainedParameter::second), options_.learning_rate, options_.step, masters},
        {{"beta1", optimizer.betas[0]},
         {"beta2", optimizer.betas[1]},
         {"eps", optimizer.eps},
         {"weight_decay", weight_decay}});
    return;
  }
  const Argument momenta =
      optimizer.momentum != 0 ? Argument(list(&TrainedParameter::first)) : Argument(None{});
  builder_.Update("autosp.sgd_",
                  {std::move(targets), list(&TrainedParameter::gradient), momenta,
                   options_.learning_rate, masters},
                  {{"momentum", optimizer.momentum}, {"weight_decay", weight_decay}});
}

// Each rank has updated its part of what all of them hold.
void ParameterUpdate::GatherParts() {
  struct Group {
    AxisList axes;
    ValueList wholes = {};
    ValueList parts = {};
    IntList dims = {};
  };
  std::vector<Group> groups;
  for (size_t i = 0; i < trained_.size(); ++i) {
    const TrainedParameter& trained = trained_[i];
    if (!trained.shard || trained.is_split) continue;
    auto group = std::ranges::find(groups, trained.shard->axes, &Group::axes);
    if (group == groups.end()) group = groups.insert(groups.end(), {trained.shard->axes});
    group->wholes.push_back(trained.parameter);
    group->parts.push_back(targets_[i]);
    group->dims.push_back(SymInt(static_cast<int64_t>(trained.shard->dim)));
  }
  for (Group& group : groups) {
    builder_.Update("autosp.all_gather_", {std::move(group.wholes), std::move(group.parts)},
                    {{"axes", AxisListName(group.axes)}, {"dim", std::move(group.dims)}});
  }
}

}  // namespace autosp
