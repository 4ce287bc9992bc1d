#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "client/cli.h"
#include "common/log.h"
#include "compiler/planner/compile_job.h"

int main(int argc, char** argv) {
  autosp::InitLogging("cli");
  // A closed pipe (| head) is an error of the stream, not the end of a run that has children.
  signal(SIGPIPE, SIG_IGN);
  // So is a file that may not grow further (ulimit -f).
  signal(SIGXFSZ, SIG_IGN);
  // gRPC writes beside the error that it returns, which says more. GRPC_VERBOSITY brings it back.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const autosp::CliEnvironment environment{.out = std::cout,
                                           .err = std::cerr,
                                           .out_fd = STDOUT_FILENO,
                                           .is_terminal = isatty(STDOUT_FILENO) == 1,
                                           .program_folder = program.parent_path().string(),
                                           .compile = autosp::PlanJob};
  return static_cast<int>(autosp::RunCli({argv + 1, argv + argc}, environment));
}
