// Ops that draw random numbers: each rank that runs one draws numbers of its own, so no plan with
// one equals one device.
#pragma once

#include <string_view>

namespace autosp {

// `op` is "aten.normal_.default". Of every op that takes a generator, and of those that draw from
// the default one.
bool DrawsRandomNumbers(std::string_view op);

}  // namespace autosp
