#include "compiler/lowering/gather_parameters.h"

#include <set>
#include <utility>

namespace autosp {
namespace {

// One gathered copy of a parameter, and the views that were made of it.
struct Copy {
  Phase phase = Phase::kForward;
  bool is_closed = false;            // another matrix has been used since
  std::map<ValueId, ValueId> names;  // the parameter and its views, in terms of this copy
};

class Gathering {
 public:
  Gathering(ProgramBuilder& builder, const SplitParameters& parameters)
      : builder_(builder), parameters_(parameters) {
    for (const auto& [id, shard] : parameters) by_storage_[builder.value(id).storage] = id;
  }

  void Run(std::vector<Instruction>& body) {
    Collect(body);
    GatherIn(body);
  }

 private:
  const ValueId* ParameterOf(ValueId id) const {
    const auto found = by_storage_.find(builder_.value(id).storage);
    return found == by_storage_.end() ? nullptr : &found->second;
  }

  // A view that is stretched over the tokens of a tile stays in the loop.
  bool IsViewOfParameter(const Instruction& instruction) const {
    return instruction.kind == InstructionKind::kAlias &&
           ParameterOf(instruction.results[0]) != nullptr &&
           !Contains(ShardAxes(builder_.value(instruction.results[0])), Axis::kTile);
  }

  // Views are made again of each copy, where they are read. What an op without a rule keeps for its
  // derivative is not known, so its parameters stay whole until then.
  void Collect(const std::vector<Instruction>& body) {
    for (const Instruction& instruction : body) {
      Collect(instruction.body);
      if (IsViewOfParameter(instruction)) views_.emplace(instruction.results[0], instruction);
      if (!instruction.attributes.contains("opaque")) continue;
      for (ValueId id : OperandsOf(instruction)) {
        if (const ValueId* parameter = ParameterOf(id)) kept_.insert(*parameter);
      }
    }
  }

  void GatherIn(std::vector<Instruction>& body) {
    std::map<ValueId, Copy> outer_copies = std::exchange(copies_, {});
    std::vector<Instruction> result;
    std::vector<Instruction>* const outer_body = builder_.SetBody(&result);
    for (Instruction& instruction : body) {
      if (IsViewOfParameter(instruction)) continue;
      if (instruction.op == AxisName(Axis::kAccum)) {
        GatherIn(instruction.body);
      } else if (instruction.phase != Phase::kOptimizer) {  // which reads parts
        Gather(instruction);
      }
      result.push_back(std::move(instruction));
    }
    builder_.SetBody(outer_body);
    copies_ = std::move(outer_copies);
    body = std::move(result);
  }

  // A loop over tiles gets what it uses before it begins.
  void Gather(Instruction& instruction) {
    std::set<ValueId> used;
    for (ValueId id : AllReadsOf(instruction)) {
      if (const ValueId* parameter = ParameterOf(id)) used.insert(*parameter);
    }
    if (used.empty()) return;
    CloseOthers(used);
    const Phase phase = builder_.SetPhase(instruction.phase);
    Source source = builder_.SetSource(instruction.source);
    Rename(instruction);
    builder_.SetPhase(phase);
    builder_.SetSource(std::move(source));
  }

  void Rename(Instruction& instruction) {
    const auto rename = [this](ValueId& id) {
      if (ParameterOf(id) != nullptr) id = NameOf(id);
    };
    ForEachValue(instruction, rename);
    if (instruction.kind == InstructionKind::kAlias && ParameterOf(instruction.results[0])) {
      const ValueId of = OperandsOf(instruction)[0];
      builder_.program().value(instruction.results[0]).storage = builder_.value(of).storage;
    }
    std::erase_if(instruction.body,
                  [this](const Instruction& inner) { return IsViewOfParameter(inner); });
    for (Instruction& inner : instruction.body) Rename(inner);
  }

  bool IsMatrix(ValueId parameter) const { return builder_.value(parameter).dims.size() > 1; }

  void CloseOthers(const std::set<ValueId>& used) {
    bool uses_matrix = false;
    for (ValueId id : used) uses_matrix = uses_matrix || IsMatrix(id);
    for (auto& [id, copy] : copies_) {
      if (uses_matrix && IsMatrix(id) && !used.contains(id)) copy.is_closed = true;
    }
  }

  // The parameter, or a view of it, in terms of the copy that is whole here.
  ValueId NameOf(ValueId id) {
    const ValueId parameter = *ParameterOf(id);
    Copy& copy = copies_[parameter];
    const bool is_stale =
        !kept_.contains(parameter) && (copy.is_closed || copy.phase != builder_.phase());
    if (is_stale) copy = {};
    copy.phase = builder_.phase();
    if (const auto found = copy.names.find(id); found != copy.names.end()) return found->second;
    ValueId name;
    if (id == parameter) {
      const ZeroShard& shard = parameters_.at(parameter);
      name = builder_.AllGather(parameter, static_cast<int64_t>(shard.dim), shard.axes,
                                builder_.value(parameter).dims);
    } else {
      const Instruction& view = views_.at(id);
      const ValueId of = NameOf(OperandsOf(view)[0]);
      std::vector<Argument> args = view.args;
      args[0] = of;
      name = builder_.Alias(view.op, std::move(args), of, builder_.value(id));
    }
    return copies_[parameter].names[id] = name;
  }

  ProgramBuilder& builder_;
  const SplitParameters& parameters_;
  std::map<StorageId, ValueId> by_storage_;
  std::map<ValueId, Instruction> views_;  // by result
  std::set<ValueId> kept_;
  std::map<ValueId, Copy> copies_;  // by parameter, in the list at hand
};

}  // namespace

void GatherParameters(ProgramBuilder& builder, const SplitParameters& parameters,
                      std::vector<Instruction>& body) {
  Gathering(builder, parameters).Run(body);
}

void SplitPersistents(Program& program, const SplitParameters& parameters) {
  for (const auto& [id, shard] : parameters) {
    ProgramValue& value = program.value(id);
    value.dims = ShardedDims(std::move(value.dims), shard);
  }
}

}  // namespace autosp
