// The initial weights of a job: the bytes inside its archives, or safetensors files that stand for
// them. Mapped; what no rank uses is never read.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors_writer.h"
#include "common/mapped_file.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/weights/resolve_weights.h"
#include "compiler/weights/safetensors_reader.h"
#include "worker/executor/weight_source.h"

namespace autosp {

// Immutable after Open: threads may share it.
class WeightFiles final : public WeightSource {
 public:
  // Checks all of them, as ResolveWeights does; that was done before the job was accepted, but
  // files may have changed since.
  static absl::StatusOr<std::unique_ptr<WeightFiles>> Open(
      const ModelSpec& model, MissingWeights missing = MissingWeights::kRefuse);

  // A view of the mapped file; it keeps the mapping. NOT_FOUND for what Open left missing.
  absl::StatusOr<at::Tensor> Load(const std::string& name) override;

  // What the model's state dict holds: every name, tied ones each, with the exported type and
  // shape.
  const std::vector<TensorSpec>& state_dict() const { return state_dict_; }

  // The name under which Load and programs know a name of the state dict: that of the first of tied
  // ones.
  const std::string& CanonicalName(const std::string& name) const;

 private:
  WeightFiles() = default;
  void AddWeights(ResolvedWeights resolved);

  std::vector<std::shared_ptr<const MappedFile>> archives_;
  std::shared_ptr<const SafetensorsReader> safetensors_;  // null: none
  std::map<std::string, ResolvedWeight> weights_;         // by canonical name
  std::map<std::string, std::string> canonical_names_;
  std::vector<TensorSpec> state_dict_;
};

}  // namespace autosp
