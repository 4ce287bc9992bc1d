// From a job file on disk to what is submitted.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autosp/v1/coordinator.pb.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_files.h"
#include "compiler/config/job_spec.h"

namespace autosp {

struct LoadedJob {
  JobSpec spec;  // with absolute paths
  std::vector<JobFile> files;
  // Whether its training data was found; only LoadJobForVerify goes on without.
  absl::Status data_status;
  // What it was read from.
  std::string path;
  std::string text;
  std::vector<std::string> overrides;
};

// Reads, checks and resolves a job file. `overrides` are "path=value" (ParseJobYaml); relative
// paths in them count from the folder of the job file, like those in it.
absl::StatusOr<LoadedJob> LoadJob(const std::string& path,
                                  const std::vector<std::string>& overrides);

// The same for a job whose data may be missing or too little.
absl::StatusOr<LoadedJob> LoadJobForVerify(const std::string& path,
                                           const std::vector<std::string>& overrides);

// An error of the compiler or the server about the job, with the place in its file where it speaks
// of a key.
absl::Status Located(const absl::Status& status, const LoadedJob& job);

// The cluster of a file, or this machine where `path` is empty.
absl::StatusOr<ClusterSpec> LoadCluster(const std::string& path);

// Reads every file once, for its digest.
absl::StatusOr<v1::SubmitJobRequest> MakeSubmission(const LoadedJob& job);

}  // namespace autosp
