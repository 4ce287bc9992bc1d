// What `autosp-cli verify` shows of its result.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace autosp {

// `report` is the result of autosp-verify with what the command knows besides: "mesh", "job",
// "data", "weights", "not_compared" and the "aliases" of each gradient's parameter.
std::string VerifyReportText(const nlohmann::json& report);

}  // namespace autosp
