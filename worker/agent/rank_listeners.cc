#include "worker/agent/rank_listeners.h"

#include <utility>

#include "common/status_macros.h"

namespace autosp::agent {

absl::StatusOr<RankAddresses> RankListeners::Open(const AttemptKey& key,
                                                  const std::vector<RankSlot>& slots) {
  const std::lock_guard lock(mutex_);
  RankAddresses addresses;
  for (const RankSlot& slot : slots) {
    Listener& listener = listeners_[{key, slot.rank}];
    if (listener.address.empty()) {
      ASSIGN_OR_RETURN(TcpListener opened, ListenTcp(options_.host, options_.ports),
                       "--rank-address and --rank-ports");
      listener.fds = std::move(opened.fds);
      listener.address = HostPort{.host = options_.advertised_host, .port = opened.port}.ToString();
    }
    addresses.emplace_back(slot.rank, listener.address);
  }
  return addresses;
}

std::vector<UniqueFd> RankListeners::Take(const AttemptKey& key, Rank rank) {
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find({key, rank});
  if (found == listeners_.end()) return {};
  return std::exchange(found->second.fds, {});
}

void RankListeners::Close(const AttemptKey& key) {
  const std::lock_guard lock(mutex_);
  std::erase_if(listeners_, [&key](const auto& entry) { return entry.first.first == key; });
}

}  // namespace autosp::agent
