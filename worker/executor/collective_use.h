// What the collectives of a section moved, as counted by the collectives themselves.
#pragma once

#include <cstdint>

#include "compiler/program/collective_bytes.h"
#include "compiler/program/mesh.h"
#include "compiler/program/program.h"

namespace autosp {

struct CollectiveUse {
  CollectiveKind kind = CollectiveKind::kBarrier;
  Phase phase = Phase::kForward;
  AxisList axes;
  int64_t calls = 0;
  int64_t bytes_received = 0;
  double seconds = 0;  // inside the collective and its packing
};

}  // namespace autosp
