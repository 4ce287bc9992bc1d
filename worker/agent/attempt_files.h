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

// What an agent starts.
struct RankPrograms {
  std::string rank;
  std::string verify;

  const std::string& For(bool is_verification) const { return is_verification ? verify : rank; }
};

// Where the files of a verification are. Empty: there is no such file.
struct VerificationFilePaths {
  std::string one_device;
  std::string exact;
  std::string exported;
};

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
  VerificationFilePaths VerificationPathsOf(const AttemptKey& key,
                                            const VerificationOrder& verification) const;

  // Writes what the ranks need. `specs` are JSON, in the order of the order's slots.
  absl::Status Write(const AttemptOrder& order, const std::vector<std::string>& specs) const;

 private:
  absl::Status WriteVerification(const AttemptKey& key,
                                 const VerificationOrder& verification) const;

  std::string state_dir_;
};

// "/autosp-<job>-<generation>": what every shared memory name of the attempt starts with.
std::string SharedMemoryPrefix(const AttemptKey& key);

// The inputs are there with their sizes, and the program can be executed. For training, the output
// folder (created if missing) takes new files and has room for the weights; for a verification, the
// machine has the memory that it needs.
absl::Status CheckAttempt(const AttemptOrder& order, const RankPrograms& programs,
                          int64_t host_memory_bytes);

// What ranks of several nodes need to find each other, for the agent's user alone.
absl::Status WritePeersFile(const std::string& path, const std::string& json);

// The processes that run an attempt, for a later life of the agent.
absl::Status WritePidFile(const std::string& path, int64_t pid);

}  // namespace autosp::agent
