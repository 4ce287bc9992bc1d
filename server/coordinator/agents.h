// The agents that the coordinator has heard of since it started, and their leases.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "server/coordinator/event.h"

namespace autosp {

struct Agent {
  AgentInfo info;
  absl::Time last_heartbeat;
  int64_t last_sequence = 0;
  int64_t last_answer_token = 0;  // the newest one that was given out
  absl::Time probe_at;            // when to ask next, while it is silent
  std::optional<ClockDifference> clock = {};
  bool is_ending = false;  // it has said so: nothing new is put on the node
  bool is_lost = false;    // its lease has ended, or its machine says that it is gone

  // Attempts on the node that are not the newest of an active job of ours. Which devices they use
  // is not known, so while there is one, nothing new is put on the node.
  std::vector<AttemptId> foreign = {};
};

// Thread-compatible; a value.
class AgentTable {
 public:
  // Takes a new agent, or a new instance of one. False when the same instance was known and not
  // lost. FailedPrecondition for an instance that is older than the known one, which is not lost.
  absl::StatusOr<bool> Register(const AgentInfo& info, absl::Time now);

  // The agent that may speak as `instance`. NotFound (reason AGENT_NOT_REGISTERED) tells it to
  // register.
  absl::StatusOr<Agent*> FindSpeaking(const NodeId& node, const std::string& instance);

  // Null for nodes that never registered.
  Agent* Find(const NodeId& node);
  const Agent* Find(const NodeId& node) const;

  // The agent if commands can be sent to it.
  const Agent* FindLive(const NodeId& node) const;

  // Drops the agents that are lost and were last heard before `time`.
  void ForgetLost(absl::Time time);

  const std::map<NodeId, Agent>& all() const { return agents_; }
  std::map<NodeId, Agent>& all() { return agents_; }

 private:
  std::map<NodeId, Agent> agents_;  // ordered: decisions must not depend on hashes
};

}  // namespace autosp
