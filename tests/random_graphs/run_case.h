// Trains one step of a graph on virtual ranks, as the planner plans it, and compares it with the
// graph run eagerly.
#pragma once

#include <cstdint>
#include <string>

#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/program/mesh.h"

namespace autosp {

struct RandomCase {
  Graph graph;
  Mesh mesh;
  Recompute recompute = Recompute::kNone;
  Tiling tiling = Tiling::kNone;
  int64_t batch_size = 0;  // of the job; the graph may have been exported at another
  int64_t seq_len = 0;
  uint64_t seed = 0;  // of weights and inputs
};

enum class CaseResult {
  kEqual,
  kRefused,    // with a message for people
  kDisproved,  // the checker says that the plan is wrong
  kFailed,     // an error that no user can cause
  kDiffers,
};

struct RunOutcome {
  CaseResult result = CaseResult::kEqual;
  std::string message;     // why not equal
  std::string not_proved;  // what the checker has no table for; empty: the plan is proved
  bool is_resized = false;

  bool is_failure() const { return result > CaseResult::kRefused; }
};

RunOutcome RunCase(const RandomCase& random_case);

}  // namespace autosp
