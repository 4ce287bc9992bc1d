// The ranks of an attempt on fake nodes of this machine, for tests of collectives between hosts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "worker/collectives/network_collectives.h"
#include "worker/collectives/tcp_rendezvous.h"

namespace autosp {

// What each rank of a job has when its process starts: a listening port, and all addresses.
class FakeNetwork {
 public:
  // `nodes` by rank.
  explicit FakeNetwork(const std::vector<std::string>& nodes) {
    for (const std::string& node : nodes) {
      auto listener = ListenTcp("127.0.0.1", {});
      EXPECT_TRUE(listener.ok()) << listener.status();
      if (!listener.ok()) return;
      endpoints_.push_back({.address = absl::StrCat("127.0.0.1:", listener->port), .node = node});
      listeners_.push_back(std::move(listener->fds.front()));
    }
  }

  TcpRendezvousOptions Options(int64_t rank) const {
    return {.attempt = {.job_id = "job-1", .generation = 2, .secret = "secret"},
            .rank = rank,
            .endpoints = endpoints_,
            .timeout = absl::Seconds(20)};
  }

  const std::vector<RankEndpoint>& endpoints() const { return endpoints_; }
  UniqueFd TakeListener(int64_t rank) { return std::move(listeners_[rank]); }

  // As a rank's process has it.
  std::vector<UniqueFd> TakeListeners(int64_t rank) {
    std::vector<UniqueFd> listeners;
    if (listeners_[rank].is_open()) listeners.push_back(TakeListener(rank));
    return listeners;
  }

  std::unique_ptr<TcpRendezvous> MakeRendezvous(int64_t rank) {
    return std::make_unique<TcpRendezvous>(TakeListeners(rank), Options(rank));
  }

 private:
  std::vector<RankEndpoint> endpoints_;
  std::vector<UniqueFd> listeners_;
};

}  // namespace autosp
