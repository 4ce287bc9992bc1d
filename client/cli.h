// The command line as a function, so that tests can run it without a process.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/exit_code.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/planner/plan.h"

namespace autosp {

using CompileFn =
    std::function<absl::StatusOr<CompiledPlan>(const JobSpec& job, const ClusterSpec& cluster)>;

// What the commands take from the outside.
struct CliEnvironment {
  std::ostream& out;
  std::ostream& err;
  int out_fd = -1;             // under `out`, where that is a file
  bool is_terminal = false;    // `out` is one
  std::string program_folder;  // where the sibling binaries are
  CompileFn compile;
};

// `args` without the program's name.
ExitCode RunCli(const std::vector<std::string>& args, const CliEnvironment& environment);

}  // namespace autosp
