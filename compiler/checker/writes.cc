// In-place writes: additions into accumulators, and ops that overwrite their first operands.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"
#include "compiler/ir/argument_text.h"

namespace autosp::checker {
namespace {

std::vector<ValueId> ListArgument(const Instruction& instruction, size_t arg) {
  if (arg >= instruction.args.size()) return {};
  if (const auto* id = std::get_if<ValueId>(&instruction.args[arg])) return {*id};
  const auto* list = std::get_if<ValueList>(&instruction.args[arg]);
  return list == nullptr ? std::vector<ValueId>{} : *list;
}

// The op and its numbers, in full.
std::string LiteralsOf(const Instruction& instruction) {
  std::string text = instruction.op;
  for (const auto& [name, argument] : instruction.attributes) {
    absl::StrAppend(&text, " ", name, "=");
    PrintArgument(
        argument, [](ValueId) { return std::string(); }, &text);
  }
  return text;
}

}  // namespace

// What an addition into a view adds to the value that it is a view of.
absl::StatusOr<ValueState> Interpreter::Undone(const Instruction& instruction, ValueId of,
                                               const ValueState& part) {
  const ValueState& view = state(of);
  const ValueState& whole = state(view.parent);
  ValueState result = part;
  result.dims = whole.dims;
  const Shape shape = LogicalShape(whole.dims);
  // Padding that the view does not reach gets nothing; of what it reaches, perhaps a part.
  const bool is_all = view.step.kind == AliasStep::Kind::kReshape ||
                      view.step.kind == AliasStep::Kind::kPermute ||
                      (view.step.kind == AliasStep::Kind::kSame && view.dims == whole.dims);
  for (auto& [key, pad] : result.pads) {
    if (!is_all) pad = PadOfEither(pad, PadState::Zero());
  }
  for (const PadKey& key : PadKeys(whole.dims)) {
    if (!result.pads.contains(key)) result.pads[key] = PadState::Zero();
  }
  const AliasStep& step = view.step;
  switch (step.kind) {
    case AliasStep::Kind::kSame:
      break;
    case AliasStep::Kind::kReshape:
      result.meaning = table_.Reshape(part.meaning, shape);
      break;
    case AliasStep::Kind::kPermute: {
      std::vector<int64_t> inverse(step.order.size());
      for (size_t i = 0; i < inverse.size(); ++i) {
        inverse[step.order[i]] = static_cast<int64_t>(i);
      }
      result.meaning = table_.Permute(part.meaning, inverse);
      break;
    }
    case AliasStep::Kind::kSelect: {
      Shape one = shape;
      one[step.dim] = 1;
      result.meaning =
          table_.Embed(table_.Reshape(part.meaning, one), step.dim, step.start, 1, shape[step.dim]);
      break;
    }
    case AliasStep::Kind::kSlice:
      result.meaning = table_.Embed(part.meaning, step.dim, step.start, step.step, shape[step.dim]);
      break;
    case AliasStep::Kind::kShard:
      // Each rank adds at its own place: over all ranks a partial sum of the whole.
      result.partial = Plus(part.partial, step.axes);
      break;
    case AliasStep::Kind::kExpand:
      return Refuse(instruction, absl::StrCat("%", NameOf(of), " is written, but several of its ",
                                              "elements share a place"));
  }
  return result;
}

absl::Status Interpreter::AddOne(const Instruction& instruction, ValueId to,
                                 const ValueState& addend, int64_t version) {
  ValueState& value = state(to);
  if (value.any_partial) {
    value.partial = addend.partial;
    value.reduction = addend.reduction;
    value.any_partial = false;
  }
  const auto is_max = [](const ValueState& each) {
    return !each.partial.empty() && each.reduction == Reduction::kMax;
  };
  if (is_max(value) || is_max(addend)) {
    return Refuse(instruction, absl::StrCat("of the parts of a maximum, which %", NameOf(to),
                                            " or what is added is one of, there is no sum"));
  }
  // What is zero over all ranks together may be something else on each of them.
  const bool is_zero = addend.partial.empty() && addend.meaning.is_zero();
  if (value.partial != addend.partial && !is_zero) {
    return Refuse(instruction, absl::StrCat("%", NameOf(to), " is a partial sum over [",
                                            AxisListName(value.partial), "], what is added over [",
                                            AxisListName(addend.partial), "]"));
  }
  for (const PadKey& key : PadKeys(value.dims)) {
    const auto found = addend.pads.find(key);
    PadState added = found == addend.pads.end() ? PadState::Unknown() : found->second;
    // Each iteration of a loop adds it again.
    if (!LoopsAround(value.depth).empty()) added = PadOfAllRanks(added);
    const auto had = value.pads.find(key);
    value.pads[key] = PadOfSum(had == value.pads.end() ? PadState::Unknown() : had->second, added);
  }
  value.meaning = table_.Add(value.meaning, addend.meaning, 1);
  value.holds = PadState::Valid();
  value.version = version;
  return absl::OkStatus();
}

// Buffers get their next value in one piece, by UpdateBuffer.
absl::Status Interpreter::CheckNoBuffer(const Instruction& instruction, ValueId to) const {
  const auto buffer = buffers_.find(program_.value(to).storage.index);
  if (buffer == buffers_.end()) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("it writes in place to buffer ", buffer->second,
                                          ", which only a copy of all of it may"));
}

// Adds into `to` and into everything that it is a view of.
absl::Status Interpreter::AddInto(const Instruction& instruction, ValueId to,
                                  const ValueState& addend) {
  RETURN_IF_ERROR(CheckNoBuffer(instruction, to));
  const int32_t storage = program_.value(to).storage.index;
  ValueState& target = state(to);
  if (!target.is_defined || target.version != storage_versions_[storage]) {
    return Refuse(instruction, absl::StrCat("%", NameOf(to), " is not defined, or stale"));
  }
  RETURN_IF_ERROR(CheckComplete(instruction, to));
  RETURN_IF_ERROR(CheckAtHome(instruction, to));
  if (target.dims != addend.dims) {
    return Refuse(instruction, absl::StrCat("%", NameOf(to), " is ", ToText(target.dims),
                                            ", what is added is ", ToText(addend.dims)));
  }
  RETURN_IF_ERROR(CheckAddedOnce(instruction, to, addend));
  // The sum over all tiles is complete before anything may read it.
  const bool from_outside = std::ranges::any_of(
      LoopsAround(target.depth), [](const LoopState& loop) { return loop.axis == Axis::kTile; });
  const AxisList summed = from_outside ? AxisList{Axis::kTile} : AxisList{};
  ValueState added = addend;
  const int64_t version = ++storage_versions_[storage];
  for (ValueId at = to;; at = state(at).parent) {
    added.partial = Minus(added.partial, summed);
    RETURN_IF_ERROR(AddOne(instruction, at, added, version));
    const ValueState& view = state(at);
    if (!view.parent.valid()) return absl::OkStatus();
    // A shard of what every rank has in full: from here on the ranks have different things there,
    // and the names of the whole are stale. The tiles of a rank are all its own.
    const bool is_own = view.step.kind == AliasStep::Kind::kShard && view.step.axes != summed;
    if (is_own && view.part_of_sum.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(added, Undone(instruction, at, added));
  }
}

// In a loop, what comes from outside may get a part in each iteration, at the iteration's own place
// or of a sum, and never the whole several times.
absl::Status Interpreter::CheckAddedOnce(const Instruction& instruction, ValueId to,
                                         const ValueState& addend) {
  const ValueState& target = state(to);
  for (LoopState& loop : LoopsAround(target.depth)) {
    const bool is_part =
        Holds(addend.partial, loop.axis) || Holds(ShardAxes(target.dims), loop.axis);
    const int64_t count = program_.mesh.size(loop.axis);
    if (count > 1 && !is_part) {
      const bool is_accum = loop.axis == Axis::kAccum;
      return Refuse(instruction,
                    absl::StrCat("each of ", count, is_accum ? " micro-steps" : " tiles",
                                 " adds all of it to %", NameOf(to)));
    }
    loop.written.insert(program_.value(to).storage.index);
  }
  return absl::OkStatus();
}

// Replaces the content of `to`; what it is a view of, if element for element, follows.
absl::Status Interpreter::Overwrite(const Instruction& instruction, ValueId to,
                                    ValueState content) {
  const int32_t storage = program_.value(to).storage.index;
  if (instruction.op != "aten.copy_.default") RETURN_IF_ERROR(CheckNoBuffer(instruction, to));
  if (!LoopsAround(state(to).depth).empty()) {
    return Refuse(instruction, absl::StrCat("%", NameOf(to), " is overwritten in each iteration ",
                                            "of the loop"));
  }
  for (ValueId at = to; at.valid(); at = state(at).parent) {
    if (state(at).step.kind != AliasStep::Kind::kExpand) continue;
    return Refuse(instruction, absl::StrCat("%", NameOf(to), " is written, but several of its ",
                                            "elements share a place"));
  }
  const int64_t version = ++storage_versions_[storage];
  for (ValueId at = to;;) {
    ValueState& value = state(at);
    value.meaning = content.meaning;
    value.partial = content.partial;
    value.reduction = content.reduction;
    value.any_partial = content.any_partial;
    value.pads = content.pads;
    value.holds = content.holds;
    value.hops = content.hops;
    value.attention = content.attention;
    value.version = version;
    const bool is_whole = value.step.kind == AliasStep::Kind::kSame ||
                          value.step.kind == AliasStep::Kind::kReshape ||
                          value.step.kind == AliasStep::Kind::kPermute;
    if (!value.parent.valid() || !is_whole) break;
    // A view of all but the padding writes a part only.
    if (PadKeys(value.dims) != PadKeys(state(value.parent).dims)) break;
    ASSIGN_OR_RETURN(content, Undone(instruction, at, content));
    at = state(at).parent;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RunAccumulate(const Instruction& instruction) {
  const std::vector<ValueId> ids = OperandsOf(instruction);
  if (ids.size() != 2) return Refuse(instruction, "an accumulation has two operands");
  ASSIGN_OR_RETURN(const ValueState* addend, Read(instruction, ids[1]));
  const DType to = program_.value(ids[0]).dtype;
  const DType from = program_.value(ids[1]).dtype;
  if (PromoteTypes(to, from) != to) {
    return Refuse(instruction, "what is added has a wider dtype than the sum");
  }
  if (program_.value(ids[0]).storage == program_.value(ids[1]).storage) {
    return Refuse(instruction, "a value is added into its own memory");
  }
  ValueState added = *addend;
  if (from != to) added.meaning = CastTerms(added.meaning, from, to);
  return AddInto(instruction, ids[0], added);
}

absl::Status Interpreter::RunUpdate(const Instruction& instruction) {
  const std::string& op = instruction.op;
  if (op == "aten.zero_.default") return UpdateZero(instruction);
  if (op == "aten.copy_.default") return UpdateBuffer(instruction);
  if (op == "autosp.all_reduce_") return UpdateAllReduce(instruction);
  if (op == "autosp.all_gather_") return UpdateAllGather(instruction);
  if (op == "autosp.clip_") return UpdateClip(instruction);
  if (op == "autosp.adamw_" || op == "autosp.sgd_") return UpdateOptimizer(instruction);
  if (op == "autosp.cross_entropy_backward_") return UpdateCrossEntropy(instruction);
  if (op == "autosp.matmul_accumulate_") return UpdateMatmul(instruction);
  if (op == "autosp.attend_block_" || op == "autosp.attend_block_backward_") {
    return UpdateAttendBlock(instruction);
  }
  return NotProven(instruction, absl::StrCat("the checker does not know the update ", op));
}

// Every rank gives a buffer all of its next value, once, and nothing reads it any more: what was
// computed before and what is computed again both had the old one.
absl::Status Interpreter::UpdateBuffer(const Instruction& instruction) {
  const std::vector<ValueId> ids = OperandsOf(instruction);
  if (ids.size() != 2) return Refuse(instruction, "a copy has two operands");
  const auto kept = std::ranges::find(program_.persistents, ids[0], &Persistent::value);
  if (kept == program_.persistents.end() || kept->kind != PersistentKind::kBuffer) {
    return Refuse(instruction, absl::StrCat("%", NameOf(ids[0]), " is overwritten, and no buffer"));
  }
  if (section_ != "step") {
    return Refuse(instruction, absl::StrCat("section ", section_, " writes buffer ", kept->name,
                                            ", which only a step may"));
  }
  ASSIGN_OR_RETURN(const ValueState* value, Read(instruction, ids[1]));
  const ValueState& target = state(ids[0]);
  if (!value->partial.empty() || value->any_partial || !std::ranges::all_of(value->dims, IsWhole)) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(ids[1]), " is ", ToText(value->dims),
                               ", a partial sum over [", AxisListName(value->partial),
                               "], and buffer ", kept->name, " is whole on every rank"));
  }
  const bool is_same_type =
      value->dims == target.dims && program_.value(ids[0]).dtype == program_.value(ids[1]).dtype;
  if (!is_same_type) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(ids[1]), " is ", ToText(value->dims), ", but buffer ",
                               kept->name, " is ", ToText(target.dims), ", or of another dtype"));
  }
  if (!written_buffers_.insert(program_.value(ids[0]).storage.index).second) {
    return Refuse(instruction, absl::StrCat("buffer ", kept->name, " is written twice in a step"));
  }
  return Overwrite(instruction, ids[0], *value);
}

absl::Status Interpreter::UpdateZero(const Instruction& instruction) {
  for (ValueId id : OperandsOf(instruction)) {
    ValueState zero = state(id);
    if (!zero.is_defined) return Refuse(instruction, "it writes to what is not defined");
    zero.meaning = ExpressionTable::Zeros(zero.meaning.shape);
    zero.partial.clear();
    zero.any_partial = true;
    zero.hops.clear();
    for (const PadKey& key : PadKeys(zero.dims)) zero.pads[key] = PadState::Zero();
    RETURN_IF_ERROR(Overwrite(instruction, id, std::move(zero)));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::UpdateAllReduce(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
  ASSIGN_OR_RETURN(const std::string reduction, StringAttribute(instruction, "reduction"));
  RETURN_IF_ERROR(CheckGroup(instruction, axes));
  for (ValueId id : OperandsOf(instruction)) {
    ASSIGN_OR_RETURN(const ValueState* value, Read(instruction, id));
    ValueState reduced = *value;
    const bool is_sum = reduced.reduction == Reduction::kSum && reduction == "sum";
    const bool fits = reduced.any_partial || HoldsAll(reduced.partial, axes);
    if (!fits || !is_sum) {
      return Refuse(instruction, absl::StrCat("it sums %", NameOf(id), " over ", AxisListName(axes),
                                              ", but that is a partial sum over [",
                                              AxisListName(reduced.partial), "]"));
    }
    reduced.partial = Minus(reduced.partial, axes);
    for (auto& [key, pad] : reduced.pads) pad = PadOfAllRanks(pad);
    RETURN_IF_ERROR(Overwrite(instruction, id, std::move(reduced)));
  }
  ++num_collectives_;
  return absl::OkStatus();
}

absl::Status Interpreter::UpdateClip(const Instruction& instruction) {
  const std::vector<ValueId> grads = ListArgument(instruction, 0);
  std::vector<NodeId> nodes;
  for (ValueId id : OperandsOf(instruction)) {
    ASSIGN_OR_RETURN(const ValueState* value, Read(instruction, id));
    if (!value->partial.empty()) {
      return Refuse(instruction, absl::StrCat("%", NameOf(id), " is still a partial sum over ",
                                              AxisListName(value->partial)));
    }
  }
  const std::string key = LiteralsOf(instruction);
  const NodeId norm = table_.Intern(state(OperandsOf(instruction).back()).meaning);
  for (ValueId id : grads) {
    ValueState clipped = state(id);
    clipped.meaning =
        table_.Node(key, {table_.Intern(clipped.meaning), norm}, clipped.meaning.shape);
    clipped.any_partial = false;
    RETURN_IF_ERROR(Overwrite(instruction, id, std::move(clipped)));
  }
  return absl::OkStatus();
}

// (parameters, gradients, moments ..., scalars, masters): each list goes in step; every parameter,
// moment and master is written from what belongs to the same place.
absl::Status Interpreter::UpdateOptimizer(const Instruction& instruction) {
  const bool is_adam = instruction.op == "autosp.adamw_";
  const size_t num_lists = is_adam ? 4 : 3;
  std::vector<std::vector<ValueId>> lists;
  for (size_t arg = 0; arg < num_lists; ++arg) lists.push_back(ListArgument(instruction, arg));
  lists.push_back(ListArgument(instruction, instruction.args.size() - 1));  // masters
  std::vector<NodeId> scalars;
  for (size_t arg = num_lists; arg + 1 < instruction.args.size(); ++arg) {
    for (ValueId id : ListArgument(instruction, arg)) {
      ASSIGN_OR_RETURN(const ValueState* scalar, Read(instruction, id));
      if (!scalar->partial.empty() || !std::ranges::all_of(scalar->dims, IsWhole)) {
        return Refuse(instruction,
                      absl::StrCat("%", NameOf(id), " is ", ToText(scalar->dims),
                                   ", a partial sum over [", AxisListName(scalar->partial),
                                   "]: ranks would step by different numbers"));
      }
      scalars.push_back(table_.Intern(scalar->meaning));
    }
  }
  const std::string key = LiteralsOf(instruction);
  for (size_t i = 0; i < lists[0].size(); ++i) {
    std::vector<NodeId> nodes = scalars;
    for (size_t list = 0; list < lists.size(); ++list) {
      if (lists[list].empty()) continue;
      if (lists[list].size() != lists[0].size()) {
        return Refuse(instruction, "the lists have different lengths");
      }
      if (!lists[list][i].valid()) continue;
      ASSIGN_OR_RETURN(const ValueState* value, Read(instruction, lists[list][i]));
      // The rank's part of a parameter follows from its parts of all else.
      if (!value->partial.empty() || value->dims != state(lists[0][i]).dims) {
        return Refuse(
            instruction,
            absl::StrCat("%", NameOf(lists[list][i]), " is ", ToText(value->dims),
                         ", a partial sum over [", AxisListName(value->partial), "], but %",
                         NameOf(lists[0][i]), " is ", ToText(state(lists[0][i]).dims)));
      }
      nodes.push_back(table_.Intern(value->meaning));
    }
    for (size_t list = 0; list < lists.size(); ++list) {
      if (list == 1 || lists[list].empty() || !lists[list][i].valid()) continue;  // gradients stay
      ValueState written = state(lists[list][i]);
      written.meaning =
          table_.Node(absl::StrCat(key, " list ", list), nodes, written.meaning.shape);
      RETURN_IF_ERROR(Overwrite(instruction, lists[list][i], std::move(written)));
    }
  }
  return absl::OkStatus();
}

// gradient += a^T b over all rows
absl::Status Interpreter::UpdateMatmul(const Instruction& instruction) {
  const std::vector<ValueId> ids = OperandsOf(instruction);
  ASSIGN_OR_RETURN(const int64_t beta, IntAttribute(instruction, "beta"));
  if (ids.size() != 3 || beta != 1) {
    return Refuse(instruction, "a product is added to what is there: beta is 1");
  }
  std::vector<const ValueState*> operands;
  OpCall call{program_, instruction, {}, {}};
  for (ValueId id : {ids[1], ids[2]}) {
    if (program_.value(id).storage == program_.value(ids[0]).storage) {
      return Refuse(instruction, absl::StrCat("%", NameOf(id), " lies where it adds"));
    }
    ASSIGN_OR_RETURN(const ValueState* operand, Read(instruction, id));
    operands.push_back(operand);
    call.operands.push_back(operand->dims);
  }
  if (call.rank(0) != 2 || call.rank(1) != 2) return Refuse(instruction, "operands are matrices");
  OpShape shape;
  const int rows = shape.NewLabel(Role::kSum);
  const int left = shape.NewLabel(Role::kParallel);
  const int right = shape.NewLabel(Role::kParallel);
  shape.operands = {{rows, left}, {rows, right}};
  shape.results = {{left, right}};
  shape.linear = Linear::kEach;
  ASSIGN_OR_RETURN(const Placed placed, PlaceOp(call, shape, operands));
  ValueState addend;
  addend.dims = DimsOf(shape.results[0], placed);
  addend.partial = placed.partial[0];
  addend.meaning = Product(table_.Permute(operands[0]->meaning, {1, 0}), operands[1]->meaning,
                           LogicalShape(addend.dims), program_.value(ids[1]).dtype);
  return AddInto(instruction, ids[0], addend);
}

}  // namespace autosp::checker
