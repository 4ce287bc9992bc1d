// A number that stands for a group.
#pragma once

#include <cstdint>

#include "worker/collectives/process_group.h"

namespace autosp {

// Of the name and the ranks: members that disagree about the group notice.
uint64_t GroupDigest(const ProcessGroup& group);

}  // namespace autosp
