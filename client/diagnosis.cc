#include "client/diagnosis.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/format.h"
#include "common/status_macros.h"
#include "common/version.h"

namespace autosp {
namespace {

int64_t CountReady(const std::vector<v1::Node>& nodes) {
  return std::ranges::count_if(
      nodes, [](const v1::Node& node) { return node.state() == v1::Node::STATE_READY; });
}

}  // namespace

std::vector<ClockFact> CompareClocks(CoordinatorClient& client,
                                     const std::vector<v1::Node>& nodes) {
  std::vector<ClockFact> clocks;
  const absl::Time sent_at = absl::Now();
  const absl::StatusOr<v1::GetServerInfoResponse> info = client.GetServerInfo();
  const absl::Duration half = (absl::Now() - sent_at) / 2;
  if (info.ok()) {
    const absl::Duration ahead = ToTime(info->time()) - (sent_at + half);
    clocks.push_back({.whose = "coordinator",
                      .ahead_seconds = absl::ToDoubleSeconds(ahead),
                      .uncertainty_seconds = absl::ToDoubleSeconds(half)});
  }
  for (const v1::Node& node : nodes) {
    if (!node.has_clock()) continue;
    clocks.push_back({.whose = absl::StrCat("node ", node.node_id()),
                      .ahead_seconds = node.clock().ahead_seconds(),
                      .uncertainty_seconds = node.clock().uncertainty_seconds()});
  }
  return clocks;
}

absl::StatusOr<std::vector<Finding>> Diagnose(const std::string& program_folder,
                                              const ServerAddress& server,
                                              const ListenOptions& listen) {
  DoctorFacts facts = ExamineMachine(program_folder);
  ASSIGN_OR_RETURN(facts.listens, TryToListen(listen));
  facts.server = server.address;
  CoordinatorClient client(server);
  const absl::StatusOr<std::vector<v1::Node>> nodes = client.ListNodes();
  if (nodes.ok()) {
    facts.nodes_ready = CountReady(*nodes);
    facts.clocks = CompareClocks(client, *nodes);
  } else {
    facts.nodes_ready = nodes.status();
  }
  return JudgeMachine(facts, kVersion);
}

}  // namespace autosp
