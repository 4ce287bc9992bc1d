// The sockets on which ranks of attempts over several nodes listen for each other. The agent opens
// them when an attempt is prepared, so that all addresses are known before any rank starts, and
// gives each to its rank's process.

#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file.h"
#include "common/tcp.h"
#include "worker/agent/attempt.h"

namespace autosp::agent {

struct ListenOptions {
  std::string host;             // to listen on
  std::string advertised_host;  // where other nodes reach that
  PortRange ports;
};

// "host:port" of each.
using RankAddresses = std::vector<std::pair<Rank, std::string>>;

// Thread-safe.
class RankListeners {
 public:
  explicit RankListeners(ListenOptions options) : options_(std::move(options)) {}

  // The addresses of the ranks; the same ones when asked again.
  absl::StatusOr<RankAddresses> Open(const AttemptKey& key, const std::vector<RankSlot>& slots);
  // For the rank's process, once; none when there is none.
  std::vector<UniqueFd> Take(const AttemptKey& key, Rank rank);
  // Those of an attempt that has ended.
  void Close(const AttemptKey& key);

 private:
  struct Listener {
    std::vector<UniqueFd> fds;
    std::string address;
  };

  const ListenOptions options_;
  std::mutex mutex_;
  std::map<std::pair<AttemptKey, Rank>, Listener> listeners_;  // Guarded by mutex_.
};

}  // namespace autosp::agent
