// One model from several archives: parts that were exported apart, because the whole cannot be
// traced as one graph or is put together elsewhere. The result is the graph of the unsplit model.
//
// What feeds the inputs of a part, in this order:
//   1. an output of an earlier part that has the input's name (a module that returns a dictionary
//      or dataclass); the nearest before it;
//   2. the data, where an earlier part has a data input of that name: it is one input;
//   3. the outputs without a name of the part right before, in order, for the first inputs that
//      are left;
//   4. the data.
// What no part takes is an output of the model: of the last part by its own names, of others by
// "part.name". Every part but the last has an output that a later one takes. Where an output
// without a name could be an input of the next part that the data feeds, and nothing takes it or an
// earlier part has that input, it is refused: which of the two was meant cannot be seen.
//
// A parameter of the same name in two parts is refused unless it is said to be tied: whether it is
// one parameter or two cannot be seen.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/import/pt2_archive.h"

namespace autosp {

struct ModelPart {
  std::string name;  // in messages, and in front of names: the archive's without ".pt2"
  ImportedModel model;
  absl::Span<const std::byte> bytes = {};  // of the archive; empty: tied weights are not compared
};

// Each group of `tied` is one parameter under several names, or under one name in several parts.
// Errors name the part, the input or parameter, and the remedy.
absl::StatusOr<ImportedModel> LinkModels(const std::vector<ModelPart>& parts,
                                         const std::vector<std::vector<std::string>>& tied);

// Imports the archives of a job's model, and links them if there are several.
absl::StatusOr<ImportedModel> ImportModel(const std::vector<std::string>& paths,
                                          const std::vector<std::vector<std::string>>& tied,
                                          const ImportOptions& options = {});

}  // namespace autosp
