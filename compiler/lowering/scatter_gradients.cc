#include "compiler/lowering/scatter_gradients.h"

#include <map>
#include <set>

namespace autosp {
namespace {

// The accumulators of one section, each with the whole sum that stands for it.
class Scattering {
 public:
  Scattering(ProgramBuilder& builder, const SplitGradients& gradients)
      : builder_(builder), gradients_(gradients) {
    for (size_t i = 0; i < gradients.size(); ++i) {
      by_storage_[builder.value(gradients[i].first).storage] = i;
    }
  }

  // First and last instruction of `body` that each accumulator, or a view of it, is in.
  struct Span {
    size_t first = 0;
    size_t last = 0;
  };
  std::map<size_t, Span> FindSpans(const std::vector<Instruction>& body) const {
    std::map<size_t, Span> spans;
    for (size_t i = 0; i < body.size(); ++i) {
      const auto note = [&](ValueId id) {
        const auto found = by_storage_.find(builder_.value(id).storage);
        if (found == by_storage_.end()) return;
        spans.try_emplace(found->second, Span{i, i}).first->second.last = i;
      };
      for (ValueId id : AllReadsOf(body[i])) note(id);
      for (ValueId id : body[i].results) note(id);
    }
    return spans;
  }

  void MakeSum(size_t index) {
    const ValueId gradient = gradients_[index].first;
    const Mesh& mesh = builder_.program().mesh;
    sums_[index] = builder_.Zeros(
        builder_.Typed(DType::kF32, builder_.value(gradient).dims,
                       {.axes = NonTrivial(mesh, {kStepAxes.begin(), kStepAxes.end()})}));
  }

  // A gradient that is added in one piece is the sum by itself.
  bool TakeSum(size_t index, const Instruction& only) {
    if (only.kind != InstructionKind::kAccumulate) return false;
    const std::vector<ValueId> operands = OperandsOf(only);
    if (operands[0] != gradients_[index].first) return false;
    if (builder_.value(operands[1]).dtype != DType::kF32) return false;
    sums_[index] = operands[1];
    return true;
  }

  void Scatter(size_t index) {
    const auto& [gradient, shard] = gradients_[index];
    const ValueId sum = sums_.at(index);
    const ValueId part =
        builder_.ReduceScatter(sum, static_cast<int64_t>(shard.dim), shard.axes,
                               ShardedDims(builder_.value(gradient).dims, shard),
                               {.axes = Without(builder_.value(sum).partial.axes, shard.axes)});
    builder_.Accumulate(gradient, part);
  }

  // Puts the sums in the place of the accumulators.
  void Rename(Instruction& instruction) {
    const auto rename = [this](ValueId& id) {
      const auto found = by_storage_.find(builder_.value(id).storage);
      if (found == by_storage_.end()) return;
      if (id == gradients_[found->second].first) id = sums_.at(found->second);
    };
    for (Argument& argument : instruction.args) ForEachValue(argument, rename);
    for (Instruction& inner : instruction.body) Rename(inner);
    // Views of an accumulator are views of its sum.
    for (ValueId id : instruction.results) {
      ProgramValue& value = builder_.program().value(id);
      const auto found = by_storage_.find(value.storage);
      if (found != by_storage_.end()) {
        value.storage = builder_.value(sums_.at(found->second)).storage;
      }
    }
  }

  void SplitAccumulators() {
    for (const auto& [gradient, shard] : gradients_) {
      ProgramValue& value = builder_.program().value(gradient);
      value.dims = ShardedDims(std::move(value.dims), shard);
    }
  }

 private:
  ProgramBuilder& builder_;
  const SplitGradients& gradients_;
  std::map<StorageId, size_t> by_storage_;
  std::map<size_t, ValueId> sums_;
};

}  // namespace

void ScatterGradients(ProgramBuilder& builder, const SplitGradients& gradients,
                      std::vector<Instruction>& body) {
  Scattering scattering(builder, gradients);
  std::multimap<size_t, size_t> starts;
  std::multimap<size_t, size_t> ends;
  std::set<size_t> taken;
  for (const auto& [index, span] : scattering.FindSpans(body)) {
    if (span.first == span.last && scattering.TakeSum(index, body[span.first])) {
      taken.insert(span.first);
    } else {
      starts.emplace(span.first, index);
    }
    ends.emplace(span.last, index);
  }
  std::vector<Instruction> result;
  std::vector<Instruction>* const outer = builder.SetBody(&result);
  for (size_t i = 0; i < body.size(); ++i) {
    const Phase phase = builder.SetPhase(body[i].phase);
    Source source = builder.SetSource(body[i].source);
    for (auto [at, end] = starts.equal_range(i); at != end; ++at) scattering.MakeSum(at->second);
    scattering.Rename(body[i]);
    if (!taken.contains(i)) result.push_back(std::move(body[i]));
    for (auto [at, end] = ends.equal_range(i); at != end; ++at) scattering.Scatter(at->second);
    builder.SetPhase(phase);
    builder.SetSource(std::move(source));
  }
  builder.SetBody(outer);
  body = std::move(result);
  scattering.SplitAccumulators();
}

void ScatterSums(ProgramBuilder& builder, const SplitGradients& gradients,
                 std::vector<Instruction>& body, std::vector<Instruction>* before,
                 std::vector<Instruction>* after) {
  Scattering scattering(builder, gradients);
  const auto spans = scattering.FindSpans(body);
  std::vector<Instruction>* const outer = builder.SetBody(before);
  for (const auto& [index, span] : spans) scattering.MakeSum(index);
  for (Instruction& instruction : body) scattering.Rename(instruction);
  builder.SetBody(after);
  const Phase phase = builder.SetPhase(Phase::kReduce);
  for (const auto& [index, span] : spans) scattering.Scatter(index);
  builder.SetPhase(phase);
  builder.SetBody(outer);
  scattering.SplitAccumulators();
}

}  // namespace autosp
