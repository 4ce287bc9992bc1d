// Child processes that leave nothing behind.
//
// Each child leads a process group of its own, so that stopping it stops what it started as well;
// the group is swept when the child ends, for whatever reason. A child is always reaped.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/file.h"

namespace autosp {

struct SubprocessOptions {
  std::vector<std::string> argv;  // argv[0] is looked up in PATH if it has no slash.

  // "NAME=value", added to this process's environment or replacing what is there.
  std::vector<std::string> env;

  std::string working_directory;  // Empty: this process's.

  enum class Output { kInherit, kFile, kPipe };
  Output output = Output::kInherit;  // Where stdout and stderr of the child go, both.
  std::string output_path;           // For kFile; created if missing, appended to.

  // Descriptors that the child gets under the numbers that they have here; all others it does not.
  std::vector<int> inherited_fds;

  // The kernel kills the child (SIGKILL) when this process dies, even by kill -9. What the child
  // has started is not covered: it must pass this on.
  bool dies_with_parent = false;
};

struct ExitState {
  bool was_signaled = false;
  int code = 0;  // The exit code, or the number of the signal.

  bool ok() const { return !was_signaled && code == 0; }

  // "exited with code 3", "was killed by signal 9 (Killed)".
  std::string ToString() const;
};

// Thread-compatible: one thread at a time.
class Subprocess {
 public:
  // An error if the program cannot be executed, with its path and the reason.
  static absl::StatusOr<Subprocess> Start(const SubprocessOptions& options);

  // Kills the group and reaps the child if it still runs.
  ~Subprocess();
  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;

  // Also the id of the process group. Stays as it was after the child has ended.
  pid_t pid() const { return pid_; }

  // The reading end, for Output::kPipe. Read it to its end, or a talkative child blocks.
  const UniqueFd& output() const { return output_; }

  // Does not wait. Gives the same answer again once the child has ended.
  std::optional<ExitState> Poll();

  ExitState Wait();
  std::optional<ExitState> WaitFor(absl::Duration timeout);

  // To the whole group; nothing once the child has ended.
  void Signal(int signal_number);

  // Asks with SIGTERM, waits up to `grace`, then SIGKILL. Returns how the child ended. The child
  // answers for its own children: what it leaves in the group when it ends is killed at once.
  ExitState Stop(absl::Duration grace);

 private:
  Subprocess(pid_t pid, UniqueFd output) : pid_(pid), output_(std::move(output)) {}

  void KillAndReap();

  pid_t pid_ = -1;
  UniqueFd output_;
  std::optional<ExitState> exit_state_;
};

}  // namespace autosp
