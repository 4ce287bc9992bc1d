#include "client/doctor.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/commands/command.h"
#include "client/diagnosis.h"
#include "client/text_table.h"

namespace autosp {
namespace {

void Print(const std::vector<Finding>& findings, const CommandContext& context) {
  if (context.is_json()) return PrintJson({{"findings", ToJson(findings)}}, context.out());
  TextTable table({{"WHAT"}, {"VERDICT"}, {"FOUND"}});
  for (const Finding& each : findings) {
    table.AddRow({each.subject, std::string(HealthName(each.verdict)), each.text});
    if (!each.remedy.empty()) table.AddRow({"", "", absl::StrCat("-> ", each.remedy)});
  }
  context.out() << table.ToString();
}

void Doctor(const ListenOptions& listen, CommandContext& context) {
  const absl::StatusOr<std::vector<Finding>> findings =
      Diagnose(context.environment.program_folder, context.server, listen);
  if (!findings.ok()) return context.FailInput(findings.status());
  Print(*findings, context);
  const bool has_problem = std::ranges::any_of(
      *findings, [](const Finding& each) { return each.verdict == Health::kProblem; });
  if (has_problem) context.exit_code = ExitCode::kFailed;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, CommandContext& context) {
  auto listen = std::make_shared<ListenOptions>();
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Look whether this machine has what ranks need; exit code 1 if something is missing");
  command->add_option("--listen", listen->listen,
                      "host:port of autosp-agent: try whether it can be listened on");
  command->add_option("--rank-ports", listen->rank_ports,
                      "FIRST-LAST of autosp-agent: try whether they can be listened on");
  command->callback([listen, &context] { Doctor(*listen, context); });
}

}  // namespace autosp
