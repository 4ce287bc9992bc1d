// Reports of a rank, as they go over the wire.
#pragma once

#include <string>
#include <vector>

#include "autosp/v1/rank.pb.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

v1::RankReport HelloToProto(const RankConfig& config, const std::string& program_digest);
v1::RankReport StepToProto(const RankConfig& config, const StepInfo& info);
v1::RankReport CheckpointToProto(const RankConfig& config, const CheckpointInfo& info);
v1::RankReport FinishedToProto(const RankConfig& config, const std::vector<OutputInfo>& outputs);
v1::RankReport VerifiedToProto(const RankConfig& config, const VerificationResult& result);
v1::RankReport FailureToProto(const RankConfig& config, const FailureInfo& info);

}  // namespace autosp
