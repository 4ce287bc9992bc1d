#include "absl/time/clock.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "client/job_text.h"
#include "client/message_json.h"

namespace autosp {
namespace {

void Nodes(CommandContext& context) {
  CoordinatorClient client(context.server);
  const auto nodes = client.ListNodes();
  if (!nodes.ok()) return context.FailServer(nodes.status());
  if (!context.is_json()) {
    context.out() << Printable(NodeTable(*nodes, absl::Now()));
    return;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const v1::Node& node : *nodes) list.push_back(MessageToJson(node));
  PrintJson({{"nodes", list}}, context.out());
}

}  // namespace

void AddNodesCommand(CLI::App& app, CommandContext& context) {
  CLI::App* command = app.add_subcommand("nodes", "List the nodes and their free devices");
  command->callback([&context] { Nodes(context); });
}

}  // namespace autosp
