// What torch.export leaves out of archives in silence, and what tells of it: the backward that a
// user wrote, and switches of the gradient mode inside of torch.autocast. Training such an archive
// has other gradients than training its module, and nothing else in it says so.
#pragma once

#include <string>
#include <vector>

#include "compiler/import/exported_program.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Warnings, each with the place in the user's model and the remedy.
std::vector<std::string> LostGradients(const exported::Program& program);

// Of buffers that hold, after a step, what a gradient goes through: PyTorch's next backward fails,
// so that the module that was exported had no gradient there.
std::vector<std::string> WritesWithGradients(const Graph& graph);

}  // namespace autosp
