// Sees the end of processes of this host through pidfds, which no reuse of a pid can deceive.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/collectives/ring_collectives.h"

namespace autosp {

class PidWatcher final : public PeerWatcher {
 public:
  // `pids` by index in the group; 0: not watched. Where the system refuses pidfds (an old kernel, a
  // seccomp filter), deaths go unseen here and show as time-outs.
  explicit PidWatcher(std::vector<int64_t> pids);
  PidWatcher(const PidWatcher&) = delete;
  PidWatcher& operator=(const PidWatcher&) = delete;
  ~PidWatcher() override;

  std::vector<Death> FindDead() override;

 private:
  struct Peer {
    int64_t pid = 0;
    int pidfd = -1;
    bool is_gone = false;
  };
  std::vector<Peer> peers_;
};

}  // namespace autosp
