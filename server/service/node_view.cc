#include "server/service/node_view.h"

#include <map>

#include "common/check.h"

namespace autosp {
namespace {

NodeView ViewAgent(const Coordinator& coordinator, const NodeId& id, const Agent& agent) {
  NodeView node;
  node.node = id;
  const absl::Duration silence = coordinator.now() - agent.last_heartbeat;
  node.state = agent.is_lost                                    ? NodeView::State::kLost
               : agent.is_ending                                ? NodeView::State::kEnding
               : silence >= coordinator.options().suspect_after ? NodeView::State::kSuspect
                                                                : NodeView::State::kReady;
  node.agent_address = agent.info.address;
  node.agent_version = agent.info.version;
  node.device_kind = agent.info.device_kind;
  node.num_devices = agent.info.num_devices;
  node.num_devices_free = static_cast<int64_t>(coordinator.FreeDevices(id).size());
  node.device_memory_bytes = agent.info.device_memory_bytes;
  node.last_heartbeat = agent.last_heartbeat;
  node.clock = agent.clock;
  node.attempts = agent.foreign;
  for (const auto& [job_id, job] : coordinator.jobs()) {
    const NodePart* part = job.attempt ? job.attempt->FindNode(id) : nullptr;
    if (part != nullptr && part->phase != NodePhase::kEnded) {
      node.attempts.push_back({job_id, job.attempt->generation});
    }
  }
  return node;
}

}  // namespace

absl::string_view ToString(NodeView::State state) {
  switch (state) {
    case NodeView::State::kExpected:
      return "expected";
    case NodeView::State::kReady:
      return "ready";
    case NodeView::State::kSuspect:
      return "suspect";
    case NodeView::State::kLost:
      return "lost";
    case NodeView::State::kEnding:
      return "ending";
  }
  AUTOSP_CHECK(false, "node state ", static_cast<int>(state));
}

std::vector<NodeView> ViewNodes(const Coordinator& coordinator) {
  std::map<NodeId, NodeView> nodes;
  for (const ExpectedNode& expected : coordinator.options().expected_nodes) {
    NodeView& node = nodes[expected.node];
    node.node = expected.node;
    node.device_kind = expected.device_kind;
    node.num_devices = expected.num_devices;
  }
  for (const auto& [id, agent] : coordinator.agents().all()) {
    nodes[id] = ViewAgent(coordinator, id, agent);
  }
  std::vector<NodeView> list;
  for (auto& [id, node] : nodes) list.push_back(std::move(node));
  return list;
}

}  // namespace autosp
