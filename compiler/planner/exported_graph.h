// The graph that plans are held against: as it was exported, before any pass that a plan goes
// through.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/ir/graph.h"

namespace autosp {

struct ExportedGraph {
  Graph graph;
  // Whether the job's batch or length are not those of the export. Then, and only then, a pass
  // (resize-inputs) has run.
  bool is_resized = false;
  int64_t needed_bytes = 0;  // to run it eagerly: what autograd may keep, and gradients
};

// The graph at the sizes of `job`. Error: what compiling the job would say of them.
absl::StatusOr<ExportedGraph> MakeExportedGraph(const ImportedModel& model, const JobSpec& job);

// Why no plan can be held against the graph run by PyTorch: it drops elements, which a plan
// chooses in a way of its own, or rounds to half precision. Empty where one can.
std::string WhyNotComparable(const Graph& graph);

}  // namespace autosp
