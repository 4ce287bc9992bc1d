// A small real job for tests: a model of the zoo, text to train on, and its program for any mesh.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/subprocess.h"
#include "compiler/config/job_spec.h"
#include "compiler/program/program.h"
#include "tests/common/temp_dir.h"

namespace autosp {

class RankFixture {
 public:
  // llama of the zoo: batch 4, 48 tokens a sequence, SGD with clipping, one held-out batch.
  explicit RankFixture(int64_t steps);

  const TempDir& dir() const { return dir_; }
  const JobSpec& job() const { return job_; }
  JobSpec& job() { return job_; }
  std::string output_directory(const std::string& name) const { return dir_.Join(name); }

  absl::StatusOr<Program> Compile(const Mesh& mesh) const;

  // Writes program, job and specs below `name`, and starts autosp-rank without an agent. Its log is
  // RankLog(name, rank).
  absl::StatusOr<Subprocess> StartRank(const std::string& name, const Mesh& mesh,
                                       int64_t rank) const;
  std::string RankLog(const std::string& name, int64_t rank) const;
  std::string ShmPrefix(const std::string& name) const;

 private:
  TempDir dir_;
  JobSpec job_;
};

}  // namespace autosp
