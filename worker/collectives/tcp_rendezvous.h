// Where the ranks of an attempt that run on several nodes find each other.
//
// Each rank listens on one port. In a group, a rank connects to the members before it and is
// connected by those after it, and each connection proves on both sides that it belongs to the
// attempt (tcp_handshake.h). Whoever cannot, strangers and ranks of an older generation, is refused
// and logged; who says nothing is dropped after a while. Once all groups are open the port is
// closed.
//
// A rank may be ahead and connect for a group that this one has yet to open. It is told that it is
// accepted once this rank opens the group, so that whoever has met a rank finds what that rank had
// made for the group before.
//
// Requires: ranks open their groups in the same order, so that none wait for each other in a
// circle.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/tcp.h"
#include "worker/collectives/process_group.h"
#include "worker/collectives/tcp_handshake.h"

namespace autosp {

// Connected and proved; they do not block. `data` is closed where it was not asked for.
struct PeerSockets {
  UniqueFd data;
  UniqueFd control;
};

struct RankEndpoint {
  std::string address;  // "host:port" where the rank listens
  std::string node;     // for messages
};

struct TcpRendezvousOptions {
  AttemptIdentity attempt;
  int64_t rank = 0;
  std::vector<RankEndpoint> endpoints = {};  // of all ranks of the job
  // How long members of a group are waited for.
  absl::Duration timeout = absl::Minutes(1);
  // How long the network may take: a listening rank is connected at once, though it may be busy.
  absl::Duration connect_timeout = absl::Seconds(10);
  // How long a connection may take to say who it is.
  absl::Duration hello_timeout = absl::Seconds(5);
  // May take its time. Another one: for tests.
  std::function<absl::StatusOr<std::vector<HostAddress>>(const std::string& host)> resolve =
      ResolveHost;
};

// Used by one thread.
class TcpRendezvous {
 public:
  // `listeners` are of all addresses by which others may come.
  TcpRendezvous(std::vector<UniqueFd> listeners, TcpRendezvousOptions options);

  const TcpRendezvousOptions& options() const { return options_; }
  const std::string& NodeOf(int64_t rank) const { return options_.endpoints[rank].node; }
  // "rank 3 on node b"
  std::string Describe(int64_t rank) const;

  // Connections with all other members, by index in the group; returns when all are there and in
  // this call, or past it.
  // `needs_data` says by index to whom a data connection is wanted; members must agree on it.
  absl::StatusOr<std::vector<PeerSockets>> Meet(const ProcessGroup& group,
                                                const std::vector<bool>& needs_data);

 private:
  // Group, rank of the job, channel.
  using Key = std::tuple<uint64_t, int64_t, PeerChannel>;
  // One that has connected to this rank.
  struct Incoming {
    UniqueFd fd;
    std::string from;
    Nonce challenge = {};
    std::string received = {};
    absl::Duration deadline;
  };
  // One that has proved what it is, and waits for this rank to open its group.
  struct Introduced {
    UniqueFd fd;
    Nonce nonce = {};
  };
  // Where a rank listens: one of these addresses of its host.
  struct Target {
    const std::vector<HostAddress>* hosts = nullptr;
    int port = 0;
  };
  // One that this rank connects to.
  struct Outgoing {
    Key key;
    Target target;
    size_t num_tried = 0;  // of the target's addresses
    AddressErrors errors;  // of those that were tried
    UniqueFd fd;
    absl::Duration connect_deadline;
    enum class State { kConnecting, kAwaitsChallenge, kAwaitsVerdict, kDone };
    State state = State::kConnecting;
    Nonce nonce = {};
    std::string received = {};
  };

  absl::StatusOr<Target> FindTarget(int64_t rank);
  absl::StatusOr<std::vector<Outgoing>> BeginConnects(const ProcessGroup& group,
                                                      const std::vector<Key>& keys);
  void WaitForNews(const std::vector<Outgoing>& outgoing, absl::Duration timeout) const;
  void AcceptAll();
  void AcceptAllOf(int listener);
  void AdvanceIncoming();
  // False: it is done with, for good or bad.
  bool Advance(Incoming& incoming);
  void Judge(Incoming& incoming);
  // Moves those of `keys` that have come to `met`, and tells them.
  void AcceptIntroduced(const std::vector<Key>& keys, std::map<Key, UniqueFd>& met);
  absl::Status Advance(Outgoing& outgoing);
  // Begins to connect to the next address of the target; an error when none is left.
  absl::Status TryNextAddress(Outgoing& outgoing);
  // The same, since the address that was tried last does not do.
  absl::Status GiveUpAddress(Outgoing& outgoing, absl::Status why);
  absl::Status FinishConnect(Outgoing& outgoing);
  absl::Status SayHello(Outgoing& outgoing);
  absl::Status HearVerdict(Outgoing& outgoing);
  absl::Status Lost(const Outgoing& outgoing, const absl::Status& why) const;
  absl::Status MissingMembers(const std::vector<Key>& keys) const;

  const std::vector<UniqueFd> listeners_;
  const TcpRendezvousOptions options_;
  std::map<std::string, std::vector<HostAddress>> resolved_;  // by host
  std::deque<Incoming> incoming_;
  std::map<Key, Introduced> introduced_;
  std::set<Key> taken_;  // what has ever been in `introduced_`
};

}  // namespace autosp
