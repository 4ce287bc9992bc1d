// The buffers that a collective is packed into, and out of.
#pragma once

#include <cstdint>

#include "compiler/program/collective_bytes.h"
#include "compiler/program/program.h"

namespace autosp {

// What a collective allocates beside its operands and results. A tensor alone whose memory already
// is the buffer, one block for each peer behind the other, is used in place.
struct ExchangeBuffers {
  int64_t send_bytes = 0;  // from the start to the wait
  int64_t recv_bytes = 0;  // from the start until results have been copied from them
  bool sends_in_place = false;
  // Results are the buffer, and there from the start; else they are allocated after the wait.
  bool receives_in_place = false;
};

// Of a `start` over `group_size` members, as ranks execute it (worker/executor/packing.h).
ExchangeBuffers BuffersOf(const Program& program, const Instruction& start, CollectiveKind kind,
                          int64_t group_size);

}  // namespace autosp
