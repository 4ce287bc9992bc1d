// A model of tests/zoo with PyTorch's own numbers, and runs of its programs on virtual ranks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/planner/compile_job.h"
#include "tests/worker/executor/virtual_ranks.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {

class ZooModel {
 public:
  // `name` is a folder of tests/zoo; `weights_of` another whose archive has the weights.
  static absl::StatusOr<std::unique_ptr<ZooModel>> Load(const std::string& name);

  const ImportedModel& model() const { return model_; }
  const NamedTensors& weights() const { return weights_; }

  // Also lengths that the archive was not exported for: cases are tiny, and say up to 32 tokens.
  void AllowAnyLength() { model_.symbol_ranges.clear(); }

  // A job of this shape, with the data fed as the model wants it.
  JobSpec Job(int64_t batch, int64_t seq_len) const;
  // Compiles for the mesh and makes the ranks.
  absl::StatusOr<std::unique_ptr<VirtualRanks>> Start(const JobSpec& job, const Mesh& mesh,
                                                      Program* program = nullptr,
                                                      const VirtualRankOptions& options = {}) const;
  // The same of a job that is prepared, for several meshes.
  absl::StatusOr<std::unique_ptr<VirtualRanks>> Start(const PreparedJob& prepared, const Mesh& mesh,
                                                      const MemoryChoice& memory, Program* program,
                                                      const VirtualRankOptions& options = {}) const;
  // The gradient of a parameter by any of its names.
  absl::StatusOr<std::string> Canonical(const Program& program, const std::string& name) const;

 private:
  ImportedModel model_;
  NamedTensors weights_;
};

// Those of `tensors` whose name starts with `prefix`, without it.
NamedTensors WithPrefix(const NamedTensors& tensors, const std::string& prefix);

// Every 7th element where the reference holds a sample; all else the tensor itself, flattened.
at::Tensor LikeReference(const at::Tensor& ours, const at::Tensor& reference);

// "" where every tensor is within the oracle's norm, else the worst one with both numbers:
// max|a - b| <= tolerance * max(max|b|, 1e-3 * G), G the largest entry of all of `expected`.
std::string CompareGradients(const NamedTensors& actual, const NamedTensors& expected,
                             double tolerance);

}  // namespace autosp
