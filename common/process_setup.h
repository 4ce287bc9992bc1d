// What our programs change of their own process before anything else.
#pragma once

#include <cstdint>

namespace autosp {

// Raises the number of files that this process may have open to what the system allows it, as
// servers do: 1024, the usual soft limit, is kept for programs that wait with select(). Children
// inherit it. Returns what holds now.
int64_t RaiseOpenFilesLimit();

// The most that RaiseOpenFilesLimit can reach.
int64_t MaxOpenFiles();

}  // namespace autosp
