// What the coordinator orders with Prepare, once it has been validated (order_from_proto.h).

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_table.h"

namespace autosp::agent {

enum class FileRole { kArchive, kWeights, kTrainingData, kValidationData };
enum class NodeDevice { kCpu, kCuda };

struct InputFile {
  FileRole role = FileRole::kArchive;
  std::string path;
  int64_t size_bytes = 0;
};

// What the plan of an attempt that verifies is held against. Empty: there is none.
struct VerificationOrder {
  std::string one_device_text;
  std::string exact_text;
  std::string exported_text;
  int64_t needed_bytes = 0;
};

struct AttemptOrder {
  NodeId node_id;
  Reservation reservation;
  int64_t world_size = 0;
  int64_t dp_size = 1;
  int64_t ulysses_size = 1;
  int64_t ring_size = 1;
  std::string job_yaml;
  std::string program_text;
  std::string program_digest;
  std::vector<InputFile> files;
  std::optional<VerificationOrder> verification;
  std::string output_directory;
  int64_t device_budget_bytes = 0;  // 0: no limit.
  NodeDevice device = NodeDevice::kCpu;
  std::string rendezvous_id;
  std::vector<std::string> node_of_rank;
  bool is_first_training = false;  // Of the job: no checkpoint can be its own.

  const AttemptKey& key() const { return reservation.key; }
  // Whether ranks of the attempt run on other nodes too.
  bool SpansNodes() const;
};

// What a commit brings to an attempt that spans nodes; else it is empty.
struct PeersOrder {
  std::vector<std::string> addresses;  // by rank
  std::string secret;
};

}  // namespace autosp::agent
