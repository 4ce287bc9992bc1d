#include "worker/rank/make_reporter.h"

#include <cstdlib>

#include "absl/time/time.h"
#include "common/log.h"
#include "worker/rank/grpc_reporter.h"
#include "worker/rank/log_reporter.h"

namespace autosp {
namespace {

constexpr int kExitFailed = 1;
constexpr absl::Duration kConnectTimeout = absl::Seconds(20);

}  // namespace

absl::StatusOr<std::unique_ptr<RankReporter>> MakeReporter(const RankConfig& config) {
  if (config.agent_socket_path.empty()) return std::make_unique<LogReporter>();
  const auto end_at_once = [](const absl::Status& why) {
    LogError("the agent is gone: ", why.message());
    std::_Exit(kExitFailed);
  };
  return GrpcReporter::Connect(config, kConnectTimeout, end_at_once);
}

}  // namespace autosp
