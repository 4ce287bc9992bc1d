// Brings a value of the graph to the placement that a use wants.
#include <algorithm>

#include "common/check.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/lowering/forward_lowering.h"

namespace autosp {

int64_t ForwardLowering::DimOf(const FactorDims& dims, const FactorRun& run) const {
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!std::ranges::search(dims[i], run).empty()) return static_cast<int64_t>(i);
  }
  return -1;
}

bool ForwardLowering::IsZigzag(const FactorRun& run) const {
  return is_seq_zigzag_ && !run.empty() && run == seq_run_;
}

// Two blocks for each rank make causal attention the same work for all, and nothing else better.
// Few pieces of tokens would be padded to twice the number of shards, which costs all work: those
// that ranks divide are left as they are. (Others are padded for all axes, as zigzag has it, also
// where a shard is that of the ring alone.)
bool ForwardLowering::ZigzagPays() const {
  if (!attends_in_ring_) return false;
  const int64_t shards = mesh().size(sp_axes_);
  const int64_t size = Size(seq_run_);
  const int64_t padded = (size + 2 * shards - 1) / (2 * shards) * 2 * shards;
  return size % shards != 0 || padded * 8 <= size * 9;
}

bool ForwardLowering::IsPadded(const FactorRun& run) const {
  if (run.empty()) return false;
  // Each of the two blocks of a zigzag shard has the same size.
  const int64_t shards = mesh().size(sp_axes_) * (IsZigzag(run) ? 2 : 1);
  return Size(run) % shards != 0;
}

AxisList ForwardLowering::RunAxes(const Placement& placement) const {
  return placement.ring_run.empty() ? sp_axes_ : Without(sp_axes_, {Axis::kRing});
}

bool ForwardLowering::HasBatch(const FactorDims& dims) const {
  return batch_ >= 0 && DimOf(dims, batch_run_) >= 0;
}

FactorDims ForwardLowering::Isolate(const FactorDims& dims,
                                    const std::vector<FactorRun>& runs) const {
  FactorDims result;
  for (const FactorDim& dim : dims) {
    result.push_back({});
    for (auto place = dim.begin(); place != dim.end(); ++place) {
      const bool begins = std::ranges::any_of(runs, [&](const FactorRun& run) {
        return !run.empty() && static_cast<size_t>(dim.end() - place) >= run.size() &&
               std::equal(run.begin(), run.end(), place);
      });
      if (begins && !result.back().empty()) result.push_back({});
      result.back().push_back(*place);
    }
  }
  return result;
}

DimFactor ForwardLowering::RunFactor(const FactorRun& run) {
  auto [found, is_new] = program_factors_.try_emplace(run);
  if (is_new) {
    Program& program = builder_.program();
    Factor factor;
    if (run == seq_run_) {
      factor.name = "seq";
    } else if (run == batch_run_) {
      factor.name = "batch";
    } else {
      factor.name = "split" + std::to_string(program.factors.size());
    }
    factor.size = Size(run);
    if (IsZigzag(run)) factor.layout = Layout::kZigzag;
    // The two sections of a program share its factors.
    for (size_t i = 0; i < program.factors.size(); ++i) {
      if (program.factors[i].name == factor.name) {
        found->second = FactorId{static_cast<int32_t>(i)};
        return {.factor = found->second};
      }
    }
    found->second = FactorId{static_cast<int32_t>(program.factors.size())};
    program.factors.push_back(factor);
  }
  return {.factor = found->second};
}

// Tokens are one factor, but where shards are cut out of their midst (columns of patches).
bool ForwardLowering::CutsTokens(const FactorDim& dim, size_t from, const FactorRun& run) const {
  if (run.empty()) return false;
  const auto begin = dim.begin() + static_cast<int64_t>(from);
  const auto end = begin + static_cast<int64_t>(seq_run_.size());
  const auto found = std::search(begin, dim.end(), run.begin(), run.end());
  return found < end && found != dim.end();
}

std::vector<ProgramDim> ForwardLowering::MakeDims(const FactorDims& dims,
                                                  const Placement& placement, bool padded_run) {
  std::vector<ProgramDim> result;
  for (const FactorDim& dim : dims) {
    ProgramDim out;
    for (size_t i = 0; i < dim.size();) {
      const auto starts_with = [&](const FactorRun& run) {
        return !run.empty() && dim.size() - i >= run.size() &&
               std::equal(run.begin(), run.end(), dim.begin() + static_cast<int64_t>(i));
      };
      if (starts_with(placement.ring_run)) {
        DimFactor factor = RunFactor(placement.ring_run);
        factor.axes = {Axis::kRing};
        out.push_back(factor);
        i += placement.ring_run.size();
      } else if (starts_with(placement.run)) {
        DimFactor factor = RunFactor(placement.run);
        factor.axes = RunAxes(placement);
        factor.padded = padded_run;
        out.push_back(factor);
        i += placement.run.size();
      } else if (starts_with(batch_run_)) {
        DimFactor factor = RunFactor(batch_run_);
        if (placement.batch_split) factor.axes = batch_axes_;
        out.push_back(factor);
        i += batch_run_.size();
      } else if (starts_with(seq_run_) && !CutsTokens(dim, i, placement.run) &&
                 !CutsTokens(dim, i, placement.ring_run)) {
        out.push_back(RunFactor(seq_run_));
        i += seq_run_.size();
      } else {
        const int64_t size = in_.factors.table.Size(dim[i]);
        const bool merge = !out.empty() && !out.back().factor.valid();
        if (merge) {
          out.back().size *= size;
        } else if (size != 1) {
          out.push_back({.factor = {}, .size = size});
        }
        ++i;
      }
    }
    result.push_back(out);
  }
  return result;
}

Placement ForwardLowering::Normalized(ValueId value, Placement placement) const {
  const FactorDims dims = Dims(value);
  if (batch_axes_.empty()) {
    placement.batch_split = true;
  } else if (!HasBatch(dims)) {
    placement.batch_split = !HoldsPart(dims, batch_run_);
  }
  if (sp_axes_.empty() || placement.run.empty() || DimOf(dims, placement.run) < 0) {
    placement.run.clear();
  }
  if (placement.ring_run.empty() || DimOf(dims, placement.ring_run) < 0) {
    placement.ring_run.clear();
  }
  return placement;
}

const ForwardLowering::Version* ForwardLowering::FindVersion(ValueId value,
                                                             const Placement& placement,
                                                             std::optional<int64_t> pad) const {
  const auto& all = in_prologue_ ? prologue_versions_ : versions_;
  for (const Version& version : all[value.index]) {
    const bool pad_matters = IsPadded(placement.run) && is_lazy_[value.index];
    if (version.placement == placement && (!pad_matters || version.pad == pad)) return &version;
  }
  return nullptr;
}

void ForwardLowering::AddVersion(ValueId value, Version version) {
  (in_prologue_ ? prologue_versions_ : versions_)[value.index].push_back(std::move(version));
}

absl::StatusOr<ValueId> ForwardLowering::Get(ValueId value, Placement want,
                                             std::optional<int64_t> pad) {
  want = Normalized(value, std::move(want));
  if (const Version* version = FindVersion(value, want, pad)) return version->id;
  if (const auto persistent = in_.persistents.find(value); persistent != in_.persistents.end()) {
    const Placement whole =
        Normalized(value, {.batch_split = false, .run = {}, .ring_run = {}, .partial = {}});
    if (want == whole) return persistent->second;
    return Reshard(value, {.placement = whole, .pad = {}, .id = persistent->second}, want, pad);
  }
  if (is_lazy_[value.index]) return GetLazy(value, want, pad);
  const auto& have = versions_[value.index];
  AUTOSP_CHECK(!have.empty(), "%", in_.graph.value(value).name, " is used before it is lowered");
  // Prefer what a slice can cut over what must be exchanged.
  Version from = have.front();
  for (const Version& version : have) {
    if (version.placement.run.empty() && version.placement.partial.axes.empty()) from = version;
  }
  return Reshard(value, from, want, pad);
}

std::optional<int64_t> ForwardLowering::DeclaredPad(const GraphInput& input) const {
  const auto declared = in_.pads.find(input.name);
  if (declared == in_.pads.end()) return std::nullopt;
  return declared->second;
}

absl::StatusOr<ValueId> ForwardLowering::Feed(const GraphInput& input, const Placement& want,
                                              std::optional<int64_t> pad) {
  const FactorDims dims = Dims(input.value);
  Placement fed = want;
  if (!want.run.empty() && want.run != seq_run_) fed.run.clear();
  const ValueId id =
      builder_.Define(in_.graph.value(input.value).name + "_",
                      builder_.Typed(in_.graph.type(input.value).dtype, MakeDims(dims, fed)));
  const std::optional<int64_t> fed_pad = IsPadded(fed.run) ? pad : DeclaredPad(input);
  builder_.Append(InstructionKind::kFeed, input.name, {}, {id}).attributes["pad"] =
      SymInt(fed_pad.value_or(0));
  const Version version{.placement = fed, .pad = fed_pad, .id = id};
  AddVersion(input.value, version);
  if (fed == want) return id;
  return Reshard(input.value, version, want, pad);
}

// Lowers the node of a lazy value at the wanted placement if it can run there, else in full.
absl::StatusOr<ValueId> ForwardLowering::GetLazy(ValueId value, const Placement& want,
                                                 std::optional<int64_t> pad) {
  const int32_t node = definer_[value.index];
  if (node < 0) {
    const GraphInput* input = in_.graph.FindInput(value);
    if (!pad) pad = DeclaredPad(*input);
    if (const Version* version = FindVersion(value, want, pad)) return version->id;
    return Feed(*input, want, pad);
  }
  const FactorRoles roles = RolesOf(node);
  Placement at;
  const bool sums_batch =
      std::ranges::any_of(batch_run_, [&](FactorVar factor) { return roles.sum.contains(factor); });
  at.batch_split = (want.batch_split || sums_batch) && !NeedsWholeBatch(node, roles);
  const OpRule* rule = FindOpRule(in_.graph.nodes[node].op);
  const bool is_view = rule != nullptr && (rule->layout == ResultLayout::kView ||
                                           rule->layout == ResultLayout::kMaybeView);
  const bool pad_survives = !IsPadded(want.run) || is_view;
  if (!want.run.empty() && IsValidRun(node, roles, want.run) && pad_survives) at.run = want.run;
  if (SumsSequence(node, roles)) at.run = seq_run_;
  RETURN_IF_ERROR(LowerNode(node, at, pad));
  if (const Version* version = FindVersion(value, want, pad)) return version->id;
  const auto& have = (in_prologue_ ? prologue_versions_ : versions_)[value.index];
  return Reshard(value, have.back(), want, pad);
}

// Whether each rank sums its own tokens.
bool ForwardLowering::SumsSequence(size_t node, const FactorRoles& roles) const {
  return !sp_axes_.empty() && roles.Reduces(seq_run_) && IsValidRun(node, roles, seq_run_);
}

absl::StatusOr<ValueId> ForwardLowering::Reshard(ValueId value, Version from, const Placement& to,
                                                 std::optional<int64_t> pad) {
  if (!from.placement.partial.axes.empty() && to.partial.axes.empty()) {
    ASSIGN_OR_RETURN(from.id, Reduce(value, from));
    from.placement.partial = {};
  }
  if (from.placement.batch_split && !to.batch_split && HasBatch(Dims(value))) {
    ASSIGN_OR_RETURN(from.id, GatherBatch(value, from));
    from.placement.batch_split = false;
  } else if (!from.placement.batch_split && to.batch_split && HasBatch(Dims(value))) {
    if (Contains(batch_axes_, Axis::kAccum)) return RefuseSplit(value);
    const FactorDims iso = Isolate(Dims(value), {batch_run_});
    Placement at = from.placement;
    ValueId id = builder_.View(from.id, MakeDims(iso, at));
    const int64_t dim = DimOf(iso, batch_run_);
    at.batch_split = true;
    const std::vector<ProgramDim> dims = MakeDims(iso, at);
    const int64_t local = builder_.program().LocalSize(dims[dim]);
    id = builder_.Slice(id, dim, dims[dim], ProgramBuilder::GroupIndex(mesh(), batch_axes_, local));
    from.id = builder_.View(id, MakeDims(Dims(value), at));
    from.placement = at;
  }
  ValueId id = from.id;
  const bool moves = from.placement.run != to.run || from.placement.ring_run != to.ring_run;
  if (moves) id = MoveRun(value, from, to, pad);
  AddVersion(value, {.placement = to, .pad = pad, .id = id});
  return id;
}

absl::StatusOr<ValueId> ForwardLowering::Reduce(ValueId value, Version from) {
  const AxisList axes = from.placement.partial.axes;
  if (Contains(axes, Axis::kAccum)) return ReduceInPrologue(value, from);
  return builder_.AllReduce(from.id, axes);
}

// A sum over all micro-steps that is needed within each (the number of valid tokens): its own loop
// over the micro-steps runs first.
absl::StatusOr<ValueId> ForwardLowering::ReduceInPrologue(ValueId value, const Version& from) {
  const Partial& partial = from.placement.partial;
  const bool is_max = partial.reduction == Reduction::kMax;
  if (!is_lazy_[value.index] || in_prologue_ || is_max) return RefuseSum(value, partial);
  std::vector<Instruction>* body = builder_.SetBody(&prologue_before_);
  ProgramValue total_type = builder_.Like(from.id);
  total_type.strides.clear();
  const Sizes sizes = builder_.program().LocalSizes(total_type);
  const ValueId total = builder_.Define("total", total_type);
  builder_.Append(InstructionKind::kCall, "aten.zeros.default",
                  {IntList(sizes.begin(), sizes.end()), total_type.dtype, None{}, None{}, None{}},
                  {total});
  in_prologue_ = true;
  builder_.SetBody(&prologue_loop_);
  const Placement& at = from.placement;
  const int32_t node = definer_[value.index];
  // As GetLazy ran it: a run that is summed leaves no trace in the placement of the result.
  const bool sums_seq = SumsSequence(node, RolesOf(node));
  const absl::Status lowered = LowerNode(
      node,
      {.batch_split = true, .run = sums_seq ? seq_run_ : at.run, .ring_run = {}, .partial = {}},
      from.pad);
  if (lowered.ok()) {
    const Version* version = FindVersion(value, at, from.pad);
    AUTOSP_CHECK(version != nullptr, "prologue");
    builder_.Accumulate(total, version->id);
  }
  in_prologue_ = false;
  builder_.SetBody(&prologue_after_);
  ValueId result = total;
  const AxisList device_axes = Without(at.partial.axes, {Axis::kAccum});
  if (!device_axes.empty()) result = builder_.AllReduce(total, device_axes);
  builder_.SetBody(body);
  RETURN_IF_ERROR(lowered);
  return result;
}

absl::StatusOr<ValueId> ForwardLowering::GatherBatch(ValueId value, const Version& from) {
  if (Contains(batch_axes_, Axis::kAccum)) return RefuseGather(value);
  const FactorDims iso = Isolate(Dims(value), {batch_run_});
  Placement at = from.placement;
  ValueId id = builder_.View(from.id, MakeDims(iso, at));
  at.batch_split = false;
  id = builder_.AllGather(id, DimOf(iso, batch_run_), batch_axes_, MakeDims(iso, at));
  return builder_.View(id, MakeDims(Dims(value), at));
}

// The four moves over sp: whole -> split (slice), split -> whole (all_gather), split -> split
// elsewhere (all_to_all). Padding stands only on split runs: it is added before a run is split and
// dropped after it is put together. A zigzag run is brought into the order of its shards and back
// at the same two places.
ValueId ForwardLowering::MoveRun(ValueId value, const Version& from, const Placement& to,
                                 std::optional<int64_t> pad) {
  if (from.placement.ring_run != to.ring_run) return MoveRing(value, from, to, pad);
  const FactorDims dims = Dims(value);
  const bool overlaps = std::ranges::any_of(
      from.placement.run, [&](FactorVar factor) { return std::ranges::count(to.run, factor) > 0; });
  if (overlaps) {
    // Shards of both are cut out of one dimension: no exchange leads from one to the other.
    Version middle{.placement = from.placement, .pad = pad, .id = {}};
    middle.placement.run.clear();
    middle.id = MoveRun(value, from, middle.placement, pad);
    return MoveRun(value, middle, to, pad);
  }
  const FactorDims iso = Isolate(dims, {from.placement.run, to.run});
  Placement whole = from.placement;
  whole.run.clear();
  ValueId id = builder_.View(from.id, MakeDims(iso, from.placement));
  const int64_t from_dim = from.placement.run.empty() ? -1 : DimOf(iso, from.placement.run);
  const int64_t to_dim = to.run.empty() ? -1 : DimOf(iso, to.run);
  Placement split_to = whole;
  split_to.run = to.run;
  if (to_dim >= 0) {
    const ProgramDim padded = MakeDims(iso, split_to, /*padded_run=*/true)[to_dim];
    id = OrderByShard(value, id, to_dim, to.run, padded, pad);
  }
  if (from_dim < 0) {
    const ProgramDim local = MakeDims(iso, split_to)[to_dim];
    id = builder_.Slice(
        id, to_dim, local,
        ProgramBuilder::GroupIndex(mesh(), sp_axes_, builder_.program().LocalSize(local)));
  } else {
    // Together along from_dim, with its padding.
    const FactorRun& run = from.placement.run;
    const bool keeps_shards = IsPadded(run) || IsZigzag(run);
    std::vector<ProgramDim> joined = MakeDims(iso, from.placement, keeps_shards);
    if (!keeps_shards) joined[from_dim] = MakeDims(iso, whole)[from_dim];
    if (to_dim >= 0) {
      joined[to_dim] = MakeDims(iso, split_to)[to_dim];
      id = builder_.AllToAll(id, to_dim, from_dim, sp_axes_, joined);
    } else {
      id = builder_.AllGather(id, from_dim, sp_axes_, joined);
    }
    const ProgramDim plain = MakeDims(iso, whole)[from_dim];
    if (IsZigzag(run)) {
      id = builder_.FromShards(id, from_dim, plain);
    } else if (IsPadded(run)) {
      id = builder_.Slice(id, from_dim, plain, {});
    }
  }
  return builder_.View(id, MakeDims(dims, to));
}

// A whole dimension as its shards follow each other, padding included.
ValueId ForwardLowering::OrderByShard(ValueId value, ValueId id, int64_t dim, const FactorRun& run,
                                      const ProgramDim& padded, std::optional<int64_t> pad) {
  const bool is_bool = in_.graph.type(value).dtype == DType::kBool;
  // Padding never counts, but its gradient must be 0 and not 0 / 0: one is a better divisor.
  if (!is_lazy_[value.index] && IsFloating(in_.graph.type(value).dtype)) pad = 1;
  const int64_t number = pad.value_or(0);
  const Argument fill = is_bool ? Argument(number != 0) : Argument(SymInt(number));
  if (IsZigzag(run)) return builder_.ToShards(id, dim, padded, fill);
  return IsPadded(run) ? builder_.PadEnd(id, dim, padded, fill) : id;
}

// Between the sequence over all of sp, and the sequence over ring with heads over ulysses: an
// exchange within each ulysses group, since ring members hold the same tokens in both. Any other
// placement is reached through the first.
ValueId ForwardLowering::MoveRing(ValueId value, const Version& from, const Placement& to,
                                  std::optional<int64_t> pad) {
  Placement seq = from.placement;
  seq.run = seq_run_;
  seq.ring_run.clear();
  const bool leaves = !from.placement.ring_run.empty();
  const Placement& other = leaves ? to : from.placement;
  if (other.run != seq_run_ || !other.ring_run.empty()) {
    const Version middle{.placement = seq, .pad = pad, .id = MoveRun(value, from, seq, pad)};
    return MoveRun(value, middle, to, pad);
  }
  const Placement& ring = leaves ? from.placement : to;
  const AxisList axes = RunAxes(ring);
  const FactorDims iso = Isolate(Dims(value), {seq_run_, ring.run});
  const std::vector<ProgramDim> ring_dims = MakeDims(iso, ring);
  const std::vector<ProgramDim> seq_dims = MakeDims(iso, seq);
  const int64_t seq_dim = DimOf(iso, seq_run_);
  const int64_t run_dim = ring.run.empty() ? -1 : DimOf(iso, ring.run);
  ValueId id = builder_.View(from.id, leaves ? ring_dims : seq_dims);
  if (run_dim >= 0) {
    id = leaves ? builder_.AllToAll(id, seq_dim, run_dim, axes, seq_dims)
                : builder_.AllToAll(id, run_dim, seq_dim, axes, ring_dims);
  } else if (leaves) {
    const int64_t local = builder_.program().LocalSize(seq_dims[seq_dim]);
    id = builder_.Slice(id, seq_dim, seq_dims[seq_dim],
                        ProgramBuilder::GroupIndex(mesh(), axes, local));
  } else {
    id = builder_.AllGather(id, seq_dim, axes, ring_dims);
  }
  return builder_.View(id, MakeDims(Dims(value), leaves ? seq : ring));
}

}  // namespace autosp
