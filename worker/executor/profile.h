// Where the time of a section goes, by instruction. Off unless asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
  explicit Profile(int num_rows) : rows_(num_rows) {}
  ProfileRow& row(int index) { return rows_[index]; }
  const std::vector<ProfileRow>& rows() const { return rows_; }

  // Two tables: by kind, op and phase, and the `num_rows` instructions that took longest.
  std::string ToText(const Program& program, int num_rows = 30) const;

 private:
  std::vector<ProfileRow> rows_;
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
