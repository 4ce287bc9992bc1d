// Where the time of a section goes, by instruction. Off unless asked for: on a GPU every
// instruction is waited for, so that its time is its own, and a step takes longer than without.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/executor/environment.h"
#include "worker/executor/step.h"

namespace autosp {

struct ProfileRow {
  const Instruction* instruction = nullptr;
  int64_t runs = 0;
  double seconds = 0;
  double cpu_seconds = 0;       // of all threads of the process: tells waiting from computing
  int64_t bytes_allocated = 0;  // highest rise of live bytes over the instruction; device account
  int64_t num_conformed = 0;
  int64_t num_unshared = 0;
};

class Profile {
 public:
  // `gpu` is what computes, null on CPUs; it outlives the profile.
  Profile(int num_rows, Gpu* gpu) : rows_(num_rows), gpu_(gpu) {}

  // The first run warms up (kernels are loaded, caches filled): the second one forgets it.
  void BeginRun();
  void WaitForGpu() const;
  ProfileRow& row(int index) { return rows_[index]; }
  const std::vector<ProfileRow>& rows() const { return rows_; }

  // Two tables: by kind, op and phase, and the `num_rows` instructions that took longest.
  std::string ToText(const Program& program, int num_rows = 30) const;

 private:
  std::vector<ProfileRow> rows_;
  Gpu* const gpu_;
  int num_runs_ = 0;
};

// Measures one run of one instruction. A loop's row includes its body.
class ProfileScope {
 public:
  ProfileScope(Profile& profile, const PreparedStep& step, const RunState& state,
               const MemoryAccount* account);
  ~ProfileScope();
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  ProfileRow& row_;
  const RunState& state_;
  const MemoryAccount* account_;
  int64_t start_ns_;
  int64_t start_cpu_ns_;
  int64_t live_bytes_;
  int64_t num_conformed_;
  int64_t num_unshared_;
};

}  // namespace autosp
