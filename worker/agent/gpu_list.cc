#include "worker/agent/gpu_list.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/errors.h"
#include "common/program_output.h"
#include "common/status_macros.h"

namespace autosp::agent {
namespace {

constexpr size_t kMaxOutputBytes = 1 << 20;
constexpr int kMaxGpus = 1024;

absl::StatusOr<std::string> RunLister(const std::string& rank_binary) {
  ASSIGN_OR_RETURN(ProgramOutput output,
                   RunForOutput({rank_binary, "--list-gpus"}, kMaxOutputBytes));
  if (output.exit.ok()) return std::move(output.text);
  return FailedPrecondition("it ", output.exit.ToString(), ", saying: ", output.text);
}

}  // namespace

absl::StatusOr<std::vector<GpuInfo>> ListGpus(const std::string& rank_binary) {
  const std::string what = rank_binary + " --list-gpus";
  ASSIGN_OR_RETURN(const std::string output, RunLister(rank_binary), what);
  // The library may log before.
  ASSIGN_OR_RETURN(
      std::vector<GpuInfo> gpus,
      ParseGpuList(absl::string_view(output).substr(std::min(output.rfind("[{"), output.size()))),
      what);
  return gpus;
}

absl::StatusOr<std::vector<GpuInfo>> ParseGpuList(absl::string_view json) {
  const auto list = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array() || list.empty() || list.size() > kMaxGpus) {
    return InvalidArgument("'", json.substr(0, 200), "' is no list of GPUs");
  }
  std::vector<GpuInfo> gpus;
  for (const auto& each : list) {
    const bool fits = each.is_object() && each.contains("index") && each.contains("name") &&
                      each.contains("memory_bytes") && each["index"].is_number_integer() &&
                      each["name"].is_string() && each["memory_bytes"].is_number_integer();
    if (!fits || each["index"].get<int64_t>() != static_cast<int64_t>(gpus.size()) ||
        each["memory_bytes"].get<int64_t>() <= 0) {
      return InvalidArgument("'", each.dump().substr(0, 200), "' does not describe GPU ",
                             gpus.size());
    }
    gpus.push_back({.index = static_cast<int>(gpus.size()),
                    .name = each["name"].get<std::string>(),
                    .memory_bytes = each["memory_bytes"].get<int64_t>()});
  }
  return gpus;
}

}  // namespace autosp::agent
