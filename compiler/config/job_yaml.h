// Job and cluster files: YAML in, typed and checked values out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"

namespace autosp {

// Limits on what a file may ask of the parser.
inline constexpr int64_t kMaxConfigBytes = 1 << 20;
inline constexpr int kMaxConfigDepth = 16;

// Reads a job file (`version: 1`, `kind: Job`). `file` names it in messages, which have the form
// "FILE:LINE:COLUMN: subject: value; rule; remedy", one line per error, the first twenty of them.
// `overrides` are "path=value", for example "training.steps=20": they replace what the text says.
absl::StatusOr<JobSpec> ParseJobYaml(absl::string_view text, absl::string_view file,
                                     const std::vector<std::string>& overrides = {});

// `message` is of an error that was found after parsing, when the job met its model or its files.
// Each line of it that begins with a key ("data.inputs.lables: ...") gets the place of that key, or
// of the nearest above it, in front: "FILE:LINE:COLUMN: ". Arguments are those of ParseJobYaml.
std::string LocateInJobYaml(absl::string_view message, absl::string_view text,
                            absl::string_view file, const std::vector<std::string>& overrides = {});

// The text that says everything about the job, defaults included:
// ParseJobYaml(CanonicalJobYaml(spec)) == spec, and equal specs give equal text.
std::string CanonicalJobYaml(const JobSpec& spec);

// Reads a cluster file (`version: 1`, `kind: Cluster`).
absl::StatusOr<ClusterSpec> ParseClusterYaml(absl::string_view text, absl::string_view file);

std::string CanonicalClusterYaml(const ClusterSpec& spec);

// The rules between keys, which ParseJobYaml applies. A spec that was built or changed in code is
// held against them here.
absl::Status CheckJobSpec(const JobSpec& spec);

}  // namespace autosp
