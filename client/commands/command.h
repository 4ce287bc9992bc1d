// What the commands share. Each command is one file with one Add...Command, which declares its
// arguments and says what to run.
#pragma once

#include <CLI/App.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cli.h"
#include "client/coordinator_client.h"
#include "client/exit_code.h"

namespace autosp {

// One invocation: the global options and the result.
struct CommandContext {
  const CliEnvironment& environment;
  ServerAddress server;
  std::string output = "table";
  ExitCode exit_code = ExitCode::kOk;

  std::ostream& out() const { return environment.out; }
  std::ostream& err() const { return environment.err; }
  bool is_json() const { return output == "json"; }

  // Says what went wrong and sets the exit code.
  void FailInput(const absl::Status& status);   // of the user's files and arguments
  void FailServer(const absl::Status& status);  // of a call to the server
  void Fail(const absl::Status& status, ExitCode code);
};

// Indented, in one piece; bytes that are no UTF-8 are replaced.
void PrintJson(const nlohmann::json& json, std::ostream& out);

// --set, for the commands that read a job file.
void AddSetOption(CLI::App& command, std::vector<std::string>& overrides);

void AddSubmitCommand(CLI::App& app, CommandContext& context);
void AddRunCommand(CLI::App& app, CommandContext& context);
void AddPlanCommand(CLI::App& app, CommandContext& context);
void AddVerifyCommand(CLI::App& app, CommandContext& context);
void AddExportCommand(CLI::App& app, CommandContext& context);
void AddListCommand(CLI::App& app, CommandContext& context);
void AddStatusCommand(CLI::App& app, CommandContext& context);
void AddWatchCommand(CLI::App& app, CommandContext& context);
void AddLogsCommand(CLI::App& app, CommandContext& context);
void AddCancelCommand(CLI::App& app, CommandContext& context);
void AddNodesCommand(CLI::App& app, CommandContext& context);
void AddDoctorCommand(CLI::App& app, CommandContext& context);
void AddSupportBundleCommand(CLI::App& app, CommandContext& context);
void AddVersionCommand(CLI::App& app, CommandContext& context);

}  // namespace autosp
