// Walks a program and predicts what a rank will need: memory over time, and bytes moved.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/planner/plan.h"
#include "compiler/program/program.h"

namespace autosp {

struct AccountPeak {
  int64_t persistent_bytes = 0;  // parameters, buffers, states: held all the time
  int64_t peak_bytes = 0;        // with them
  std::string peak_instruction;  // where the peak is
  std::string peak_where;        // " in layers.0 at model.py:12"; see Source::Where
};

struct SectionPrediction {
  std::map<Account, AccountPeak> memory;
  std::vector<CollectiveTotals> collectives;
};

// Every storage lives from its first value to the free of its last. Kernels' own allocations are
// their `workspace_bytes`; packing buffers of collectives are charged to `communication`, and to
// `device`, whose peak is of both together. `library_bytes` of the device are taken all the time,
// beside what the program holds. Error: a section that the program does not have, or an instruction
// that reads a freed value.
absl::StatusOr<SectionPrediction> SimulateSection(const Program& program,
                                                  const std::string& section,
                                                  int64_t library_bytes = 0);

}  // namespace autosp
