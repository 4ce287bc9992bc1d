// From a graph at the job's sizes to the program that ranks run: forward, backward, reductions,
// optimizer and frees, in a "step" and an "eval" section.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/program/program.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// What is given up for memory. kAuto is as kNone, or kSendRecv. The stage of ZeRO: zero_shard.h.
// `fine_cuts`, with offload of every layer: segments are parts of layers where that makes them
// smaller, and more waits on the host.
struct MemoryChoice {
  Recompute recompute = Recompute::kNone;
  Tiling tiling = Tiling::kNone;
  Offload offload = Offload::kNone;
  int64_t zero_stage = 0;
  RingExchange ring_exchange = RingExchange::kSendRecv;
  bool fine_cuts = false;
  friend bool operator==(const MemoryChoice&, const MemoryChoice&) = default;
};

struct LoweringOptions {
  Mesh mesh;
  OptimizerSpec optimizer;
  double clip_grad_norm = 0;            // 0: no clipping
  std::string loss_output;              // name or index; empty: the only scalar output
  std::vector<std::string> frozen;      // globs over parameter names
  std::vector<std::string> no_decay;    // likewise
  std::map<std::string, int64_t> pads;  // by input: what fills padded positions
  int64_t seed = 0;                     // of dropout
  MemoryChoice memory;
};

struct LoweredProgram {
  Program program;
  std::vector<std::string> decisions;   // sentences on how cross-token ops were split
  std::vector<std::string> warnings;    // of what every rank computes in full
  int64_t num_gathered_attentions = 0;  // that every rank of sp computes in full
};

// Requires: all graph passes ran. Ensures: VerifyProgram holds.
absl::StatusOr<LoweredProgram> LowerToProgram(const Graph& graph, GraphFactors& factors,
                                              const LoweringOptions& options);

// What ops allocate themselves, by their rules, on the sizes that they have in the end
// (set_workspaces.cc).
void SetWorkspaces(Program& program);

// Ends the life of each value after its last use, in every section (insert_frees.cc).
void InsertFrees(Program& program);

}  // namespace autosp
