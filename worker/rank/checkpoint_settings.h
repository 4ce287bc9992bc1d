// What of a job decides how training goes on from a checkpoint, apart from the tensors themselves.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "checkpoint/manifest.h"
#include "compiler/config/job_spec.h"

namespace autosp {

// Keys of the job file that say which sequences a step sees and which numbers are drawn. Others
// (learning rate, mesh, number of ranks, steps) may be different when a job goes on.
std::map<std::string, std::string> CheckpointSettings(const JobSpec& job, int64_t num_tokens);

// Ok if a job with these settings and tensors can go on from the checkpoint; else the first key or
// tensor that is different, and what to do.
absl::Status CheckMatches(const CheckpointManifest& manifest,
                          const std::map<std::string, std::string>& settings,
                          const std::vector<ManifestTensor>& tensors, int64_t num_steps);

}  // namespace autosp
