// Nodes as users see them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "server/coordinator/coordinator.h"

namespace autosp {

struct NodeView {
  enum class State {
    kExpected,  // in the cluster file; its agent has not registered
    kReady,
    kSuspect,  // silent for longer than a heartbeat
    kLost,
    kEnding,  // takes nothing new
  };
  NodeId node;
  State state = State::kExpected;
  std::string agent_address;
  std::string agent_version;
  std::string device_kind;
  int64_t num_devices = 0;
  int64_t num_devices_free = 0;
  int64_t device_memory_bytes = 0;
  absl::Time last_heartbeat = absl::InfinitePast();
  std::optional<ClockDifference> clock = {};
  std::vector<AttemptId>
      attempts;  // what holds its devices, also what this coordinator cannot name
};

inline constexpr std::array kAllNodeStates = {NodeView::State::kExpected, NodeView::State::kReady,
                                              NodeView::State::kSuspect, NodeView::State::kLost,
                                              NodeView::State::kEnding};

absl::string_view ToString(NodeView::State state);

// By name. Whether a node is suspect is judged at the time of the last step.
std::vector<NodeView> ViewNodes(const Coordinator& coordinator);

}  // namespace autosp
