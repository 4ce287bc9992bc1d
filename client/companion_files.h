// The files that transformers wants beside the weights of a model: its configuration and tokenizer.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/model_export.h"

namespace autosp {

struct CompanionSources {
  std::string config;                  // config.json, or a folder with that; empty: none
  std::string generation_config;       // a file; empty: that of the folder, if there is one
  std::vector<std::string> tokenizer;  // files, and folders with the usual ones
};

// Which file is copied under which name. Errors name a path that has nothing to copy, a
// configuration that is no JSON table, and a name that is there twice or is one of the weights.
absl::StatusOr<std::vector<CompanionFile>> FindCompanions(const CompanionSources& sources);

// What somebody who loads the model should know: it has no configuration, or one that states
// another type than its weights have ("float32"; empty: they have several).
std::vector<std::string> CompanionNotes(const std::vector<CompanionFile>& files,
                                        const std::string& dtype);

}  // namespace autosp
