#include "worker/agent/rank_processes.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {

absl::StatusOr<RankProcesses::Spawned> RankProcesses::Spawn(const StartOptions& options) {
  SubprocessOptions process_options;
  process_options.argv = {options.program, "--spec", options.spec_path};
  for (const int fd : options.listen_fds) {
    process_options.argv.insert(process_options.argv.end(), {"--listen-fd", absl::StrCat(fd)});
  }
  process_options.inherited_fds = options.listen_fds;
  process_options.output = SubprocessOptions::Output::kPipe;
  process_options.working_directory = options.working_directory;
  process_options.dies_with_parent = true;
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(process_options));
  UniqueFd pipe(fcntl(process.output().get(), F_DUPFD_CLOEXEC, 0));
  if (!pipe.is_open()) return ErrnoError(errno, "cannot read the rank's output");
  return Spawned{.process = std::move(process),
                 .pipe = std::move(pipe),
                 .log = std::make_shared<RankLog>(options.log_path, kMaxLogFileBytes)};
}

void RankProcesses::Adopt(const Id& id, Spawned spawned, std::function<void()> on_log_closed) {
  pump_.Add(std::move(spawned.pipe), spawned.log, std::move(on_log_closed));
  logs_[id] = std::move(spawned.log);
  processes_.insert_or_assign(id, std::move(spawned.process));
}

std::optional<ProcessExit> RankProcesses::TakeExit(const Id& id) {
  const auto found = processes_.find(id);
  if (found == processes_.end()) return std::nullopt;
  const std::optional<ExitState> state = found->second.Poll();
  if (!state.has_value()) return std::nullopt;
  processes_.erase(found);
  if (state->was_signaled) return ProcessExit{.exit_code = -1, .signal_number = state->code};
  return ProcessExit{.exit_code = state->code, .signal_number = 0};
}

std::vector<RankProcesses::Id> RankProcesses::Running() const {
  std::vector<Id> ids;
  for (const auto& [id, process] : processes_) ids.push_back(id);
  return ids;
}

void RankProcesses::Signal(const Id& id, int signal_number) {
  const auto found = processes_.find(id);
  if (found != processes_.end()) found->second.Signal(signal_number);
}

std::vector<std::string> RankProcesses::LogTail(const Id& id, size_t count) const {
  const auto found = logs_.find(id);
  return found == logs_.end() ? std::vector<std::string>() : found->second->Tail(count);
}

void RankProcesses::ForgetLogs(const AttemptKey& key) {
  std::erase_if(logs_, [&key](const auto& entry) { return entry.first.first == key; });
}

}  // namespace autosp::agent
