#include "worker/rank/rank_threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace autosp {
namespace {

int NumCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return CPU_COUNT(&cores);
}

}  // namespace

void EnsurePassiveWaiting(char** argv) {
  if (getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  // By its path: started as /proc/self/exe, it would be listed as a process named exe.
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  execv(self.c_str(), argv);  // Returns only if it failed; then it is slower, not wrong.
}

int ThreadsPerRank(int64_t num_local_ranks) {
  return std::max(1, NumCores() / static_cast<int>(std::max<int64_t>(1, num_local_ranks)));
}

}  // namespace autosp
