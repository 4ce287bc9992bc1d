// What autosp-cli tells the shell. docs/cli.md and --help list these.
#pragma once

#include <array>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace autosp {

enum class ExitCode : int {
  kOk = 0,
  kFailed = 1,
  kBadInput = 2,
  kUnreachable = 3,
  kNotFound = 4,
  kCancelled = 5,
  kDiffers = 6,
  kInterrupted = 130,  // 128 + SIGINT, as shells have it
};

struct ExitCodeInfo {
  ExitCode code;
  absl::string_view meaning;
};

inline constexpr std::array<ExitCodeInfo, 8> kExitCodes = {{
    {ExitCode::kOk, "done; with watch and run: the job succeeded; with verify: equal"},
    {ExitCode::kFailed,
     "the job failed, or the server reported an error of its own; the output could not be written; "
     "doctor: a problem; export: a damaged checkpoint, or a disk that is full"},
    {ExitCode::kBadInput, "wrong usage, or a job that can never run as written"},
    {ExitCode::kUnreachable, "the server did not answer, or is busy; try again later"},
    {ExitCode::kNotFound, "there is no such job"},
    {ExitCode::kCancelled, "the job was cancelled"},
    {ExitCode::kDiffers, "verify: the plan differs from the model on one device"},
    {ExitCode::kInterrupted, "interrupted by Ctrl-C or SIGTERM"},
}};

// For an error that the server answered or that gRPC made.
ExitCode ExitCodeOf(const absl::Status& server_status);

}  // namespace autosp
