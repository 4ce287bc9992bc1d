#include "compiler/lowering/sink_zeros.h"

#include <algorithm>
#include <map>
#include <utility>

namespace autosp {

void SinkZeros(std::vector<Instruction>& body) {
  std::map<ValueId, size_t> made;             // zeros that nothing has read yet
  std::map<size_t, std::vector<size_t>> due;  // zeros by where they go
  std::vector<bool> moves(body.size(), false);
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i].op == "aten.zeros.default") {
      made[body[i].results[0]] = i;
    } else if (!made.empty()) {
      for (ValueId id : AllReadsOf(body[i])) {
        const auto zeros = made.find(id);
        if (zeros == made.end()) continue;
        due[i].push_back(zeros->second);
        moves[zeros->second] = true;
        made.erase(zeros);
      }
    }
  }
  if (due.empty()) return;
  std::vector<Instruction> result;
  for (size_t i = 0; i < body.size(); ++i) {
    if (moves[i]) continue;
    const auto here = due.find(i);
    if (here != due.end()) {
      std::ranges::sort(here->second);
      for (size_t zeros : here->second) result.push_back(std::move(body[zeros]));
    }
    result.push_back(std::move(body[i]));
  }
  body = std::move(result);
}

}  // namespace autosp
