// From the typed `model.json` to a graph: scopes of nested graphs inlined, symbols resolved, calls
// completed from the op table, autocast made explicit, writes made functional.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/import/exported_program.h"
#include "compiler/ir/graph.h"

namespace autosp {

// What is known of an input beside the graph, by its qualified name.
struct InputFacts {
  bool requires_grad = false;
  // The qualified name of the input that it is tied to; empty if it stands for itself.
  std::string tied_to;
};

absl::StatusOr<Graph> ImportGraph(const exported::Program& program, std::string name,
                                  const std::map<std::string, InputFacts>& facts);

}  // namespace autosp
