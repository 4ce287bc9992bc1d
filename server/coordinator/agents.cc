#include "server/coordinator/agents.h"

#include "common/agent_protocol.h"
#include "common/error_info.h"
#include "common/errors.h"

namespace autosp {

absl::StatusOr<bool> AgentTable::Register(const AgentInfo& info, absl::Time now) {
  Agent* known = Find(info.node);
  // One that is lost gives way to any: its clock may have been ahead.
  if (known != nullptr && !known->is_lost && known->info.instance != info.instance &&
      info.start_ms < known->info.start_ms) {
    return WithErrorInfo(FailedPrecondition("agent ", info.instance, " of node ", info.node,
                                            " started before agent ", known->info.instance,
                                            ", which has registered since; end one of them"),
                         {.reason = std::string(kReasonStaleAgent),
                          .subject = info.node.value(),
                          .remedy = "run one agent per node"});
  }
  const bool is_new = known == nullptr || known->is_lost || known->info.instance != info.instance;
  const bool is_same_instance = known != nullptr && known->info.instance == info.instance;
  Agent& agent = agents_[info.node];
  if (is_new) {
    // Of an agent that was lost, heartbeats from before may still come: they stay known as old.
    const int64_t last_sequence = is_same_instance ? agent.last_sequence : 0;
    const int64_t last_answer_token = is_same_instance ? agent.last_answer_token : 0;
    agent = Agent();
    agent.last_sequence = last_sequence;
    agent.last_answer_token = last_answer_token;
  }
  agent.info = info;
  agent.last_heartbeat = now;
  return is_new;
}

absl::StatusOr<Agent*> AgentTable::FindSpeaking(const NodeId& node, const std::string& instance) {
  Agent* agent = Find(node);
  if (agent == nullptr || agent->is_lost || agent->info.instance != instance) {
    return WithErrorInfo(
        NotFound("agent ", instance, " of node ", node, " has not registered here"),
        {.reason = std::string(kReasonAgentNotRegistered),
         .subject = node.value(),
         .remedy = "call RegisterAgent"});
  }
  return agent;
}

void AgentTable::ForgetLost(absl::Time time) {
  std::erase_if(agents_, [time](const auto& entry) {
    return entry.second.is_lost && entry.second.last_heartbeat < time;
  });
}

Agent* AgentTable::Find(const NodeId& node) {
  auto found = agents_.find(node);
  return found == agents_.end() ? nullptr : &found->second;
}

const Agent* AgentTable::Find(const NodeId& node) const {
  auto found = agents_.find(node);
  return found == agents_.end() ? nullptr : &found->second;
}

const Agent* AgentTable::FindLive(const NodeId& node) const {
  const Agent* agent = Find(node);
  return agent == nullptr || agent->is_lost ? nullptr : agent;
}

}  // namespace autosp
