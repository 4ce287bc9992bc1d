// What a machine must have for ranks to run on it: looked at, then judged.
#pragma once

#include <cstdint>
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

struct DoctorFacts {
  absl::StatusOr<int64_t> shared_memory_bytes = 0;  // size of /dev/shm
  int64_t shared_memory_free_bytes = 0;
  int64_t open_files_limit = 0;                    // soft
  std::optional<bool> is_clock_synchronized = {};  // unset: the kernel does not say
  std::vector<ProgramFact> programs = {};
  std::string nvidia_driver = {};  // "580.159.04"; empty: none is loaded
  // What `autosp-rank --list-gpus` prints.
  absl::StatusOr<std::string> gpus = "";
  std::string server = {};
  absl::StatusOr<int64_t> nodes_ready = 0;  // of the coordinator at `server`
};

enum class Verdict { kOk, kNote, kWarning, kProblem };
absl::string_view VerdictName(Verdict verdict);  // "ok", "note", "warning", "problem"

struct Finding {
  std::string subject = {};
  Verdict verdict = Verdict::kOk;
  std::string text = {};    // what was found
  std::string remedy = {};  // empty where nothing is to be done
};

// Looks at this machine. `program_folder` is where our programs are.
DoctorFacts ExamineMachine(const std::string& program_folder);

// In a fixed order. `own_version` is what every program should be.
std::vector<Finding> JudgeMachine(const DoctorFacts& facts, absl::string_view own_version);

}  // namespace autosp
