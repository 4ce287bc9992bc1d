#include "compiler/checker/strided_memory.h"

#include <algorithm>
#include <map>

#include "compiler/checker/index_layout.h"

namespace autosp::checker {
namespace {

std::map<std::string, int64_t> TermsOf(const LinearExpr& expr) {
  std::map<std::string, int64_t> terms;
  for (const auto& [variable, coefficient] : expr.terms) terms[variable] += coefficient;
  std::erase_if(terms, [](const auto& term) { return term.second == 0; });
  return terms;
}

}  // namespace

StridedMemory MemoryOf(const Program& program, ValueId id) {
  const ProgramValue& value = program.value(id);
  return {program.LocalSizes(value), program.LocalStrides(value), value.offset};
}

bool SamePlaces(const StridedMemory& a, const StridedMemory& b) {
  if (a.offset.base != b.offset.base || TermsOf(a.offset) != TermsOf(b.offset)) return false;
  const auto atoms = [](const StridedMemory& memory) {
    AtomList list;
    for (size_t i = 0; i < memory.sizes.size(); ++i) {
      list.push_back({memory.sizes[i], memory.strides[i]});
    }
    return Coalesced(list);
  };
  return atoms(a) == atoms(b);
}

bool StaysWithin(const StridedMemory& memory, const Mesh& mesh, int64_t size) {
  int64_t first = memory.offset.base;
  int64_t last = memory.offset.base;
  for (const auto& [variable, coefficient] : TermsOf(memory.offset)) {
    const std::string name = variable.substr(variable.find('.') + 1);
    const std::optional<Axis> axis = AxisFromName(name);
    const int64_t members = axis ? mesh.size(*axis) : 1;
    (coefficient > 0 ? last : first) += coefficient * (members - 1);
  }
  for (size_t i = 0; i < memory.sizes.size(); ++i) {
    if (memory.sizes[i] == 0) return true;
    (memory.strides[i] > 0 ? last : first) += memory.strides[i] * (memory.sizes[i] - 1);
  }
  return first >= 0 && last < size;
}

}  // namespace autosp::checker
