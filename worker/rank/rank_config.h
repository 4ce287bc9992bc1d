// What a rank is told at its start, typed: the RankSpec of rank.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "compiler/program/mesh.h"

namespace autosp {

// What a plan is held against, of an attempt that verifies. Empty: there is no such file.
struct VerificationPaths {
  std::string one_device_path;
  std::string exact_path;
  std::string exported_path;
};

struct RankConfig {
  std::string job_id;
  int64_t generation = 0;
  bool is_restart = false;  // an earlier attempt may have written checkpoints
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t local_world_size = 1;
  Mesh mesh;                        // accum stands in the program
  std::optional<int> gpu;           // the device's index; unset: the CPU
  int64_t device_budget_bytes = 0;  // 0: no limit

  std::string program_path;
  std::string program_digest;
  std::string job_yaml_path;
  std::string output_directory;

  std::string shm_prefix;
  std::vector<std::string> node_of_rank;  // empty: all ranks are on one node
  // Set when ranks run on several nodes.
  std::vector<std::string> rank_addresses;  // "host:port", by rank
  std::string secret;
  std::vector<int> listen_fds;
  absl::Duration rendezvous_timeout = absl::Minutes(1);

  std::optional<VerificationPaths> verification;

  std::string agent_socket_path;  // empty: report to the log
  int num_threads = 0;            // 0: the cores of the node, shared among its ranks
};

}  // namespace autosp
