// The parameters, buffers and constants of a model in several archives.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/import/link_models.h"

namespace autosp {

// Decides for each weight of a part whether it is a weight of its own.
class WeightLinks {
 public:
  WeightLinks(const std::vector<ModelPart>& parts,
              const std::vector<std::vector<std::string>>& tied);

  // Adds a weight to `model`, or finds the one that it is tied to; returns its value. `value` is
  // what a new one is called there, with its type.
  absl::StatusOr<ValueId> Add(const ModelPart& part, const GraphInput& input, const WeightRef& ref,
                              const GraphValue& value, ImportedModel* model);

  // Every name that is said to be tied is there, and ties something.
  absl::Status CheckTied() const;

 private:
  struct Group {
    std::vector<std::string> names;
    std::map<std::string, bool> is_met;
    int num_weights = 0;
    size_t input = 0;                   // of the model, where num_weights > 0
    size_t weight = 0;                  // of the model
    absl::Span<const std::byte> bytes;  // of the archive that has it
  };
  Group* FindGroup(const GraphInput& input);
  absl::StatusOr<ValueId> Tie(const ModelPart& part, const GraphInput& input, const WeightRef& ref,
                              const TensorType& type, Group& group, ImportedModel* model);
  absl::Status TakeNames(const ModelPart& part, const GraphInput& input);

  std::vector<Group> groups_;
  std::string FreeName(const std::string& part, const std::string& name) const;

  std::map<std::string, std::string> part_of_name_;  // of the state dict
  std::set<std::string> reserved_;  // names of the state dict of all parts, and of constants so far
};

}  // namespace autosp
