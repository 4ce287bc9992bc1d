// The tiny modules of tests/zoo/cases and tests/zoo/refused, and the jobs that train them.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "tests/equality/zoo_model.h"

namespace autosp {

// Folders of tests/zoo/`folder`, sorted.
std::vector<std::string> ZooFolders(const std::string& folder);

// Says how each input is fed and what its dimensions are; export_cases.py has the same table.
void FeedCaseInputs(const ImportedModel& model, JobSpec* job);

// Cases that know of one micro-step alone what they need of the batch: refused with accumulation.
const std::set<std::string>& CasesThatNeedTheWholeBatch();

// Cases whose batch of two sequences has six instead: three pairs, which two ranks cut.
const std::set<std::string>& CasesOfThreePairs();

}  // namespace autosp
