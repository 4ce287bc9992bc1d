// What the coordinator and the process that compiles for it tell each other. Exact: what comes out
// is what went in, since a plan must not depend on where it was made.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "autosp/v1/compile.pb.h"
#include "server/service/job_compiler.h"

namespace autosp {

v1::CompileRequest CompileRequestToProto(const JobToCompile& job, int64_t memory_limit_bytes);
JobToCompile CompileRequestFromProto(const v1::CompileRequest& proto);

v1::CompileAnswer CompileAnswerToProto(const absl::StatusOr<CompiledJob>& compiled);
// Nothing, if these bytes are not a whole answer. An error is that of the job.
std::optional<absl::StatusOr<CompiledJob>> CompileAnswerFromProto(const std::string& bytes);

}  // namespace autosp
