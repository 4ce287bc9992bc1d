#include "worker/agent/leftovers.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "checkpoint/model_files.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/process_identity.h"

namespace autosp::agent {
namespace {

namespace fs = std::filesystem;

constexpr char kSharedMemoryFolder[] = "/dev/shm";
constexpr int64_t kMaxPidFileBytes = 4096;
constexpr int64_t kMaxSpecBytes = 1 << 20;
constexpr absl::Duration kKillTimeout = absl::Seconds(10);

// Names in a folder, sorted; none when it cannot be read.
std::vector<std::string> ListNames(const std::string& folder) {
  return ListFolder(folder).value_or(std::vector<std::string>());
}

// Every attempt that has a folder. Names that are not ours are left alone.
std::vector<AttemptKey> ListAttempts(const AttemptFiles& files) {
  std::vector<AttemptKey> keys;
  for (const std::string& job_name : ListNames(files.JobsFolder())) {
    const auto job_id = JobId::Parse(job_name);
    if (!job_id.ok()) continue;
    for (const std::string& name : ListNames(absl::StrCat(files.JobsFolder(), "/", job_name))) {
      absl::string_view number = name;
      int64_t generation = 0;
      if (!absl::ConsumePrefix(&number, "gen") || !absl::SimpleAtoi(number, &generation)) continue;
      keys.push_back({*job_id, Generation(generation)});
    }
  }
  return keys;
}

std::vector<ProcessIdentity> ReadLiveProcesses(const std::string& folder) {
  std::vector<ProcessIdentity> processes;
  for (const std::string& name : ListNames(folder)) {
    if (!absl::EndsWith(name, ".pid")) continue;
    const auto text = ReadFile(absl::StrCat(folder, "/", name), kMaxPidFileBytes);
    if (!text.ok()) continue;
    const auto identity = ProcessIdentity::FromText(*text);
    if (identity.ok() && IsAlive(*identity)) processes.push_back(*identity);
  }
  return processes;
}

absl::Status KillAndWait(const ProcessIdentity& process) {
  LogWarning("rank of an earlier life still runs, pid ", process.pid, "; killing it");
  kill(static_cast<pid_t>(-process.pid), SIGKILL);
  kill(static_cast<pid_t>(process.pid), SIGKILL);
  Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + kKillTimeout;
  while (IsAlive(process)) {
    if (clock.Steady() > deadline) {
      return DeadlineExceeded("pid ", process.pid, " of an earlier life does not end within ",
                              absl::FormatDuration(kKillTimeout), " of SIGKILL; look into it");
    }
    clock.Sleep(absl::Milliseconds(20));
  }
  return absl::OkStatus();
}

// Files that WriteFileAtomically had not given their names yet when the agent was killed.
void RemoveUnnamedFiles(const std::string& folder) {
  std::error_code ignored;
  for (const std::string& name : ListNames(folder)) {
    if (absl::StrContains(name, ".tmp.")) fs::remove(absl::StrCat(folder, "/", name), ignored);
  }
}

// Rank 0 may have been killed while it wrote the model.
void RemovePartialModelOf(const AttemptFiles& files, const AttemptKey& key) {
  // It is missing where rank 0 was on another node.
  const auto text = ReadFile(files.SpecPath(key, Rank(0)), kMaxSpecBytes);
  if (!text.ok()) return;
  const auto spec = nlohmann::json::parse(*text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  const auto folder = spec.is_object() ? spec.find("output_directory") : spec.end();
  if (folder == spec.end() || !folder->is_string()) return;
  RemovePartialModels(folder->get<std::string>(), key.job_id.value(), key.generation.value());
}

}  // namespace

int RemoveSharedMemory(const std::string& prefix) {
  const absl::string_view bare = absl::StripPrefix(prefix, "/");
  int removed = 0;
  for (const std::string& name : ListNames(kSharedMemoryFolder)) {
    if (!absl::StartsWith(name, bare)) continue;
    if (name.size() > bare.size() && absl::ascii_isalnum(name[bare.size()])) continue;
    if (shm_unlink(absl::StrCat("/", name).c_str()) == 0) ++removed;
  }
  return removed;
}

void CleanUpAttemptFiles(const AttemptFiles& files, const AttemptKey& key) {
  RemoveSharedMemory(SharedMemoryPrefix(key));
  RemovePartialModelOf(files, key);
  std::error_code ignored;
  for (const std::string& name : ListNames(files.Folder(key))) {
    const std::string path = absl::StrCat(files.Folder(key), "/", name);
    if (absl::EndsWith(name, ".pid")) fs::remove(path, ignored);
    if (absl::StartsWith(name, "rendezvous-")) fs::remove_all(path, ignored);
  }
  // Last: until then a later life would look again.
  fs::remove(files.LivePath(key), ignored);
}

absl::Status CleanUpEarlierLife(const AttemptFiles& files) {
  for (const AttemptKey& key : ListAttempts(files)) {
    // The file that says that it is live may itself be one of them.
    RemoveUnnamedFiles(files.Folder(key));
    if (!FileExists(files.LivePath(key))) continue;
    for (const ProcessIdentity& process : ReadLiveProcesses(files.Folder(key))) {
      RETURN_IF_ERROR(WithContext(KillAndWait(process), key.ToString()));
    }
    CleanUpAttemptFiles(files, key);
    LogInfo(key.ToString(), ": cleaned up after an earlier life");
  }
  return absl::OkStatus();
}

void PruneAttemptFolders(const AttemptFiles& files) {
  std::vector<std::pair<fs::file_time_type, std::string>> ended;
  std::error_code error;
  for (const AttemptKey& key : ListAttempts(files)) {
    if (FileExists(files.LivePath(key))) continue;
    const auto time = fs::last_write_time(files.Folder(key), error);
    if (!error) ended.emplace_back(time, files.Folder(key));
  }
  if (ended.size() <= kMaxKeptAttempts) return;
  std::sort(ended.begin(), ended.end());
  ended.resize(ended.size() - kMaxKeptAttempts);
  for (const auto& [time, folder] : ended) {
    fs::remove_all(folder, error);
    fs::remove(fs::path(folder).parent_path(), error);  // The job's, if this was its last attempt.
  }
}

}  // namespace autosp::agent
