#include "client/doctor.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/commands/command.h"
#include "client/text_table.h"
#include "common/version.h"

namespace autosp {
namespace {

int64_t CountReady(const std::vector<v1::Node>& nodes) {
  return std::ranges::count_if(
      nodes, [](const v1::Node& node) { return node.state() == v1::Node::STATE_READY; });
}

void Print(const std::vector<Finding>& findings, const CommandContext& context) {
  if (context.is_json()) {
    nlohmann::json list = nlohmann::json::array();
    for (const Finding& each : findings) {
      list.push_back({{"subject", each.subject},
                      {"verdict", std::string(VerdictName(each.verdict))},
                      {"text", each.text},
                      {"remedy", each.remedy}});
    }
    PrintJson({{"findings", list}}, context.out());
    return;
  }
  TextTable table({{"WHAT"}, {"VERDICT"}, {"FOUND"}});
  for (const Finding& each : findings) {
    table.AddRow({each.subject, std::string(VerdictName(each.verdict)), each.text});
    if (!each.remedy.empty()) table.AddRow({"", "", absl::StrCat("-> ", each.remedy)});
  }
  context.out() << table.ToString();
}

void Doctor(CommandContext& context) {
  DoctorFacts facts = ExamineMachine(context.environment.program_folder);
  facts.server = context.server;
  const auto nodes = CoordinatorClient(context.server).ListNodes();
  if (nodes.ok()) {
    facts.nodes_ready = CountReady(*nodes);
  } else {
    facts.nodes_ready = nodes.status();
  }
  const std::vector<Finding> findings = JudgeMachine(facts, kVersion);
  Print(findings, context);
  const bool has_problem = std::ranges::any_of(
      findings, [](const Finding& each) { return each.verdict == Verdict::kProblem; });
  if (has_problem) context.exit_code = ExitCode::kFailed;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, CommandContext& context) {
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Look whether this machine has what ranks need; exit code 1 if something is missing");
  command->callback([&context] { Doctor(context); });
}

}  // namespace autosp
