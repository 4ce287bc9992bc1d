// The graph that plans are held against: as it was exported, before any pass that a plan goes
// through. Random numbers are those that plans draw, used as PyTorch defines its ops.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/ir/graph.h"
#include "compiler/program/program.h"

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

// Why no plan can be held against the graph run by PyTorch: it draws random numbers for other
// elements than the plan, whose program for one device is `one_device`. Empty where one can.
std::string WhyNotComparable(const Graph& graph, const Program& one_device);

}  // namespace autosp
