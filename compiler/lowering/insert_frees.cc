#include <vector>

#include "compiler/lowering/lower_program.h"

namespace autosp {
namespace {

void CollectReads(const Instruction& instruction, std::vector<ValueId>* reads) {
  for (ValueId id : ReadsOf(instruction)) reads->push_back(id);
  for (const Instruction& inner : instruction.body) CollectReads(inner, reads);
}

// Values defined in `body` are freed in it; values from outside are the outer list's to free. What
// only a collective reads is freed once it is started: until the wait the collective holds it, or
// what it has been packed into, and nothing when results are unpacked.
void FreeIn(std::vector<Instruction>& body, size_t num_values) {
  std::vector<bool> is_due(num_values, false);  // defined here, and not freed yet
  for (const Instruction& instruction : body) {
    for (ValueId id : instruction.results) is_due[id.index] = true;
  }
  std::vector<Instruction> result;
  for (auto instruction = body.rbegin(); instruction != body.rend(); ++instruction) {
    if (instruction->kind == InstructionKind::kFor) FreeIn(instruction->body, num_values);
    std::vector<ValueId> touched;
    CollectReads(*instruction, &touched);
    touched.insert(touched.end(), instruction->results.begin(), instruction->results.end());
    Instruction free;
    free.kind = InstructionKind::kFree;
    free.phase = instruction->phase;
    for (ValueId id : touched) {
      if (!is_due[id.index]) continue;
      is_due[id.index] = false;
      free.args.emplace_back(id);
    }
    // The list is built backwards.
    if (!free.args.empty()) result.push_back(std::move(free));
    result.push_back(std::move(*instruction));
  }
  body.assign(std::make_move_iterator(result.rbegin()), std::make_move_iterator(result.rend()));
}

}  // namespace

void InsertFrees(Program& program) {
  for (Section& section : program.sections) FreeIn(section.body, program.values.size());
}

}  // namespace autosp
