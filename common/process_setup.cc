#include "common/process_setup.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace autosp {
namespace {

int64_t AsCount(rlim_t limit) {
  return static_cast<int64_t>(std::min<rlim_t>(limit, std::numeric_limits<int64_t>::max()));
}

}  // namespace

int64_t RaiseOpenFilesLimit() {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  const rlim_t before = files.rlim_cur;
  files.rlim_cur = files.rlim_max;
  // Where it is refused, what held before still does.
  return AsCount(setrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : before);
}

int64_t MaxOpenFiles() {
  rlimit files = {};
  return getrlimit(RLIMIT_NOFILE, &files) == 0 ? AsCount(files.rlim_max) : 0;
}

}  // namespace autosp
