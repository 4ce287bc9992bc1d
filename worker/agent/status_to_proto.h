// What an agent says of its attempts, as messages.

#pragma once

#include <string>
#include <vector>

#include "autosp/v1/agent.pb.h"
#include "autosp/v1/rank.pb.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/attempt_order.h"

namespace autosp::agent {

v1::AttemptRef RefToProto(const AttemptKey& key);

// `log_lines` are the last of the rank's log, oldest first.
v1::RankStatus RankToProto(const RankRecord& rank, const std::vector<std::string>& log_lines);

// Without the ranks.
v1::AttemptStatus AttemptToProto(const Attempt& attempt);

// Where a rank finds what it needs; the rest of its spec is in the order.
struct RankPlaces {
  std::string node_id = {};
  std::string program_path = {};
  std::string job_yaml_path = {};
  std::string rendezvous_directory = {};
  std::string shm_prefix = {};
  std::string agent_socket_path = {};
  std::string peers_path = {};  // Empty when all ranks are on this node.
  VerificationFilePaths verification = {};
  int num_threads = 0;
};

v1::RankSpec RankSpecToProto(const AttemptOrder& order, const RankSlot& slot,
                             const RankPlaces& places);

v1::RankPeers PeersToProto(const PeersOrder& peers);

// For --spec, and for the file of the peers.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message);

}  // namespace autosp::agent
