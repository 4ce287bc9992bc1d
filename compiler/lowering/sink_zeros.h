// Makes zeros where they are needed, and not before.
#pragma once

#include <vector>

#include "compiler/program/program.h"

namespace autosp {

// Sums begin as zeros, which are made where their first term was lowered. What is made again for
// that term comes between, and would find them taking memory:
//
//   before  %sum = call aten.zeros.default(...)      after  %x = call ... (made again)
//           %x = call ... (made again)                      %sum = call aten.zeros.default(...)
//           for tile { accumulate(%sum, f(%x)) }            for tile { accumulate(%sum, f(%x)) }
//
// Each moves to just before the first instruction of its list that reads or writes it. Requires:
// frees are not inserted yet.
void SinkZeros(std::vector<Instruction>& body);

}  // namespace autosp
