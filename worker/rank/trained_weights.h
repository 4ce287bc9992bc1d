// The weights that a rank holds after training, as the state dict of the user's model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "compiler/config/job_spec.h"
#include "worker/checkpoint/state_dict_writer.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/executor/executor.h"
#include "worker/rank/rank_config.h"

namespace autosp {

// The present value of a name of the state dict, whole: the optimizer's fp32 master where there is
// one, else the program's tensor, else (the program has no use for it) what it was at the start.
// Where ranks hold parts, all of them must ask for it together.
absl::StatusOr<at::Tensor> TrainedWeight(const Executor& executor, WeightFiles& initial,
                                         const std::string& name);

// The names of the state dict, and which values of a checkpoint of the program have them.
std::vector<StateDictEntry> StateDictOf(const Program& program, const WeightFiles& initial);

// Writes the state dict as model files (checkpoint/model_files.h) into the output folder, one
// tensor after the other: no rank holds all of them. While one rank writes, all others give it
// their parts. The files take their names when all are written; attempts do not write into one
// another's.
absl::StatusOr<std::vector<WrittenFile>> WriteTrainedWeights(const Executor& executor,
                                                             WeightFiles& initial,
                                                             const OutputSpec& output,
                                                             const RankConfig& config);

absl::Status GivePartsOfTrainedWeights(const Executor& executor, WeightFiles& initial,
                                       const OutputSpec& output);

// Writes the text as "config.json" into `directory`.
absl::StatusOr<WrittenFile> WriteModelConfig(const std::string& text, const std::string& directory);

}  // namespace autosp
