#include "client/local_servers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/coordinator_client.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(20);
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
// The agent gives its ranks a few seconds to end by themselves.
constexpr absl::Duration kStopGrace = absl::Seconds(15);
constexpr int64_t kMaxLogBytes = 64 << 20;
constexpr size_t kShownLogBytes = 4000;
constexpr char kAnyLocalPort[] = "127.0.0.1:0";

absl::StatusOr<Subprocess> StartServer(std::vector<std::string> argv, const std::string& log) {
  SubprocessOptions options;
  options.argv = std::move(argv);
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = log;
  options.dies_with_parent = true;
  return Subprocess::Start(options);
}

std::string LogTail(const std::string& path) {
  const absl::StatusOr<std::string> log = ReadFile(path, kMaxLogBytes);
  if (!log.ok()) return "";
  const size_t begin = log->size() > kShownLogBytes ? log->size() - kShownLogBytes : 0;
  return log->substr(begin);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalServers>> LocalServers::Start(LocalServersOptions options) {
  std::unique_ptr<LocalServers> servers(new LocalServers(std::move(options)));
  ASSIGN_OR_RETURN(servers->folder_, TemporaryFolder::Create("run"));
  RETURN_IF_ERROR(servers->StartCoordinator());
  RETURN_IF_ERROR(servers->StartAgent());
  RETURN_IF_ERROR(servers->AwaitNode());
  return servers;
}

LocalServers::~LocalServers() {
  // The agent first: it stops its ranks and may still report that.
  if (agent_.has_value()) agent_->Stop(kStopGrace);
  if (coordinator_.has_value()) coordinator_->Stop(kStopGrace);
}

absl::Status LocalServers::StartCoordinator() {
  ASSIGN_OR_RETURN(coordinator_,
                   StartServer({JoinPath(options_.program_folder, "autosp-coordinator"), "--listen",
                                kAnyLocalPort, "--state-dir", folder_->Join("coordinator"),
                                "--port-file", folder_->Join("coordinator.port")},
                               folder_->Join("coordinator.log")));
  ASSIGN_OR_RETURN(address_, AwaitPort("coordinator", *coordinator_));
  return absl::OkStatus();
}

absl::Status LocalServers::StartAgent() {
  std::vector<std::string> argv = {JoinPath(options_.program_folder, "autosp-agent"),
                                   "--coordinator",
                                   address_,
                                   "--node-name",
                                   "local",
                                   "--listen",
                                   kAnyLocalPort,
                                   "--state-dir",
                                   folder_->Join("agent"),
                                   "--port-file",
                                   folder_->Join("agent.port")};
  if (options_.num_devices > 0) {
    argv.insert(argv.end(), {"--devices", absl::StrCat(options_.num_devices)});
  }
  ASSIGN_OR_RETURN(agent_, StartServer(std::move(argv), folder_->Join("agent.log")));
  return AwaitPort("agent", *agent_).status();
}

absl::StatusOr<std::string> LocalServers::AwaitPort(const char* name, Subprocess& process) {
  const std::string port_file = folder_->Join(absl::StrCat(name, ".port"));
  int port = 0;
  RETURN_IF_ERROR(Await(name, process, "said its port", [&]() -> absl::StatusOr<bool> {
    const absl::StatusOr<std::string> text = ReadFile(port_file, 64);
    // The newline says that the number is whole.
    return text.ok() && absl::EndsWith(*text, "\n") &&
           absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &port);
  }));
  return absl::StrCat("127.0.0.1:", port);
}

absl::Status LocalServers::AwaitNode() {
  CoordinatorClient client(address_);
  return Await("agent", *agent_, "registered", [&]() -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(const std::vector<v1::Node> nodes, client.ListNodes());
    return std::any_of(nodes.begin(), nodes.end(),
                       [](const v1::Node& node) { return node.state() == v1::Node::STATE_READY; });
  });
}

absl::Status LocalServers::Await(const char* name, Subprocess& process, const char* what,
                                 const std::function<absl::StatusOr<bool>()>& is_done) {
  const std::string log = folder_->Join(absl::StrCat(name, ".log"));
  const absl::Time give_up = absl::Now() + kStartTimeout;
  while (absl::Now() < give_up) {
    ASSIGN_OR_RETURN(const bool done, is_done());
    if (done) return absl::OkStatus();
    if (options_.is_interrupted()) return Cancelled("interrupted");
    if (const auto exit = process.Poll()) {
      return Internal("autosp-", name, " ", exit->ToString(), "; its log ends with\n",
                      LogTail(log));
    }
    absl::SleepFor(kPollInterval);
  }
  return DeadlineExceeded("autosp-", name, " has not ", what, " for ",
                          absl::FormatDuration(kStartTimeout), "; its log ends with\n",
                          LogTail(log));
}

}  // namespace autosp
