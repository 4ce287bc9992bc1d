// What the outputs of a module are called.
#pragma once

#include <string>
#include <vector>

#include "compiler/import/exported_program.h"

namespace autosp {

// One name per output: "loss" for what the archive marks as the loss, else the dictionary key or
// field under which the module returns it, else "output_0" by position. Names are unique.
std::vector<std::string> OutputNames(const exported::Program& program);

}  // namespace autosp
