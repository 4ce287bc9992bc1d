// The files of attempts on a node, under the agent's state folder:
//
//   jobs/<job>/gen<N>/live            exists while the attempt may have processes or shared memory
//                     program.txt job.yaml rank<K>.json rank<K>.log rank<K>.log.1 rank<K>.pid
//                     rendezvous-<id>/
//                     peers.json        addresses of ranks on all nodes, and their secret

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_order.h"

namespace autosp::agent {

// Thread-safe: it holds nothing but a path.
class AttemptFiles {
 public:
  explicit AttemptFiles(std::string state_dir) : state_dir_(std::move(state_dir)) {}

  std::string JobsFolder() const;
  std::string Folder(const AttemptKey& key) const;
  std::string LivePath(const AttemptKey& key) const;
  std::string ProgramPath(const AttemptKey& key) const;
  std::string JobYamlPath(const AttemptKey& key) const;
  std::string RendezvousFolder(const AttemptKey& key, const std::string& rendezvous_id) const;
  std::string SpecPath(const AttemptKey& key, Rank rank) const;
  std::string LogPath(const AttemptKey& key, Rank rank) const;
  std::string PidPath(const AttemptKey& key, Rank rank) const;
  std::string PeersPath(const AttemptKey& key) const;

  // Writes what the ranks need. `specs` are JSON, in the order of the order's slots.
  absl::Status Write(const AttemptOrder& order, const std::vector<std::string>& specs) const;

 private:
  std::string state_dir_;
};

// "/autosp-<job>-<generation>": what every shared memory name of the attempt starts with.
std::string SharedMemoryPrefix(const AttemptKey& key);

// The inputs are there with their sizes, the program for ranks can be executed, and the output
// folder (created if missing) takes new files and has room for the weights.
absl::Status CheckAttempt(const AttemptOrder& order, const std::string& rank_binary);

// What ranks of several nodes need to find each other, for the agent's user alone.
absl::Status WritePeersFile(const std::string& path, const std::string& json);

// The processes that run an attempt, for a later life of the agent.
absl::Status WritePidFile(const std::string& path, int64_t pid);

}  // namespace autosp::agent
