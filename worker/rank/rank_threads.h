// The threads that operators of a rank may use.
#pragma once

#include <cstdint>

namespace autosp {

// Makes threads of OpenMP that wait sleep, since those of other ranks want the core. OpenMP reads
// its environment when it is loaded, which is before main, so the program starts itself once more
// where that is not set. Call it first thing in main.
void EnsurePassiveWaiting(char** argv);

// The cores that this process may use, shared among the ranks of the machine; at least one each.
int ThreadsPerRank(int64_t num_local_ranks);

}  // namespace autosp
