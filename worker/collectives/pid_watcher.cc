#include "worker/collectives/pid_watcher.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace autosp {

PidWatcher::PidWatcher(std::vector<int64_t> pids) {
  for (const int64_t pid : pids) {
    Peer peer{.pid = pid};
    if (pid != 0) {
      peer.pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
      peer.is_gone = peer.pidfd < 0 && errno == ESRCH;
    }
    peers_.push_back(peer);
  }
}

PidWatcher::~PidWatcher() {
  for (const Peer& peer : peers_) {
    if (peer.pidfd >= 0) close(peer.pidfd);
  }
}

std::vector<PeerWatcher::Death> PidWatcher::FindDead() {
  std::vector<Death> deaths;
  for (size_t i = 0; i < peers_.size(); ++i) {
    Peer& peer = peers_[i];
    if (!peer.is_gone && peer.pidfd >= 0) {
      pollfd query = {.fd = peer.pidfd, .events = POLLIN, .revents = 0};
      peer.is_gone = poll(&query, 1, /*timeout=*/0) == 1;
    }
    if (peer.is_gone) {
      deaths.push_back(
          {.rank = static_cast<int>(i), .how = absl::StrCat("pid ", peer.pid, " is gone")});
    }
  }
  return deaths;
}

}  // namespace autosp
