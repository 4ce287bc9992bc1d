// A job's plan, the model as it was exported and its one-device program, all small: what
// `autosp-cli verify` runs beside each other to prove that the plan computes what the model does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/planner/plan.h"
#include "compiler/program/mesh.h"

namespace autosp {

struct VerificationRequest {
  std::optional<int64_t> seq_len;     // unset: short, at most the job's
  std::optional<int64_t> batch_size;  // unset: a few sequences for each place of dp and accum
  // Unset: that of the job's plan. One micro-step stands for those that the job asks for.
  std::optional<Mesh> mesh;
  // With a mesh: what the plan gives up for memory; unset: what the job says.
  std::optional<MemoryChoice> memory = std::nullopt;
  int64_t memory_bytes = INT64_MAX;  // of the machine that will run it
};

struct Verification {
  JobSpec job;  // of all programs: short, one step
  Mesh mesh;    // of the plan
  // Texts of programs.
  std::string plan;
  std::string one_device;
  std::string exact;  // the one-device program in fp32; empty where the plan is in fp32 itself
  // Text of the graph that PyTorch's operators run one by one: what the plan is held against. Empty
  // where that is a program: the model needs more memory than there is, or draws random numbers for
  // other elements than the plan.
  std::string exported;
  std::string proof;   // for people: what the checker says of the plan
  std::string oracle;  // for people: what the plan is held against, and why if not the export
  std::vector<std::string> warnings;  // about the model, at the sizes of `job`
  int64_t needed_bytes = 0;           // of memory, with all ranks in one process
};

// The mesh is the one that CompileModel chooses at the job's own size, on a cluster that has at
// least the ranks that the job asks for: virtual ranks need no devices. At most two micro-steps are
// left of its gradient accumulation. A clipping of the norm stays in the program but cuts nothing,
// so that it cannot hide a wrong factor.
// Error: the checker disproves the plan, as planning would.
absl::StatusOr<Verification> MakeVerification(const ImportedModel& model, const JobSpec& job,
                                              const ClusterSpec& cluster,
                                              const VerificationRequest& request);

// The same for a job that was planned, on that plan's mesh, at a short length. Reads its archive.
absl::StatusOr<Verification> VerifyPlanned(const JobSpec& job, const ClusterSpec& cluster,
                                           const PlanSummary& plan);

// Names what a verification runs: the programs and the graph, and the version of AutoSP that runs
// them.
std::string DigestOf(const Verification& verification);

}  // namespace autosp
