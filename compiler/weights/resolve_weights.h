// Where the initial value of each parameter and buffer of a model lies: in its archive, or in
// safetensors files that stand for it.
//
// The compiler resolves before a job is accepted, and each rank before it reads: one set of rules,
// so that what was accepted can be loaded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/weights/safetensors_reader.h"

namespace autosp {

struct ResolvedWeight {
  WeightRef ref;
  std::vector<std::string> aliases;  // other names of the state dict, of tied weights
  std::string found_as;              // its name in the safetensors files; empty: in the archive
  bool is_in_state_dict = false;     // else only the archive has it (a constant)
};

struct ResolvedWeights {
  std::vector<ResolvedWeight> weights;                   // in the order of ImportedModel::weights
  std::shared_ptr<const SafetensorsReader> safetensors;  // null: all is in the archive
  std::vector<std::string> unused;  // names in the safetensors files that the model has not
  std::string missing;              // a sentence on what has no bytes anywhere; empty: nothing
};

enum class MissingWeights {
  kRefuse,
  kLeave,  // as they are: WeightRef::is_empty, and `found_as` is empty
};

// `weights_path` is a safetensors file or a folder of such; empty: the weights in the archive.
// Every parameter and buffer must be there with its shape and a type that converts; the error lists
// all that is wrong, by file and tensor. What only the archive has comes from there in any case.
absl::StatusOr<ResolvedWeights> ResolveWeights(const ImportedModel& model,
                                               const std::string& weights_path,
                                               MissingWeights missing = MissingWeights::kRefuse);

}  // namespace autosp
