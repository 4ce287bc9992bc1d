// Jobs and nodes as pages and tables for people.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "autosp/v1/coordinator.pb.h"
#include "autosp/v1/job.pb.h"
#include "client/progress.h"

namespace autosp {

// One row per job. `now` is what ages are counted from.
std::string JobTable(const std::vector<v1::Job>& jobs, absl::Time now);

std::string NodeTable(const std::vector<v1::Node>& nodes, absl::Time now);

// Everything about one job: `autosp-cli status`.
std::string JobPage(const v1::Job& job, absl::Time now);

// "checkpoint of step 40: 12.3 MiB in 0.2s", "resumed at step 41 from /out/checkpoints/...".
std::string CheckpointLine(const v1::CheckpointReport& checkpoint);

// "verification: the plan computes what the model does on one device; loss has error 1e-08, ...".
std::string VerificationLine(const v1::VerificationDone& verification);

// What is shown when a job has ended: losses, throughput, memory, outputs, or why it failed.
// `tracker` has seen its steps.
std::string ClosingSummary(const v1::Job& job, const ProgressTracker& tracker);

// Why a job ended, with the last log lines; empty where there is no cause.
std::string CauseText(const v1::Job& job);

}  // namespace autosp
