#include "compiler/lowering/sink_zeros.h"

#include <map>
#include <utility>

namespace autosp {

void SinkZeros(std::vector<Instruction>& body) {
  std::map<ValueId, size_t> first_use;
  std::map<size_t, std::vector<size_t>> due;  // zeros by where they go
  for (size_t i = body.size(); i-- > 0;) {
    if (body[i].op == "aten.zeros.default") {
      const auto use = first_use.find(body[i].results[0]);
      if (use != first_use.end()) due[use->second].push_back(i);
      continue;
    }
    for (ValueId id : AllReadsOf(body[i])) first_use[id] = i;
  }
  std::vector<bool> moves(body.size(), false);
  for (const auto& [use, zeros] : due) {
    for (size_t i : zeros) moves[i] = true;
  }
  std::vector<Instruction> result;
  for (size_t i = 0; i < body.size(); ++i) {
    if (moves[i]) continue;
    const auto here = due.find(i);
    if (here != due.end()) {
      // They were found from the end.
      for (auto at = here->second.rbegin(); at != here->second.rend(); ++at) {
        result.push_back(body[*at]);
      }
    }
    result.push_back(std::move(body[i]));
  }
  body = std::move(result);
}

}  // namespace autosp
