// The files that a job names: found, measured and made absolute before anything is submitted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"

namespace autosp {

enum class JobFileRole { kArchive, kWeights, kTrainingData };

struct JobFile {
  JobFileRole role;
  std::string path;  // absolute
  int64_t size_bytes;
};

// Rewrites the paths of `spec` to absolute ones, relative ones counted from `base_dir`, and
// data.files to the files that its globs match. Returns the files, in the order archives, weights,
// data. What is missing, unreadable, or too little for one sequence is an error. Doing it twice
// changes nothing the second time.
absl::StatusOr<std::vector<JobFile>> ResolveJobFiles(const std::string& base_dir, JobSpec& spec);

// The same for the archives and the weights alone; data.files stay as they are.
absl::StatusOr<std::vector<JobFile>> ResolveModelFiles(const std::string& base_dir, JobSpec& spec);

}  // namespace autosp
