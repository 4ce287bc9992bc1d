// Moves what the backward needs much later to the memory of the host.
#pragma once

#include <vector>

#include "compiler/config/job_spec.h"
#include "compiler/program/program.h"

namespace autosp {

// A value of the forward that the backward reads is copied to the host after its last use in the
// forward, and back before its first in the backward:
//
//   forward   %x_host = copy(%x) : ... pinned_host        %x is freed
//   backward  %x_back = copy(%x_host)                     read instead of %x from here on
//
// Only where it lies idle for a good part of the step, and is not small beside the largest such
// value: what every layer hands on, after segments are recomputed. For kEveryLayer a shorter idle
// time will do, as the last layers would be most of what is left on the device; and what is read
// before and after the derivative of an attention, where the peak is, comes back twice. Copies run
// in the order of the program; nothing computes meanwhile. The bits are the same. Returns the
// number of values; none without `offload`.
// Requires: `backward` is the backward of `forward`, and frees are not inserted yet.
int64_t OffloadKept(Program& program, Offload offload, std::vector<Instruction>& forward,
                    std::vector<Instruction>& backward);

}  // namespace autosp
