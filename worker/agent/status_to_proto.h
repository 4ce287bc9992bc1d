// What an agent says of its attempts, as messages.

#pragma once

#include <string>
#include <vector>

#include "autosp/v1/agent.pb.h"
#include "autosp/v1/rank.pb.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_order.h"

namespace autosp::agent {

v1::AttemptRef RefToProto(const AttemptKey& key);

// `log_lines` are the last of the rank's log, oldest first.
v1::RankStatus RankToProto(const RankRecord& rank, const std::vector<std::string>& log_lines);

// Without the ranks.
v1::AttemptStatus AttemptToProto(const Attempt& attempt);

// Where a rank finds what it needs; the rest of its spec is in the order.
struct RankPlaces {
  std::string node_id;
  std::string program_path;
  std::string job_yaml_path;
  std::string rendezvous_directory;
  std::string shm_prefix;
  std::string agent_socket_path;
  int num_threads = 0;
};

v1::RankSpec RankSpecToProto(const AttemptOrder& order, const RankSlot& slot,
                             const RankPlaces& places);

// For --spec.
absl::StatusOr<std::string> RankSpecToJson(const v1::RankSpec& spec);

}  // namespace autosp::agent
