#include "compiler/lowering/buffer_writes.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

absl::Status BufferWrites::LowerValues(ForwardLowering& lowering) {
  for (const auto& [output, buffer] : inputs_.graph.writes) {
    const ValueId value = inputs_.graph.outputs[output];
    buffers_.push_back(inputs_.persistents.at(buffer));
    values_.push_back(value);
    if (!accumulates()) {
      ASSIGN_OR_RETURN(results_.emplace_back(), Whole(lowering, value), "buffer ",
                       inputs_.graph.FindInput(buffer)->name);
      continue;
    }
    for (const ValueId sum : lowering.SumsBefore(value)) {
      if (sums_.contains(sum)) continue;
      ASSIGN_OR_RETURN(sums_[sum].part, Whole(lowering, sum), "buffer ",
                       inputs_.graph.FindInput(buffer)->name);
    }
  }
  return absl::OkStatus();
}

// In memory of its own: the backward may write where the forward has read for the last time, and
// the buffer of one write may be the value of another.
absl::StatusOr<ValueId> BufferWrites::Whole(ForwardLowering& lowering, ValueId value) {
  ASSIGN_OR_RETURN(const ValueId id, lowering.WholeValue(value));
  return IsShared(id) ? builder_.Copy(id) : id;
}

bool BufferWrites::IsShared(ValueId id) const {
  const Program& program = builder_.program();
  const StorageId storage = program.value(id).storage;
  const auto lies_there = [&](ValueId other) { return program.value(other).storage == storage; };
  const bool is_kept = std::ranges::any_of(
      program.persistents, [&](const Persistent& each) { return lies_there(each.value); });
  return is_kept || std::ranges::any_of(builder_.body(), [&](const Instruction& instruction) {
           return instruction.kind != InstructionKind::kWait &&
                  std::ranges::any_of(AllReadsOf(instruction), lies_there);
         });
}

void BufferWrites::BeginStep() {
  for (auto& [value, sum] : sums_) {
    ProgramValue type = builder_.Like(sum.part);
    if (IsHalf(type.dtype)) type.dtype = DType::kF32;
    sum.total = builder_.Zeros(std::move(type));
  }
}

void BufferWrites::EndMicroStep() {
  for (const auto& [value, sum] : sums_) builder_.Accumulate(sum.total, sum.part);
  if (!accumulates()) Assign();
}

absl::Status BufferWrites::EndStep() {
  if (!accumulates() || values_.empty()) return absl::OkStatus();
  std::map<ValueId, ValueId> totals;
  for (const auto& [value, sum] : sums_) totals[value] = TotalOf(value, sum);
  std::vector<Instruction> prologue;
  std::vector<Instruction> late;
  std::vector<Instruction>* body = builder_.SetBody(&late);
  ForwardLowering lowering(inputs_, builder_);
  ASSIGN_OR_RETURN(results_, lowering.LowerAfter(values_, totals, &prologue));
  for (ValueId& result : results_) {
    if (IsShared(result)) result = builder_.Copy(result);
  }
  DropUnread(late);
  RETURN_IF_ERROR(CheckLate(late));
  builder_.SetBody(body);
  for (std::vector<Instruction>* part : {&prologue, &late}) {
    body->insert(body->end(), std::make_move_iterator(part->begin()),
                 std::make_move_iterator(part->end()));
  }
  Assign();
  return absl::OkStatus();
}

ValueId BufferWrites::TotalOf(ValueId value, const Sum& sum) {
  ValueId total = sum.total;
  const AxisList axes = Without(builder_.value(total).partial.axes, {Axis::kAccum});
  if (!axes.empty()) total = builder_.AllReduce(total, axes);
  return builder_.Cast(total, inputs_.graph.type(value).dtype);
}

void BufferWrites::Assign() {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const ProgramValue& buffer = builder_.value(buffers_[i]);
    const ValueId cast = builder_.Cast(results_[i], buffer.dtype);
    results_[i] = builder_.View(cast, builder_.value(buffers_[i]).dims);
  }
  for (size_t i = 0; i < buffers_.size(); ++i) {
    builder_.Update(std::string(kWriteBuffer), {buffers_[i], results_[i], false});
  }
}

// A sum of inputs over all micro-steps gets a loop of its own, and leaves behind what it would have
// been without one.
void BufferWrites::DropUnread(std::vector<Instruction>& body) const {
  std::set<ValueId> read(results_.begin(), results_.end());
  std::vector<Instruction> kept;
  for (auto at = body.rbegin(); at != body.rend(); ++at) {
    const bool only_makes =
        at->kind == InstructionKind::kFeed || at->kind == InstructionKind::kCall ||
        at->kind == InstructionKind::kAlias || at->kind == InstructionKind::kCopy;
    const bool is_read =
        std::ranges::any_of(at->results, [&](ValueId id) { return read.contains(id); });
    if (only_makes && !is_read) continue;
    for (const ValueId id : AllReadsOf(*at)) read.insert(id);
    kept.push_back(std::move(*at));
  }
  body.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

absl::Status BufferWrites::CheckLate(const std::vector<Instruction>& body) const {
  for (const Instruction& instruction : body) {
    for (const ValueId id : instruction.results) {
      if (!Contains(ShardAxes(builder_.value(id)), Axis::kAccum)) continue;
      return Unimplemented("what is written to a buffer needs all of the batch at ",
                           PrintInstruction(builder_.program(), instruction),
                           instruction.source.Where(),
                           ", which gradient accumulation splits; set training.micro_batch_size "
                           "so that there is one micro-step");
    }
  }
  return absl::OkStatus();
}

}  // namespace autosp
