// Emits the instructions of one node at its placement.
#include <algorithm>
#include <cmath>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/lowering/forward_lowering.h"
#include "compiler/lowering/infinite_values.h"
#include "compiler/lowering/loss_output.h"
#include "compiler/lowering/padded_domain.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/rules/token_factors.h"

namespace autosp {
namespace {

constexpr std::string_view kCrossEntropy = "autosp.cross_entropy";  // and _sum

IntList ToIntList(const std::vector<int64_t>& values) { return {values.begin(), values.end()}; }

// What a sum over operands does not see: zero, or for a histogram a number below its first bin.
Argument NeutralElement(const Graph& graph, const Node& node) {
  if (node.op == "aten.histc.default") {
    const double min = NumberArgument(node.args, 2).value_or(0);
    return min - std::abs(min) - 1;
  }
  const bool is_flag = graph.type(OperandsOf(node)[0]).dtype == DType::kBool;
  return is_flag ? Argument(false) : Argument(SymInt(0));
}

// Parts of a sum that are rounded to a half type add up to one that has lost what each of them
// lost.
bool RoundsToHalf(const Graph& graph, const Node& node) {
  if (node.op != "aten.to.dtype") return false;
  const DType from = graph.type(OperandsOf(node)[0]).dtype;
  return IsHalf(graph.type(node.outputs[0]).dtype) && IsFloating(from) && !IsHalf(from);
}

}  // namespace

ForwardLowering::ForwardLowering(const Inputs& inputs, ProgramBuilder& builder)
    : in_(inputs),
      builder_(builder),
      definer_(DefiningNodes(inputs.graph)),
      may_be_infinite_(ValuesOfInfinities(inputs.graph)) {
  batch_axes_ = NonTrivial(mesh(), {Axis::kAccum, Axis::kDp});
  sp_axes_ = NonTrivial(mesh(), {Axis::kRing, Axis::kUlysses});
  if (in_.factors.batch >= 0) FindBatch();
  FindTokens();
  attends_in_ring_ =
      mesh().ring > 1 &&
      std::ranges::any_of(in_.graph.nodes, [this](const Node& node) { return IsBlockable(node); });
  is_seq_zigzag_ = ZigzagPays();
  versions_.resize(in_.graph.values.size());
  prologue_versions_.resize(in_.graph.values.size());
  MarkLazyValues();
  MarkValuesOfParameters();
}

// A batch that the model cuts into groups is split by whole groups, if ranks divide their number;
// else as it stands, and what knows of groups is computed of the whole batch.
void ForwardLowering::FindBatch() {
  const FactorTable& table = in_.factors.table;
  for (FactorVar factor : table.Resolve(FactorDim{in_.factors.batch})) {
    batch_run_.push_back(factor);
    if (Size(batch_run_) % mesh().size(batch_axes_) == 0) break;
  }
  batch_ = batch_run_[0];
}

// Patches in rows and columns are split by rows, if ranks divide them: those of the image, before
// and after, are the same. A ring splits all tokens as one.
void ForwardLowering::FindTokens() {
  TokenFactors tokens = TokenFactorsOf(in_.graph, in_.factors);
  spread_.insert(tokens.main.begin(), tokens.main.end());
  for (const FactorRun& run : tokens.others) spread_.insert(run.begin(), run.end());
  if (batch_ >= 0) spread_.insert(batch_);
  seq_run_ = std::move(tokens.main);
  token_runs_ = std::move(tokens.others);
  const auto shorten = [this](FactorRun& run) {
    for (size_t length = 1; length < run.size(); ++length) {
      const FactorRun rows(run.begin(), run.begin() + static_cast<int64_t>(length));
      if (Size(rows) % mesh().size(sp_axes_) != 0) continue;
      run = rows;
      return;
    }
  };
  if (mesh().ring == 1) shorten(seq_run_);
  for (FactorRun& run : token_runs_) shorten(run);
}

std::vector<bool> ForwardLowering::NodesFor(const std::vector<ValueId>& values) const {
  std::vector<bool> is_needed(in_.graph.nodes.size(), false);
  const auto need = [&](ValueId value) {
    const bool is_known = definer_[value.index] < 0 || !versions_[value.index].empty();
    if (!is_known) is_needed[definer_[value.index]] = true;
  };
  std::ranges::for_each(values, need);
  for (size_t i = is_needed.size(); i-- > 0;) {
    if (is_needed[i]) std::ranges::for_each(OperandsOf(in_.graph.nodes[i]), need);
  }
  return is_needed;
}

bool ForwardLowering::IsLazy(const Node& node) const {
  return std::ranges::all_of(node.outputs, [this](ValueId id) { return bool{is_lazy_[id.index]}; });
}

absl::StatusOr<ValueId> ForwardLowering::Lower(ValueId output, std::vector<Instruction>* prologue) {
  const std::vector<ValueId> results(
      in_.graph.outputs.begin(),
      in_.graph.outputs.begin() + static_cast<int64_t>(in_.graph.NumResults()));
  const std::vector<bool> is_of_results = NodesFor(results);
  const std::vector<bool> is_needed = NodesFor(in_.graph.outputs);
  is_late_.assign(in_.graph.values.size(), false);
  for (size_t i = 0; i < in_.graph.nodes.size(); ++i) {
    const Node& node = in_.graph.nodes[i];
    // Validation writes no buffers.
    if (IsLazy(node) || !(in_.is_training ? is_needed : is_of_results)[i]) continue;
    if (!is_of_results[i] && WaitsForSum(node)) {
      for (const ValueId id : node.outputs) is_late_[id.index] = true;
      continue;
    }
    RETURN_IF_ERROR(LowerNode(i, ChoosePlacement(i, RolesOf(i))));
  }
  if (is_lazy_[output.index]) {
    return HasNothingToLearn(in_.graph, output);
  }
  if (in_.graph.type(output).dtype == DType::kF64) {
    return InvalidArgument(
        "the loss ", NameOfLoss(in_.graph, output),
        " is float64, and losses are summed in float32: return loss.float() from "
        "the model");
  }
  TakePrologue(prologue);
  const auto& versions = versions_[output.index];
  if (versions.empty() || versions.front().placement.run.size() > 0) {
    return InvalidArgument("the loss ", NameOfLoss(in_.graph, output),
                           " has a number for each token or "
                           "sequence, and training needs one number: take its mean in the model");
  }
  return versions.front().id;
}

// Of nodes that are lowered for each other, an error names the one where it failed.
absl::Status ForwardLowering::LowerNode(size_t node_index, const Placement& placement,
                                        std::optional<int64_t> pad) {
  lowering_.push_back(node_index);
  const absl::Status status = LowerOne(node_index, placement, pad);
  lowering_.pop_back();
  if (status.ok() || is_told_) return status;
  is_told_ = true;
  return WithContext(status, Describe(in_.graph, in_.graph.nodes[node_index]));
}

absl::Status ForwardLowering::LowerOne(size_t node_index, const Placement& placement,
                                       std::optional<int64_t> pad) {
  const Node& node = in_.graph.nodes[node_index];
  const FactorRoles roles = RolesOf(node_index);
  Source old_source = builder_.SetSource(node.source);
  Placement at = placement;
  if (roles.Reduces(at.run)) {
    at.partial.axes = sp_axes_;
  }
  const bool batch_reduced = at.batch_split && roles.Reduces(batch_run_);
  if (batch_reduced) at.partial.axes = Union(at.partial.axes, batch_axes_);
  if (!roles.max.empty()) at.partial.reduction = Reduction::kMax;
  Partial carried;
  ASSIGN_OR_RETURN(const std::vector<ValueId> operands,
                   Operands(node_index, roles, placement, pad, &carried));
  if (!carried.axes.empty()) {
    at.partial.axes = Union(at.partial.axes, carried.axes);
    at.partial.reduction = carried.reduction;
  }
  ASSIGN_OR_RETURN(const std::vector<ValueId> results,
                   EmitNode(node_index, operands, placement, at.partial));
  builder_.SetSource(std::move(old_source));
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const ValueId output = node.outputs[i];
    ValueId result = WithoutInfinity(node, output, results[i], placement);
    if (!needs_grad_[output.index]) {
      result = ApartFrom(operands, result);
      stopped_.insert(result);
    }
    Placement version = Normalized(output, at);
    AddVersion(output, {.placement = version, .pad = pad, .id = result});
  }
  return absl::OkStatus();
}

// What nothing keeps an infinity out of by its operands is zero in padding.
ValueId ForwardLowering::WithoutInfinity(const Node& node, ValueId output, ValueId result,
                                         const Placement& placement) {
  const FactorRun run = Normalized(output, placement).run;
  const bool is_exposed = IsPadded(run) && !is_lazy_[output.index] &&
                          MayGiveInfinity(in_.graph, node, may_be_infinite_);
  return is_exposed ? MaskPadding(result, Dims(output), run, SymInt(0)) : result;
}

// A view that shows all of its operand is that operand, whose own gradient does not end here.
ValueId ForwardLowering::ApartFrom(const std::vector<ValueId>& operands, ValueId result) {
  const bool is_operand = std::ranges::count(operands, result) > 0;
  if (!is_operand || !IsFloating(builder_.value(result).dtype)) return result;
  ProgramValue type = builder_.Like(result);
  type.strides = builder_.Shape(result).strides;
  type.offset = builder_.value(result).offset;
  return builder_.Alias("aten.alias.default", {result}, result, std::move(type));
}

// The axes over which ranks hold shards of what the node reads or makes: a partial sum over them
// beside shards (x.sum() * x) would be other parts of other shards.
AxisList ForwardLowering::AxesThatSplit(const Node& node, const Placement& placement) const {
  std::vector<ValueId> values = OperandsOf(node);
  values.insert(values.end(), node.outputs.begin(), node.outputs.end());
  const auto any_holds = [&](const FactorRun& run) {
    return std::ranges::any_of(values, [&](ValueId id) { return HoldsPart(Dims(id), run); });
  };
  AxisList axes;
  const bool has_run = !placement.run.empty() && any_holds(placement.run);
  const bool has_ring_run = !placement.ring_run.empty() && any_holds(placement.ring_run);
  if (has_run || has_ring_run) axes = sp_axes_;
  const bool has_batch =
      std::ranges::any_of(values, [this](ValueId id) { return HasBatch(Dims(id)); });
  if (placement.batch_split && has_batch) axes = Union(axes, batch_axes_);
  return axes;
}

// What the padding of an operand shall hold where it is made for the node: `pad`, but for what the
// node asks for by itself.
std::optional<int64_t> ForwardLowering::PadToAskFor(const Node& node, size_t operand,
                                                    const Placement& want,
                                                    std::optional<int64_t> pad) const {
  const std::optional<Argument> beside =
      NumberBesideInfinity(in_.graph, node, operand, may_be_infinite_);
  if (beside && std::holds_alternative<bool>(*beside)) return std::get<bool>(*beside) ? 1 : 0;
  // Padded targets are ignored.
  const bool is_loss = node.op.starts_with(kCrossEntropy);
  if (is_loss) return operand == 1 ? std::get<SymInt>(node.args[2]).value : pad;
  // As in MoveRun: a divisor in the padding must not be 0. Integers are indices elsewhere, and keep
  // the padding that their feed has.
  const bool divides =
      operand == 1 && (node.op == "aten.div.Tensor" || node.op == "aten.div.Tensor_mode");
  const bool is_divisor = !is_lazy_[node.outputs[0].index] && !want.run.empty() &&
                          (divides || IsFloating(in_.graph.type(OperandsOf(node)[operand]).dtype));
  return is_divisor ? 1 : pad;
}

// Whether the value is a view of one that lacks the run, whose padding so holds what tokens hold.
bool ForwardLowering::IsStretched(ValueId value, const FactorRun& run) const {
  while (DimOf(Dims(value), run) >= 0) {
    const int32_t definer = definer_[value.index];
    if (definer < 0) return false;
    const Node& node = in_.graph.nodes[definer];
    const OpRule* rule = FindOpRule(node.op);
    if (rule == nullptr || rule->layout != ResultLayout::kView) return false;
    value = OperandsOf(node)[0];
  }
  return true;
}

const PaddingSigns& ForwardLowering::SignsInPaddingOf(const FactorRun& run) {
  const auto [found, is_new] = signs_.try_emplace(run);
  if (is_new) {
    const auto is_padded = [&](ValueId value) { return DimOf(Dims(value), run) >= 0; };
    found->second = SignsInPadding(in_.graph, is_padded);
  }
  return found->second;
}

// What is put into the padding of an operand that the node would make no number of.
std::optional<Argument> ForwardLowering::NumberForPadding(const Node& node, size_t operand,
                                                          const FactorRun& run) {
  if (is_lazy_[node.outputs[0].index] && !LooksUpClasses(in_.graph, node)) return std::nullopt;
  const std::optional<Argument> inside = NumberInDomain(
      in_.graph, node, operand, [&]() -> const PaddingSigns& { return SignsInPaddingOf(run); });
  if (inside) return inside;
  // What is made of inputs alone was asked for with the right padding. Attention is right with what
  // it has stretched over padding, too.
  const ValueId value = OperandsOf(node)[operand];
  const bool is_mask_of_inputs =
      is_lazy_[value.index] && in_.graph.type(value).dtype == DType::kBool;
  if (is_mask_of_inputs && (IsAttention(node) || !IsStretched(value, run))) return std::nullopt;
  return NumberBesideInfinity(in_.graph, node, operand, may_be_infinite_);
}

absl::StatusOr<std::vector<ValueId>> ForwardLowering::Operands(size_t node_index,
                                                               const FactorRoles& roles,
                                                               const Placement& placement,
                                                               std::optional<int64_t> pad,
                                                               Partial* partial) {
  const Node& node = in_.graph.nodes[node_index];
  const OpRule* rule = FindOpRule(node.op);
  const bool is_linear = rule != nullptr && IsLinear(*rule, in_.graph, node);
  const std::vector<ValueId> values = OperandsOf(node);
  std::vector<ValueId> result;
  if (const AxisList axes = AxesOfAddedSums(node); !axes.empty()) {
    *partial = {.axes = axes};
    return AddedSums(node, axes);
  }
  // A product is linear in each factor.
  const bool carries_second = node.op == "aten.mul.Tensor" && values.size() == 2 &&
                              PlacementOfSum(values[0]) == nullptr &&
                              PlacementOfSum(values[1]) != nullptr;
  const size_t carrier = carries_second ? 1 : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    Placement want{.batch_split = placement.batch_split,
                   .run = placement.run,
                   .ring_run = placement.ring_run,
                   .partial = {}};
    // Documents are read by global index, of keys that have come a long way too.
    if (node.op == kMaskedAttention && i > 2) {
      want.run.clear();
      want.ring_run.clear();
    }
    want = Normalized(values[i], std::move(want));
    const auto& have = versions_[values[i].index];
    // A linear op maps partial sums of one operand to partial sums; any other needs the sum.
    const bool may_carry = i == carrier && is_linear && have.size() == 1 && !in_prologue_ &&
                           have[0].placement.run == want.run &&
                           have[0].placement.batch_split == want.batch_split &&
                           have[0].placement.partial.reduction == Reduction::kSum;
    const AxisList sums = may_carry ? have[0].placement.partial.axes : AxisList{};
    // What is rounded is summed over ranks first; over micro-steps it is known only after them.
    const bool rounds = RoundsToHalf(in_.graph, node);
    const bool carries = !rounds || Contains(sums, Axis::kAccum);
    if (!sums.empty() && carries && Without(sums, AxesThatSplit(node, placement)) == sums) {
      *partial = have[0].placement.partial;
      const AxisList ranks = rounds ? Without(sums, {Axis::kAccum}) : AxisList{};
      partial->axes = Without(sums, ranks);
      const ValueId sum = ranks.empty() ? have[0].id : builder_.AllReduce(have[0].id, ranks);
      const bool adds_padding = roles.Reduces(want.run) && IsPadded(want.run);
      result.push_back(adds_padding ? MaskPadding(sum, Dims(values[i]), want.run,
                                                  NeutralElement(in_.graph, node))
                                    : sum);
      continue;
    }
    ASSIGN_OR_RETURN(ValueId id, Get(values[i], want, PadToAskFor(node, i, want, pad)));
    if (IsPadded(want.run)) {
      const bool is_loss = node.op.starts_with(kCrossEntropy);
      const bool masks = !is_loss && roles.Reduces(want.run);
      if (masks) id = MaskPadding(id, Dims(values[i]), want.run, NeutralElement(in_.graph, node));
      const std::optional<Argument> inside = NumberForPadding(node, i, want.run);
      if (inside) id = MaskPadding(id, Dims(values[i]), want.run, *inside);
    }
    result.push_back(id);
  }
  return result;
}

// Fills the padding of a split run before a sum over it. Requires: the run is split in `operand`.
ValueId ForwardLowering::MaskPadding(ValueId operand, const FactorDims& dims, const FactorRun& run,
                                     const Argument& neutral) {
  // The run in a dimension of its own.
  FactorDims iso;
  for (const FactorDim& each : Isolate(dims, {run})) {
    const bool holds = each.size() > run.size() && std::equal(run.begin(), run.end(), each.begin());
    if (holds) iso.emplace_back(run.begin(), run.end());
    iso.emplace_back(each.begin() + static_cast<int64_t>(holds ? run.size() : 0), each.end());
  }
  const int64_t dim = DimOf(iso, run);
  Placement placement;
  placement.run = run;
  for (const ProgramDim& each : builder_.value(operand).dims) {
    for (const DimFactor& factor : each) {
      const bool is_batch = batch_ >= 0 && factor.factor == RunFactor(batch_run_).factor;
      if (is_batch) placement.batch_split = !factor.axes.empty();
    }
  }
  const FactorDim run_dim(run.begin(), run.end());
  const ValueId indices =
      builder_.Define("index", builder_.Typed(DType::kI64, MakeDims({run_dim}, placement)));
  const FactorId factor = RunFactor(run).factor;
  Instruction& instruction =
      builder_.Append(InstructionKind::kCall, "autosp.shard_indices", {}, {indices});
  instruction.attributes["factor"] = builder_.program().factors[factor.index].name;
  instruction.attributes["axes"] = AxisListName(sp_axes_);
  ValueId valid = builder_.Call("aten.lt.Scalar", {indices, SymInt(Size(run))},
                                builder_.Typed(DType::kBool, MakeDims({run_dim}, placement)));
  FactorDims broadcast(iso.size());
  broadcast[dim] = run_dim;
  valid = builder_.View(valid, MakeDims(broadcast, placement));
  const ValueId value = builder_.View(operand, MakeDims(iso, placement));
  ProgramValue type = builder_.Like(value);
  const ValueId masked =
      builder_.Call("aten.where.ScalarOther", {valid, value, neutral}, std::move(type));
  return builder_.View(masked, MakeDims(dims, placement));
}

absl::StatusOr<std::vector<ValueId>> ForwardLowering::EmitNode(size_t node_index,
                                                               const std::vector<ValueId>& operands,
                                                               const Placement& placement,
                                                               const Partial& partial) {
  const Node& node = in_.graph.nodes[node_index];
  const OpRule* rule = FindOpRule(node.op);
  if (IsAttention(node)) {
    ASSIGN_OR_RETURN(const ValueId result, EmitAttention(node_index, operands, placement));
    return std::vector<ValueId>{result};
  }
  if (node.op == kDropout) return std::vector<ValueId>{EmitDropout(node, operands[0])};
  if (node.op == kUniform) return std::vector<ValueId>{EmitUniform(node, operands[0])};
  if (node.op == kAllTokens) {
    return std::vector<ValueId>{
        builder_.View(operands[0], MakeDims(Dims(node.outputs[0]), placement))};
  }
  if (TokenWindowOf(in_.graph, node)) {
    return std::vector<ValueId>{EmitWindow(node_index, operands, placement, partial)};
  }
  const bool is_view = rule != nullptr && (rule->layout == ResultLayout::kView ||
                                           rule->layout == ResultLayout::kMaybeView);
  if (is_view) return EmitView(node_index, operands[0], placement);
  std::vector<ValueId> inputs = operands;
  StretchHalves(node, placement, inputs);
  std::vector<Argument> args = node.args;
  size_t next = 0;
  for (Argument& argument : args) {
    ForEachValue(argument, [&](ValueId& id) { id = inputs[next++]; });
  }
  if (node.op.starts_with(kCrossEntropy)) LayOutForCrossEntropy(args);
  ShareAddedNumber(node, partial, args);
  std::vector<ValueId> results;
  for (ValueId output : node.outputs) {
    ProgramValue type =
        builder_.Typed(in_.graph.type(output).dtype, MakeDims(Dims(output), placement), partial);
    // A result that keeps what others sum over (the loss of each token) is split there, not
    // partial.
    type.partial.axes = Without(type.partial.axes, ShardAxes(type));
    if (rule != nullptr && rule->layout == ResultLayout::kElementwise) {
      std::vector<StridedShape> shapes;
      for (ValueId input : inputs) shapes.push_back(builder_.Shape(input));
      const Sizes sizes = builder_.program().LocalSizes(type);
      type.strides = ElementwiseStrides(sizes, shapes);
      if (type.strides == ContiguousStrides(sizes)) type.strides.clear();
    }
    results.push_back(builder_.Define("v", std::move(type)));
  }
  if (const std::optional<size_t> sizes = SizeArgument(node.op)) {
    args[*sizes] = ToIntList(builder_.LocalSizes(results[0]));
  }
  builder_.Append(InstructionKind::kCall, node.op, std::move(args), results);
  return results;
}

// Of an operand of a half type that is stretched over tokens or the batch, the derivative of the op
// would sum the gradient and round it on each rank. It gets the operand stretched, or in fp32 where
// that is the result's type, so that the sum is one of ours (BackwardLowering::SumTo), over all
// ranks before it is rounded.
void ForwardLowering::StretchHalves(const Node& node, const Placement& placement,
                                    std::vector<ValueId>& operands) {
  const OpRule* rule = FindOpRule(node.op);
  const bool sums_inside = rule != nullptr && rule->layout == ResultLayout::kElementwise &&
                           rule->derivative != Derivative::kExplicit && node.outputs.size() == 1;
  if (!sums_inside || !needs_grad_[node.outputs[0].index]) return;
  const std::vector<ValueId> values = OperandsOf(node);
  const FactorDims dims = Dims(node.outputs[0]);
  const DType dtype = in_.graph.type(node.outputs[0]).dtype;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool is_half = IsHalf(builder_.value(operands[i]).dtype);
    if (!is_half || !needs_grad_[values[i].index] || !IsSpreadOver(values[i], dims)) continue;
    operands[i] = IsHalf(dtype) ? builder_.Expand(operands[i], MakeDims(dims, placement))
                                : builder_.Cast(operands[i], dtype);
  }
}

// Whether a value lacks tokens or the batch where `dims`, to which it is stretched, have them.
bool ForwardLowering::IsSpreadOver(ValueId value, const FactorDims& dims) const {
  const FactorDims own = Dims(value);
  const size_t added = dims.size() - own.size();
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool has_own = i >= added && !own[i - added].empty();
    const bool is_spread =
        std::ranges::any_of(dims[i], [this](FactorVar factor) { return spread_.contains(factor); });
    if (is_spread && !has_own) return true;
  }
  return false;
}

// The kernel walks over rows of classes, and over targets and weights one after the other. Rows may
// stand apart, as those of a slice do: logits are large, and not copied for that.
void ForwardLowering::LayOutForCrossEntropy(std::vector<Argument>& args) {
  const ValueId logits = TensorArgument(args, 0);
  const StridedShape shape = builder_.Shape(logits);
  if (shape.sizes.back() > 1 && shape.strides.back() != 1) args[0] = builder_.Contiguous(logits);
  for (size_t i = 1; i < args.size(); ++i) {
    const ValueId operand = TensorArgument(args, i);
    if (operand.valid()) args[i] = builder_.Contiguous(operand);
  }
}

// The op reads where its elements stand in the whole from the type of its result.
ValueId ForwardLowering::EmitDropout(const Node& node, ValueId operand) {
  const bool always = FlagArgument(node.args, 3).value_or(false);
  if (!in_.is_training && !always) return operand;
  const ValueId result =
      builder_.Call("autosp.dropout", {operand, in_.step}, builder_.Like(operand));
  builder_.body().back().attributes = {
      {"node", node.args[2]}, {"p", node.args[1]}, {"seed", SymInt(in_.seed)}};
  return result;
}

ValueId ForwardLowering::EmitUniform(const Node& node, ValueId like) {
  ProgramValue type = builder_.Like(like);
  type.dtype = DType::kF32;
  type.strides.clear();
  const ValueId result = builder_.Call(std::string(kUniform), {like, in_.step}, std::move(type));
  builder_.body().back().attributes = {{"node", node.args[1]}, {"seed", SymInt(in_.seed)}};
  return result;
}

std::vector<ValueId> ForwardLowering::EmitView(size_t node_index, ValueId operand,
                                               const Placement& placement) {
  const Node& node = in_.graph.nodes[node_index];
  const OpContext context(in_.graph, node, in_.factors.table, in_.factors.values);
  const auto rank = static_cast<int64_t>(builder_.value(operand).dims.size());
  const std::vector<ProgramDim> dims = MakeDims(Dims(node.outputs[0]), placement);
  const std::string& op = node.op;
  if (op == "aten.contiguous.default") return {builder_.Contiguous(operand)};
  if (op == "aten.expand.default") return {builder_.Expand(operand, dims)};
  if (op == "aten.transpose.int" || op == "aten.t.default" || op == "aten.permute.default") {
    std::vector<int64_t> order(rank);
    for (int64_t i = 0; i < rank; ++i) order[i] = i;
    if (op == "aten.permute.default") {
      order = context.DimList(1, rank);
    } else if (op == "aten.t.default") {
      std::ranges::reverse(order);
    } else {
      std::swap(order[context.Dim(1, rank)], order[context.Dim(2, rank)]);
    }
    return {builder_.Permute(operand, order)};
  }
  if (op == "aten.select.int") {
    const int64_t dim = context.Dim(1, rank);
    int64_t index = context.Int(2).value_or(0);
    if (index < 0) index += builder_.LocalSizes(operand)[dim];
    return {builder_.Select(operand, dim, index)};
  }
  if (op == "aten.slice.Tensor") {
    const int64_t dim = context.Dim(1, rank);
    const int64_t size = builder_.LocalSizes(operand)[dim];
    int64_t start = context.Int(2).value_or(0);
    if (start < 0) start = std::max<int64_t>(0, start + size);
    return {builder_.Slice(operand, dim, dims[dim], {.base = start, .terms = {}},
                           context.Int(4).value_or(1))};
  }
  const bool is_unbind = op == "aten.unbind.int";
  const bool is_split = op == "aten.split.Tensor" || op == "aten.split_with_sizes.default" ||
                        op == "aten.chunk.default";
  if (!is_split && !is_unbind) return {builder_.View(operand, dims)};
  const int64_t dim = context.Dim(is_unbind ? 1 : 2, rank);
  std::vector<ValueId> parts;
  int64_t start = 0;
  for (ValueId output : node.outputs) {
    if (is_unbind) {
      parts.push_back(builder_.Select(operand, dim, start++));
      continue;
    }
    const ProgramDim part = MakeDims(Dims(output), placement)[dim];
    parts.push_back(builder_.Slice(operand, dim, part, {.base = start, .terms = {}}));
    start += builder_.program().LocalSize(part);
  }
  return parts;
}

}  // namespace autosp
