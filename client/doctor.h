// What a machine must have for ranks to run on it: looked at, then judged.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// How one of our programs answers to --version; the text, or why it does not run.
struct ProgramFact {
  std::string name;
  absl::StatusOr<std::string> version;
};

// How far a clock is ahead, give or take the uncertainty: the coordinator's of this machine's, a
// node's of the coordinator's.
struct ClockFact {
  std::string whose;  // "coordinator", "node a"
  double ahead_seconds = 0;
  double uncertainty_seconds = 0;
};

// Whether an agent could listen: the flag of autosp-agent, and the ports that could be bound.
struct ListenFact {
  std::string flag;  // "--rank-ports 7100-7107"
  int num_wanted = 1;
  int num_free = 0;
  absl::Status error = {};  // of the first port that could not be bound
};

struct DoctorFacts {
  absl::StatusOr<int64_t> shared_memory_bytes = 0;  // size of /dev/shm
  int64_t shared_memory_free_bytes = 0;
  int64_t open_files_limit = 0;                    // hard: our programs raise the soft one to it
  std::optional<bool> is_clock_synchronized = {};  // unset: the kernel does not say
  std::vector<ProgramFact> programs = {};
  std::string nvidia_driver = {};  // "580.159.04"; empty: none is loaded
  // What `autosp-rank --list-gpus` prints.
  absl::StatusOr<std::string> gpus = "";
  std::string nccl_version = {};  // "2.27.3"; empty: the loader finds no libnccl
  std::string server = {};
  absl::StatusOr<int64_t> nodes_ready = 0;  // of the coordinator at `server`
  std::vector<ClockFact> clocks = {};
  std::vector<ListenFact> listens = {};
};

enum class Health { kOk, kNote, kWarning, kProblem };
absl::string_view HealthName(Health verdict);  // "ok", "note", "warning", "problem"

struct Finding {
  std::string subject = {};
  Health verdict = Health::kOk;
  std::string text = {};    // what was found
  std::string remedy = {};  // empty where nothing is to be done
};

// Where an agent of this machine would listen; empty: is not tried.
struct ListenOptions {
  std::string listen = {};      // host:port
  std::string rank_ports = {};  // FIRST-LAST
};

// Tries to listen, and stops at once. InvalidArgument: the options are no address or no range.
absl::StatusOr<std::vector<ListenFact>> TryToListen(const ListenOptions& options);

// Looks at this machine. `program_folder` is where our programs are.
DoctorFacts ExamineMachine(const std::string& program_folder);

nlohmann::json ToJson(const std::vector<Finding>& findings);

// In a fixed order. `own_version` is what every program should be.
std::vector<Finding> JudgeMachine(const DoctorFacts& facts, absl::string_view own_version);

}  // namespace autosp
