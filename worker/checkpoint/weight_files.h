// The initial weights of a job: the bytes inside its archive, or safetensors files that stand for
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
#include "common/mapped_file.h"
#include "compiler/import/pt2_archive.h"
#include "worker/checkpoint/safetensors_reader.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/executor/weight_source.h"

namespace autosp {

// Immutable after Open: threads may share it.
class WeightFiles final : public WeightSource {
 public:
  // `weights_path` is a safetensors file or a folder of such; empty: the weights in the archive.
  // Checks that every parameter and buffer of the graph is there with its shape and a type that can
  // be converted; all that is wrong is in the error. What only the archive has (constants, buffers
  // that are no part of the state dict) comes from there in any case.
  static absl::StatusOr<std::unique_ptr<WeightFiles>> Open(const std::string& archive_path,
                                                           const std::string& weights_path);

  // A view of the mapped file; it keeps the mapping.
  absl::StatusOr<at::Tensor> Load(const std::string& name) override;

  // What the model's state dict holds: every name, tied ones each, with the exported type and
  // shape.
  const std::vector<TensorSpec>& state_dict() const { return state_dict_; }

  // The name under which Load and programs know a name of the state dict: that of the first of tied
  // ones.
  const std::string& CanonicalName(const std::string& name) const;

 private:
  struct Weight {
    WeightRef ref;
    std::vector<std::string> aliases;
    std::string found_as;  // its name in the safetensors files; empty: read it from the archive
  };

  WeightFiles() = default;
  void AddWeights(ImportedModel model);
  absl::Status FindAll();
  absl::Status FindOne(Weight& weight) const;

  std::shared_ptr<const MappedFile> archive_;
  std::shared_ptr<const SafetensorsReader> safetensors_;  // null: none
  std::map<std::string, Weight> weights_;                 // by canonical name
  std::map<std::string, std::string> canonical_names_;
  std::vector<TensorSpec> state_dict_;
};

}  // namespace autosp
