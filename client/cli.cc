#include "client/cli.h"

#include <poll.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "proto/tls_flags.h"

namespace autosp {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:7070";

std::string ExitCodeHelp() {
  std::string text = "Exit codes:\n";
  for (const ExitCodeInfo& info : kExitCodes) {
    absl::StrAppend(&text, "  ", static_cast<int>(info.code), "  ", info.meaning, "\n");
  }
  return text;
}

// Before the command runs, with what all options say.
void LoadCredentials(const TlsFiles& files, CommandContext& context) {
  absl::StatusOr<Credentials> credentials = Credentials::ForClient(files);
  if (credentials.ok()) {
    context.server.credentials = *std::move(credentials);
    return;
  }
  context.FailInput(credentials.status());
  throw CLI::RuntimeError(static_cast<int>(ExitCode::kBadInput));
}

void AddGlobalOptions(CLI::App& app, CommandContext& context) {
  app.add_option("--server", context.server.address, "Address of the coordinator")
      ->envname("AUTOSP_SERVER")
      ->capture_default_str();
  const auto tls = std::make_shared<TlsFiles>();
  AddTlsFlags(app, *tls, /*has_environment=*/true);
  app.parse_complete_callback([tls, &context] { LoadCredentials(*tls, context); });
  app.add_option("--output", context.output, "table for people, json for programs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.require_subcommand(1);
  app.fallthrough();  // Global options may follow the command.
  app.footer(ExitCodeHelp());
}

void ParseAndRun(CLI::App& app, const std::vector<std::string>& args, CommandContext& context) {
  try {
    std::vector<std::string> reversed(args.rbegin(), args.rend());  // CLI11 pops from the end.
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, context.out(), context.err());
    context.exit_code = code == 0 ? ExitCode::kOk : ExitCode::kBadInput;
  }
}

// The other end of a pipe is closed.
bool HasReaderLeft(int fd) {
  pollfd polled{.fd = fd, .events = 0, .revents = 0};
  return poll(&polled, 1, 0) == 1 && (polled.revents & POLLERR) != 0;
}

// A reader that has seen enough (| head) is no error; a disk that is full is one.
void CheckOutput(CommandContext& context) {
  if (context.out().flush() || HasReaderLeft(context.environment.out_fd)) return;
  const ExitCode code = context.exit_code;
  context.Fail(ResourceExhausted("the output cannot be written; is the disk full?"),
               code == ExitCode::kOk ? ExitCode::kFailed : code);
}

}  // namespace

void CommandContext::Fail(const absl::Status& status, ExitCode code) {
  exit_code = code;
  if (is_json()) {
    const ErrorInfo info = GetErrorInfo(status);
    nlohmann::json error = {{"code", absl::StatusCodeToString(status.code())},
                            {"message", std::string(status.message())}};
    if (!info.reason.empty()) error["reason"] = info.reason;
    if (!info.subject.empty()) error["subject"] = info.subject;
    if (!info.remedy.empty()) error["remedy"] = info.remedy;
    if (!info.metadata.empty()) error["metadata"] = info.metadata;
    PrintJson({{"error", error}}, err());
    return;
  }
  err() << "autosp-cli: " << Printable(status.message()) << "\n";
  const std::string remedy = GetErrorInfo(status).remedy;
  if (!remedy.empty()) err() << "  " << Printable(remedy) << "\n";
}

void CommandContext::FailInput(const absl::Status& status) { Fail(status, ExitCode::kBadInput); }

void CommandContext::FailServer(const absl::Status& status) { Fail(status, ExitCodeOf(status)); }

void PrintJson(const nlohmann::json& json, std::ostream& out) {
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

void AddSetOption(CLI::App& command, std::vector<std::string>& overrides) {
  command
      .add_option("--set", overrides,
                  "PATH=VALUE: replaces a key of the job file, as in training.steps=20")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
}

ExitCode RunCli(const std::vector<std::string>& args, const CliEnvironment& environment) {
  CLI::App app("Trains PyTorch models sequence-parallel on a cluster of your own.", "autosp-cli");
  CommandContext context{environment, std::string(kDefaultServer)};
  AddGlobalOptions(app, context);
  AddSubmitCommand(app, context);
  AddRunCommand(app, context);
  AddPlanCommand(app, context);
  AddVerifyCommand(app, context);
  AddExportCommand(app, context);
  AddListCommand(app, context);
  AddStatusCommand(app, context);
  AddWatchCommand(app, context);
  AddLogsCommand(app, context);
  AddCancelCommand(app, context);
  AddNodesCommand(app, context);
  AddDoctorCommand(app, context);
  AddSupportBundleCommand(app, context);
  AddVersionCommand(app, context);
  ParseAndRun(app, args, context);
  CheckOutput(context);
  return context.exit_code;
}

}  // namespace autosp
