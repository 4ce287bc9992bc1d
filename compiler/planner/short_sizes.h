// The sizes at which a job is verified: small, and of the kind of its own.
#pragma once

#include <cstdint>
#include <optional>

#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/planner/prepared_job.h"
#include "compiler/program/mesh.h"

namespace autosp {

struct ShortSizes {
  int64_t batch_size = 0;  // global
  int64_t seq_len = 0;
};

// What is asked for is taken as it is; the rest is as small as the blocks of the mesh and of the
// model, and what its export took for granted of sizes, allow.
// `full`: the job at its own sizes.
ShortSizes ChooseShortSizes(const ImportedModel& model, const PreparedJob& full,
                            const TrainingSpec& training, const Mesh& mesh,
                            std::optional<int64_t> batch_size, std::optional<int64_t> seq_len);

}  // namespace autosp
