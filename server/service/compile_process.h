// Compiles each job in a child process: an archive on which the compiler crashes, never ends or
// takes all memory costs its submitter an error, and no other job anything.
//
// The child is the program that runs, started again: the two are of one version, also while another
// one is being installed. Request and answer are files in memory, without a name; the child
// inherits these two and its output, and nothing else. A crash is not of the job but of AutoSP, and
// the error says so; what the compiler refuses comes out of the child as it is.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/service/job_compiler.h"

namespace autosp {

struct CompileLimits {
  // Below what clients wait for the answer to a submission, and not long, since two that take all
  // of it keep out all others. A plan of a hundred thousand nodes takes a minute.
  absl::Duration time = absl::Minutes(5);
  // Of one compilation, beyond what the program itself has. Archives and weights are mapped and do
  // not count: pages of files leave memory when others need it.
  int64_t memory_bytes = int64_t{4} << 30;
};

// For a machine, or a control group, that has so much. kMaxCompiles of them leave a fifth.
int64_t CompileMemoryOf(int64_t machine_bytes);

// Whether a compilation has ended this way through no word of the compiler: it crashed, or there
// was too little time or memory.
bool IsCompilerFailure(const absl::Status& status);

// main() has begun with IsCompileChild.
JobCompiler InChildProcess(CompileLimits limits);

// Whether this process was started to compile one job. To be asked first thing in main(): then run
// the job, and return what that returns.
bool IsCompileChild(int argc, char** argv);
int RunCompileChild(char** argv, const Compiler& compiler);

}  // namespace autosp
