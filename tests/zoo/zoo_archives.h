// The archives of this folder, by the name of their folder: "llama", "cases/alibi".
#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"

namespace autosp {

// Of a file or folder in here.
std::string ZooPath(const std::string& relative);

// model.pt2, or all archives of the folder in order, which are parts of one model.
ModelSpec ZooSpec(const std::string& name);

absl::StatusOr<ImportedModel> ImportZoo(const std::string& name);

// Cases whose lengths are multiples of four.
const std::set<std::string>& CasesInBlocksOfFour();

}  // namespace autosp
