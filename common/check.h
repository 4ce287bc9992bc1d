// CHECK for our own bugs only: what a user or the network can cause is a Status.
//
//   AUTOSP_CHECK(rank < world_size, "rank ", rank, " of ", world_size);
//
// Always on, in every build type. Prints the place, the condition and the parts, then aborts.

#pragma once

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace autosp::check_internal {

[[noreturn]] void Fail(const char* file, int line, const char* condition,
                       absl::string_view message);

}  // namespace autosp::check_internal

#define AUTOSP_CHECK(condition, ...)                                               \
  do {                                                                             \
    if (!(condition)) [[unlikely]] {                                               \
      ::autosp::check_internal::Fail(__FILE__, __LINE__, #condition,               \
                                     absl::StrCat("" __VA_OPT__(, ) __VA_ARGS__)); \
    }                                                                              \
  } while (false)
