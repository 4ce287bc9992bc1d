#include "worker/rank/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// Fields come in the order in which people read them.
using Json = nlohmann::ordered_json;

Json MemoryToJson(const StepInfo& info) {
  Json accounts = Json::object();
  for (const auto& [account, memory] : info.memory) {
    accounts[account] = {{"current_bytes", memory.current_bytes},
                         {"peak_bytes", memory.peak_bytes}};
  }
  return accounts;
}

Json CollectivesToJson(const StepInfo& info) {
  Json rows = Json::array();
  for (const StepInfo::Collective& each : info.collectives) {
    rows.push_back({{"kind", each.kind},
                    {"phase", each.phase},
                    {"calls", each.calls},
                    {"bytes_received", each.bytes_received},
                    {"seconds", each.seconds}});
  }
  return rows;
}

// How much of the file is lines of the first `num_done` steps, in order.
int64_t BytesOfSteps(const std::string& path, int64_t num_done) {
  std::ifstream file(path);
  std::string line;
  int64_t num_bytes = 0;
  int64_t last_step = 0;
  while (num_done > 0 && std::getline(file, line) && !file.eof()) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool has_step =
        json.is_object() && json.contains("step") && json["step"].is_number_integer();
    const int64_t step = has_step ? json["step"].get<int64_t>() : 0;
    if (step <= last_step || step > num_done) break;
    last_step = step;
    num_bytes += static_cast<int64_t>(line.size()) + 1;
  }
  return num_bytes;
}

}  // namespace

// Numbers that JSON does not have (a loss that is NaN) become null.
std::string StepToJson(const StepInfo& info) {
  Json line = {{"step", info.step}, {"loss", info.loss}};
  if (info.validation_loss) line["validation_loss"] = *info.validation_loss;
  if (info.grad_norm) line["grad_norm"] = *info.grad_norm;
  line["learning_rate"] = info.learning_rate;
  line["tokens"] = info.tokens;
  line["step_seconds"] = info.step_seconds;
  if (info.step_seconds > 0) {
    line["tokens_per_second"] = static_cast<double>(info.tokens) / info.step_seconds;
  }
  line["memory"] = MemoryToJson(info);
  line["collectives"] = CollectivesToJson(info);
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<std::unique_ptr<MetricsFile>> MetricsFile::Create(const std::string& directory,
                                                                 int64_t num_done,
                                                                 RankReporter& next) {
  RETURN_IF_ERROR(MakeDirectories(directory));
  std::string path = JoinPath(directory, "metrics.jsonl");
  const int64_t num_kept_bytes = BytesOfSteps(path, num_done);
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file.is_open()) return ErrnoError(errno, absl::StrCat("cannot write ", path));
  // A device, to which output may be led, has no size.
  if (ftruncate(file.get(), num_kept_bytes) != 0 && errno != EINVAL) {
    return ErrnoError(errno, absl::StrCat("cannot cut ", path));
  }
  return std::unique_ptr<MetricsFile>(new MetricsFile(std::move(path), std::move(file), next));
}

void MetricsFile::Step(const StepInfo& info) {
  if (status_.ok()) {
    status_ = WriteAll(file_.get(), absl::StrCat(StepToJson(info), "\n"), path_);
    if (!status_.ok()) LogError("no more steps are written: ", status_.message());
  }
  next_.Step(info);
}

absl::StatusOr<OutputInfo> MetricsFile::Output() const {
  RETURN_IF_ERROR(status_);
  ASSIGN_OR_RETURN(std::string digest, Sha256HexOfFile(path_));
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(path_));
  return OutputInfo{
      .kind = "metrics", .path = path_, .sha256 = std::move(digest), .size_bytes = size_bytes};
}

}  // namespace autosp
