#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace autosp::check_internal {

void Fail(const char* file, int line, const char* condition, absl::string_view message) {
  std::fprintf(stderr, "%s:%d: check failed: %s%s%.*s\n", file, line, condition,
               message.empty() ? "" : ": ", static_cast<int>(message.size()), message.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace autosp::check_internal
