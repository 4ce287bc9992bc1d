#include "compiler/lowering/lower_program.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/config/glob.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/lowering/block_attention.h"
#include "compiler/lowering/buffer_writes.h"
#include "compiler/lowering/forward_lowering.h"
#include "compiler/lowering/gather_parameters.h"
#include "compiler/lowering/loss_output.h"
#include "compiler/lowering/offload_kept.h"
#include "compiler/lowering/parameter_update.h"
#include "compiler/lowering/recompute_cheap.h"
#include "compiler/lowering/recompute_segments.h"
#include "compiler/lowering/scatter_gradients.h"
#include "compiler/lowering/sink_zeros.h"
#include "compiler/lowering/tile_loss.h"
#include "compiler/lowering/tile_stretches.h"
#include "compiler/lowering/zero_shard.h"

namespace autosp {
namespace {

// Tied parameters are matched under each of their names.
bool MatchesAny(const std::vector<std::string>& globs, const GraphInput& input) {
  return std::ranges::any_of(globs, [&](const std::string& glob) {
    return GlobMatch(glob, input.name) ||
           std::ranges::any_of(input.aliases,
                               [&](const std::string& alias) { return GlobMatch(glob, alias); });
  });
}

// Builds the persistents first, then each section.
class ProgramLowering {
 public:
  ProgramLowering(const Graph& graph, GraphFactors& factors, const LoweringOptions& options)
      : graph_(graph), factors_(factors), options_(options), builder_(program_) {
    program_.name = graph.name;
    program_.mesh = options.mesh;
    all_axes_ = NonTrivial(program_.mesh, {kStepAxes.begin(), kStepAxes.end()});
    device_axes_ = NonTrivial(program_.mesh, {kDeviceAxes.begin(), kDeviceAxes.end()});
  }

  absl::StatusOr<LoweredProgram> Run() {
    ASSIGN_OR_RETURN(const size_t loss, FindLossOutput(graph_, options_.loss_output));
    loss_ = graph_.outputs[loss];
    AddInputs();
    RETURN_IF_ERROR(CheckTrained());
    ExplainZero();
    if (trained_.empty()) {
      return NothingTrained();
    }
    AddStates();
    RETURN_IF_ERROR(LowerStep());
    RETURN_IF_ERROR(LowerEval());
    SplitPersistents(program_, split_parameters_);
    SetWorkspaces(program_);
    InsertFrees(program_);
    return LoweredProgram{.program = std::move(program_),
                          .decisions = std::move(decisions_),
                          .warnings = std::move(warnings_),
                          .num_gathered_attentions = num_gathered_attentions_};
  }

 private:
  absl::Status NothingTrained() const {
    std::vector<std::string> names;
    for (const GraphInput& input : graph_.inputs) {
      if (input.kind != InputKind::kParameter) continue;
      names.push_back(input.name);
      const bool may_be_trained = input.requires_grad && !MatchesAny(options_.frozen, input);
      if (may_be_trained) return HasNothingToLearn(graph_, loss_);
    }
    if (names.empty()) {
      return InvalidArgument(
          "the model has no parameter, so that there is nothing to train; give "
          "an export of a module with parameters");
    }
    return InvalidArgument("model.frozen freezes every parameter (", names.size(),
                           ", the first is ", names[0],
                           "); leave out the patterns of those that are to be trained");
  }

  std::vector<ProgramDim> PlainDims(const TensorType& type) const {
    std::vector<ProgramDim> dims;
    for (const SymInt& size : type.sizes) {
      dims.push_back(size.value == 1 ? ProgramDim{}
                                     : ProgramDim{{.factor = {}, .size = size.value}});
    }
    return dims;
  }

  ValueId AddPersistent(PersistentKind kind, const std::string& value_name, const std::string& name,
                        DType dtype, std::vector<ProgramDim> dims) {
    ProgramValue value;
    value.name = value_name;
    value.dtype = dtype;
    value.dims = std::move(dims);
    Persistent persistent;
    persistent.value = program_.AddValue(std::move(value));
    persistent.kind = kind;
    persistent.name = name;
    program_.persistents.push_back(std::move(persistent));
    return program_.persistents.back().value;
  }

  // Gradients and the states of optimizers are fp32, which must hold what is added to them.
  absl::Status CheckTrained() const {
    for (const TrainedParameter& trained : trained_parameters_) {
      if (program_.value(trained.parameter).dtype != DType::kF64) continue;
      return InvalidArgument("parameter ", trained.name,
                             " is float64, and gradients are summed in float32; export the model "
                             "as float32 (model.float()), or freeze it in model.frozen");
    }
    return absl::OkStatus();
  }

  // Parameters, and buffers that something reads or writes.
  void AddInputs() {
    std::set<ValueId> used;
    for (const Node& node : graph_.nodes) {
      for (ValueId operand : OperandsOf(node)) used.insert(operand);
    }
    for (const auto& [output, buffer] : graph_.writes) {
      used.insert({buffer, graph_.outputs[output]});
    }
    for (const GraphInput& input : graph_.inputs) {
      if (input.kind == InputKind::kUser) continue;
      const bool is_parameter = input.kind == InputKind::kParameter;
      if (!used.contains(input.value) && !is_parameter) continue;
      const TensorType& type = graph_.type(input.value);
      const ValueId value =
          AddPersistent(is_parameter ? PersistentKind::kParam : PersistentKind::kBuffer,
                        graph_.value(input.value).name, input.name, type.dtype, PlainDims(type));
      program_.persistents.back().aliases = input.aliases;
      persistents_[input.value] = value;
      const bool is_trained = is_parameter && input.requires_grad && used.contains(input.value) &&
                              IsFloating(type.dtype) && !MatchesAny(options_.frozen, input);
      std::optional<ZeroShard> shard;
      const bool splits_parameters = options_.memory.zero_stage == 3 && is_parameter;
      if (splits_parameters || (options_.memory.zero_stage > 0 && is_trained))
        shard = ShardOf(value);
      if (shard && splits_parameters) split_parameters_[value] = *shard;
      if (!is_trained) continue;
      trained_.insert(input.value);
      trained_parameters_.push_back({.parameter = value,
                                     .name = input.name,
                                     .decays = !MatchesAny(options_.no_decay, input),
                                     .shard = shard,
                                     .is_split = split_parameters_.contains(value)});
    }
  }

  // Counts what stays whole, for the plan to say.
  std::optional<ZeroShard> ShardOf(ValueId parameter) {
    const ProgramValue& value = program_.value(parameter);
    std::optional<ZeroShard> shard = ChooseZeroShard(program_, value.dims);
    const bool is_whole = !shard || shard->axes != device_axes_;
    if (is_whole && !device_axes_.empty()) {
      ++num_undivided_;
      undivided_bytes_ += program_.LocalBytes(value);
    }
    return shard;
  }

  void ExplainZero() {
    if (options_.memory.zero_stage == 0 || device_axes_.empty()) return;
    constexpr std::string_view kParts[] = {"", "optimizer states", "gradients and optimizer states",
                                           "parameters, gradients and optimizer states"};
    std::string text =
        absl::StrCat("zero ", options_.memory.zero_stage, ": each of ", program_.mesh.world_size(),
                     " ranks holds its part of ", std::string(kParts[options_.memory.zero_stage]));
    if (num_undivided_ > 0) {
      absl::StrAppend(&text, ", but of ", num_undivided_, " parameters (",
                      FormatBytes(undivided_bytes_), ") with no dimension that ",
                      program_.mesh.world_size(), " divides, a larger part or all");
    }
    decisions_.push_back(std::move(text));
  }

  void AddStates() {
    const OptimizerSpec& optimizer = options_.optimizer;
    for (size_t i = 0; i < trained_parameters_.size(); ++i) {
      TrainedParameter& trained = trained_parameters_[i];
      const std::vector<ProgramDim> whole = program_.value(trained.parameter).dims;
      const std::vector<ProgramDim> dims =
          trained.shard ? ShardedDims(whole, *trained.shard) : whole;
      const bool is_f32 = program_.value(trained.parameter).dtype == DType::kF32;
      const auto add = [&](const std::string& what, const std::string& short_name) {
        return AddPersistent(PersistentKind::kState, absl::StrCat(short_name, i),
                             absl::StrCat(what, ":", trained.name), DType::kF32, dims);
      };
      trained.gradient = add("grad", "grad");
      gradients_[trained.parameter] = trained.gradient;
      if (trained.shard) {
        // Whole until the backward has been lowered.
        program_.value(trained.gradient).dims = whole;
        split_gradients_.emplace_back(trained.gradient, *trained.shard);
      }
      if (optimizer.kind == OptimizerKind::kAdamW) {
        trained.first = add("adamw.exp_avg", "m");
        trained.second = add("adamw.exp_avg_sq", "u");
      } else if (optimizer.momentum != 0) {
        trained.first = add("sgd.momentum", "m");
      }
      if (is_f32) continue;
      trained.master = add("master", "master");
      program_.persistents.back().init = StateInit::kCopyOfParameter;
      program_.persistents.back().init_from = trained.name;
    }
    learning_rate_ =
        AddPersistent(PersistentKind::kScalar, "learning_rate", "learning_rate", DType::kF32, {});
    step_ = AddPersistent(PersistentKind::kScalar, "step", "step", DType::kF32, {});
  }

  // A total over micro-steps and ranks starts at zero.
  ValueId ZeroTotal() {
    return builder_.Zeros(builder_.Typed(DType::kF32, {}, {.axes = all_axes_}));
  }

  // Adds the loss of one micro-step. Where it is no partial sum on an axis, each member holds all
  // of it and adds its share.
  void AddToTotal(ValueId total, ValueId loss) {
    const AxisList missing = Without(all_axes_, builder_.value(loss).partial.axes);
    if (!missing.empty()) {
      ProgramValue type = builder_.Like(loss);
      type.partial.axes = all_axes_;
      loss = builder_.Call("aten.mul.Tensor",
                           {loss, 1.0 / static_cast<double>(program_.mesh.size(missing))},
                           std::move(type));
    }
    builder_.Accumulate(total, loss);
  }

  void EmitLoss(ValueId total) {
    if (!device_axes_.empty()) total = builder_.AllReduce(total, device_axes_);
    builder_.Append(InstructionKind::kOutput, "loss", {total}, {});
  }

  static void Append(std::vector<Instruction> body, std::vector<Instruction>* section) {
    section->insert(section->end(), std::make_move_iterator(body.begin()),
                    std::make_move_iterator(body.end()));
  }

  void AppendMicroSteps(std::vector<Instruction> body, std::vector<Instruction>* section) {
    if (program_.mesh.accum == 1) {
      return Append(std::move(body), section);
    }
    Instruction loop;
    loop.kind = InstructionKind::kFor;
    loop.op = "accum";
    loop.attributes["count"] = SymInt(program_.mesh.accum);
    loop.body = std::move(body);
    section->push_back(std::move(loop));
  }

  absl::Status LowerStep() {
    std::vector<Instruction> section;
    builder_.SetBody(&section);
    for (const TrainedParameter& trained : trained_parameters_) {
      builder_.Update("aten.zero_.default", {trained.gradient});
    }
    const ValueId total = ZeroTotal();
    std::vector<Instruction> prologue;
    std::vector<Instruction> forward;
    const ForwardLowering::Inputs inputs{graph_,   factors_,      persistents_,
                                         trained_, options_.pads, options_.memory.ring_exchange,
                                         step_,    options_.seed};
    ForwardLowering lowering(inputs, builder_);
    BufferWrites writes(inputs, builder_);
    builder_.SetBody(&forward);
    ASSIGN_OR_RETURN(const ValueId loss, lowering.Lower(loss_, &prologue));
    RETURN_IF_ERROR(writes.LowerValues(lowering));
    for (const std::string& decision : lowering.decisions()) decisions_.push_back(decision);
    num_gathered_attentions_ = lowering.num_gathered_attentions();
    warnings_ = lowering.warnings();
    std::vector<Instruction> backward;
    builder_.SetBody(&backward);
    builder_.SetSource({});
    AddToTotal(total, loss);
    builder_.SetPhase(Phase::kBackward);
    BackwardLowering adjoints(builder_, gradients_, lowering.stopped());
    RETURN_IF_ERROR(adjoints.Append(forward, loss));
    builder_.SetBody(&section);
    writes.BeginStep();
    std::vector<Instruction> end;
    builder_.SetBody(&end);
    writes.EndMicroStep();
    // What is cut into tiles has to leave them where a write reads it; what is computed again in
    // the backward is not for writes, which read what the forward has made.
    const size_t num_ending = end.size();
    Append(std::move(end), &backward);
    Tile(adjoints.ranges(), forward, backward);
    end = {std::make_move_iterator(backward.end() - static_cast<int64_t>(num_ending)),
           std::make_move_iterator(backward.end())};
    backward.resize(backward.size() - num_ending);
    const Offload offload = options_.memory.offload;
    RecomputeSegments(program_, options_.memory.recompute, WeightOfKept(options_.memory), forward,
                      backward);
    RecomputeCheap(program_, forward, backward);
    OffloadKept(program_, offload, forward, backward);
    SinkZeros(backward);
    ExpandBlockAttention(builder_, forward);
    ExpandBlockAttention(builder_, backward);
    std::vector<Instruction> body = std::move(forward);
    Append(std::move(backward), &body);
    Append(std::move(end), &body);
    std::vector<Instruction> after;
    builder_.SetBody(&section);
    if (options_.memory.zero_stage == 1) {
      ScatterSums(builder_, split_gradients_, body, &section, &after);
    } else {
      ScatterGradients(builder_, split_gradients_, body);
    }
    Append(std::move(prologue), &section);
    AppendMicroSteps(std::move(body), &section);
    Append(std::move(after), &section);
    RETURN_IF_ERROR(writes.EndStep());
    CompleteStep(total);
    GatherParameters(builder_, split_parameters_, section);
    program_.sections.push_back({.name = "step", .body = std::move(section)});
    return absl::OkStatus();
  }

  // Of what waits on the host anyway. Not less than the second, so that nothing is kept that makes
  // no segment much shorter.
  static double WeightOfKept(const MemoryChoice& memory) {
    if (memory.offload != Offload::kEveryLayer) return 1;
    return memory.fine_cuts ? 0.02 : 0.1;
  }

  void Tile(std::vector<AdjointRange> adjoints, std::vector<Instruction>& forward,
            std::vector<Instruction>& backward) {
    const Tiling tiling = options_.memory.tiling;
    if (tiling != Tiling::kLoss && tiling != Tiling::kAll) return;
    const bool has_loss = TileLoss(builder_, /*tiles=*/0, adjoints, forward, backward) > 1;
    const int64_t num_stretches =
        tiling == Tiling::kAll ? TileStretches(builder_, adjoints, forward, backward) : 0;
    if (!has_loss && num_stretches == 0) return;
    decisions_.push_back(absl::StrCat(
        has_loss ? "the head and the loss" : "", has_loss && num_stretches > 0 ? ", and " : "",
        num_stretches > 0 ? absl::StrCat(num_stretches, " stretches between attentions") : "",
        " run in ", program_.mesh.tile, " tiles of a rank's sequence"));
  }

  void CompleteStep(ValueId total) {
    const UpdateOptions options{.optimizer = options_.optimizer,
                                .clip_grad_norm = options_.clip_grad_norm,
                                .learning_rate = learning_rate_,
                                .step = step_};
    ParameterUpdate update(builder_, trained_parameters_, options);
    builder_.SetPhase(Phase::kReduce);
    update.ReduceGradients();
    EmitLoss(total);
    builder_.SetPhase(Phase::kOptimizer);
    update.ClipAndUpdate();
  }

  absl::Status LowerEval() {
    std::vector<Instruction> section;
    builder_.SetBody(&section);
    builder_.SetPhase(Phase::kForward);
    builder_.SetSource({});
    const ValueId total = ZeroTotal();
    std::vector<Instruction> prologue;
    std::vector<Instruction> body;
    ForwardLowering lowering(
        {graph_, factors_, persistents_, trained_, options_.pads, options_.memory.ring_exchange,
         step_, options_.seed, /*is_training=*/false},
        builder_);
    builder_.SetBody(&body);
    ASSIGN_OR_RETURN(const ValueId loss, lowering.Lower(loss_, &prologue));
    builder_.SetSource({});
    std::vector<Instruction> end;
    builder_.SetBody(&end);
    AddToTotal(total, loss);
    std::vector<AdjointRange> no_adjoints;
    if (program_.mesh.tile > 1) {
      TileLoss(builder_, program_.mesh.tile, no_adjoints, body, end);
    }
    ExpandBlockAttention(builder_, body);
    Append(std::move(end), &body);
    Append(std::move(prologue), &section);
    AppendMicroSteps(std::move(body), &section);
    builder_.SetBody(&section);
    EmitLoss(total);
    GatherParameters(builder_, split_parameters_, section);
    program_.sections.push_back({.name = "eval", .body = std::move(section)});
    return absl::OkStatus();
  }

  const Graph& graph_;
  GraphFactors& factors_;
  const LoweringOptions& options_;
  Program program_;
  ProgramBuilder builder_;
  AxisList all_axes_;
  AxisList device_axes_;
  ValueId loss_;
  ValueId learning_rate_;
  ValueId step_;
  std::map<ValueId, ValueId> persistents_;
  std::map<ValueId, ValueId> gradients_;
  std::set<ValueId> trained_;
  std::vector<TrainedParameter> trained_parameters_;
  SplitParameters split_parameters_;  // stage 3 of ZeRO
  SplitGradients split_gradients_;    // all stages
  int64_t num_undivided_ = 0;         // parameters that all ranks together do not divide
  int64_t undivided_bytes_ = 0;
  std::vector<std::string> decisions_;
  std::vector<std::string> warnings_;
  int64_t num_gathered_attentions_ = 0;
};

}  // namespace

absl::StatusOr<LoweredProgram> LowerToProgram(const Graph& graph, GraphFactors& factors,
                                              const LoweringOptions& options) {
  return ProgramLowering(graph, factors, options).Run();
}

}  // namespace autosp
