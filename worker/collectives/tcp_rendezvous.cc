#include "worker/collectives/tcp_rendezvous.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/collectives/collectives.h"
#include "worker/collectives/group_digest.h"

namespace autosp {
namespace {

// Connections of others than ranks, which wait like those of ranks that have not said yet who they
// are. With more, the oldest go.
constexpr size_t kMaxStrangers = 128;
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

// A peer whose machine or cable is gone answers no probe: noticed after 4 + 3 * 2 seconds of
// silence, also while neither side sends anything.
constexpr int kKeepAliveIdleSeconds = 4;
constexpr int kKeepAliveIntervalSeconds = 2;
constexpr int kKeepAliveProbes = 3;

absl::Duration Now() { return Clock::Real().Steady(); }

void SetOption(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

// Buffers keep the sizes that the kernel gives them: it grows them as the link needs.
void SetPeerOptions(int fd) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
}

// A handshake's messages are smaller than any socket's buffer: one that does not fit at once has no
// reader.
absl::Status SendWhole(int fd, absl::string_view bytes) {
  const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent == static_cast<ssize_t>(bytes.size())) return absl::OkStatus();
  return ErrnoError(sent < 0 ? errno : EPIPE, "cannot send");
}

// Reads until `received` has `size` bytes, and nothing behind them. True: it has.
absl::StatusOr<bool> ReceiveUpTo(int fd, size_t size, std::string& received) {
  char buffer[std::max({kChallengeBytes, kHelloBytes, kVerdictBytes})];
  while (received.size() < size) {
    const ssize_t count = recv(fd, buffer, size - received.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (count < 0) return ErrnoError(errno, "cannot receive");
    if (count == 0) return Unavailable("the connection was closed");
    received.append(buffer, static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

TcpRendezvous::TcpRendezvous(std::vector<UniqueFd> listeners, TcpRendezvousOptions options)
    : listeners_(std::move(listeners)), options_(std::move(options)) {}

std::string TcpRendezvous::Describe(int64_t rank) const {
  const bool is_known = rank >= 0 && rank < std::ssize(options_.endpoints);
  return is_known ? absl::StrCat("rank ", rank, " on node ", options_.endpoints[rank].node)
                  : absl::StrCat("rank ", rank);
}

absl::StatusOr<std::vector<PeerSockets>> TcpRendezvous::Meet(const ProcessGroup& group,
                                                             const std::vector<bool>& needs_data) {
  const uint64_t digest = GroupDigest(group);
  const int own_index = group.IndexOf(options_.rank);
  std::vector<Key> to_connect;
  std::vector<Key> to_accept;
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == own_index) continue;
    std::vector<Key>& keys = peer < own_index ? to_connect : to_accept;
    keys.emplace_back(digest, group.ranks[peer], PeerChannel::kControl);
    if (needs_data[peer]) keys.emplace_back(digest, group.ranks[peer], PeerChannel::kData);
  }
  ASSIGN_OR_RETURN(std::vector<Outgoing> outgoing, BeginConnects(group, to_connect));
  // What it took to know their names is no fault of peers.
  const absl::Duration deadline = Now() + options_.timeout;
  std::map<Key, UniqueFd> met;
  while (true) {
    AcceptAll();
    AdvanceIncoming();
    AcceptIntroduced(to_accept, met);
    for (Outgoing& each : outgoing) {
      if (absl::Status status = Advance(each); !status.ok()) return Lost(each, status);
    }
    const bool has_connected = std::ranges::all_of(
        outgoing, [](const Outgoing& each) { return each.state == Outgoing::State::kDone; });
    if (has_connected && met.size() == to_accept.size()) break;
    if (Now() > deadline) {
      std::erase_if(to_accept, [&met](const Key& key) { return met.contains(key); });
      for (const Outgoing& each : outgoing) {
        if (each.state != Outgoing::State::kDone) to_accept.push_back(each.key);
      }
      return WithContext(MissingMembers(to_accept), "group ", group.name);
    }
    WaitForNews(outgoing, std::min(kPollInterval, deadline - Now()));
  }
  for (Outgoing& each : outgoing) met[each.key] = std::move(each.fd);
  std::vector<PeerSockets> sockets(group.size());
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == own_index) continue;
    sockets[peer].control = std::move(met[{digest, group.ranks[peer], PeerChannel::kControl}]);
    if (!needs_data[peer]) continue;
    sockets[peer].data = std::move(met[{digest, group.ranks[peer], PeerChannel::kData}]);
  }
  return sockets;
}

absl::Status TcpRendezvous::MissingMembers(const std::vector<Key>& keys) const {
  std::set<int64_t> missing;
  for (const Key& key : keys) missing.insert(std::get<1>(key));
  const std::string names = absl::StrJoin(missing, ", ", [this](std::string* out, int64_t rank) {
    absl::StrAppend(out, Describe(rank));
  });
  return MarkPeerLost(
      DeadlineExceeded(names, " did not come up within ", absl::FormatDuration(options_.timeout)));
}

absl::StatusOr<std::vector<TcpRendezvous::Outgoing>> TcpRendezvous::BeginConnects(
    const ProcessGroup& group, const std::vector<Key>& keys) {
  std::vector<Outgoing> outgoing;
  for (const Key& key : keys) {
    const int64_t rank = std::get<1>(key);
    if (rank >= std::ssize(options_.endpoints)) {
      return InvalidArgument("group ", group.name, ": rank ", rank, " has no address");
    }
    Outgoing& each = outgoing.emplace_back();
    each.key = key;
    const absl::StatusOr<Target> target = FindTarget(rank);
    if (!target.ok()) return Lost(each, target.status());
    each.target = *target;
  }
  // Not before all names are known: a peer that has been connected to soon wants to hear who it is.
  for (Outgoing& each : outgoing) {
    const absl::Status status = TryNextAddress(each);
    if (!status.ok()) return Lost(each, status);
  }
  return outgoing;
}

absl::StatusOr<TcpRendezvous::Target> TcpRendezvous::FindTarget(int64_t rank) {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(options_.endpoints[rank].address));
  auto known = resolved_.find(address.host);
  if (known == resolved_.end()) {
    ASSIGN_OR_RETURN(std::vector<HostAddress> hosts, options_.resolve(address.host));
    known = resolved_.emplace(address.host, std::move(hosts)).first;
  }
  return Target{.hosts = &known->second, .port = address.port};
}

absl::Status TcpRendezvous::TryNextAddress(Outgoing& outgoing) {
  const Target& target = outgoing.target;
  while (outgoing.num_tried < target.hosts->size()) {
    const HostAddress& host = (*target.hosts)[outgoing.num_tried++];
    absl::StatusOr<UniqueFd> fd = BeginConnectTcp(host, target.port);
    if (fd.ok()) {
      outgoing.fd = *std::move(fd);
      outgoing.connect_deadline = Now() + options_.connect_timeout;
      return absl::OkStatus();
    }
    outgoing.errors.Add(host, fd.status());
  }
  return outgoing.errors.Summary();
}

absl::Status TcpRendezvous::GiveUpAddress(Outgoing& outgoing, absl::Status why) {
  outgoing.errors.Add((*outgoing.target.hosts)[outgoing.num_tried - 1], std::move(why));
  return TryNextAddress(outgoing);
}

// The kernel says the rest: a socket that was reset or refused is readable too.
void TcpRendezvous::WaitForNews(const std::vector<Outgoing>& outgoing,
                                absl::Duration timeout) const {
  std::vector<pollfd> polled;
  for (const UniqueFd& listener : listeners_) {
    polled.push_back({.fd = listener.get(), .events = POLLIN, .revents = 0});
  }
  for (const Incoming& each : incoming_) {
    polled.push_back({.fd = each.fd.get(), .events = POLLIN, .revents = 0});
  }
  for (const Outgoing& each : outgoing) {
    if (each.state == Outgoing::State::kDone) continue;
    const bool is_connecting = each.state == Outgoing::State::kConnecting;
    const auto events = static_cast<short>(is_connecting ? POLLOUT : POLLIN);
    polled.push_back({.fd = each.fd.get(), .events = events, .revents = 0});
  }
  const int64_t timeout_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(timeout));
  poll(polled.data(), polled.size(), static_cast<int>(timeout_ms));
}

void TcpRendezvous::AcceptAll() {
  for (const UniqueFd& listener : listeners_) AcceptAllOf(listener.get());
}

void TcpRendezvous::AcceptAllOf(int listener) {
  while (true) {
    UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.is_open() && errno == ECONNABORTED) continue;
    if (!fd.is_open()) return;
    SetPeerOptions(fd.get());
    Incoming& each = incoming_.emplace_back();
    each.from = PeerAddress(fd.get());
    each.challenge = RandomNonce();
    each.deadline = Now() + options_.hello_timeout;
    each.fd = std::move(fd);
    if (!SendWhole(each.fd.get(), EncodeChallenge(each.challenge)).ok()) incoming_.pop_back();
    // Each rank has at most two that have not said who they are: it opens one group at a time.
    if (incoming_.size() > kMaxStrangers + 2 * options_.endpoints.size()) {
      LogWarning("the connection from ", incoming_.front().from,
                 " is dropped: too many have not said who they are");
      incoming_.pop_front();
    }
  }
}

void TcpRendezvous::AdvanceIncoming() {
  std::erase_if(incoming_, [this](Incoming& each) { return !Advance(each); });
}

bool TcpRendezvous::Advance(Incoming& incoming) {
  const auto is_whole = ReceiveUpTo(incoming.fd.get(), kHelloBytes, incoming.received);
  if (is_whole.ok() && *is_whole) {
    Judge(incoming);
    return false;
  }
  if (!is_whole.ok()) {
    LogWarning("the connection from ", incoming.from, " has ended without a hello");
    return false;
  }
  if (Now() < incoming.deadline) return true;
  LogWarning("the connection from ", incoming.from, " is dropped: no hello within ",
             absl::FormatDuration(options_.hello_timeout));
  return false;
}

void TcpRendezvous::Judge(Incoming& incoming) {
  const absl::StatusOr<Hello> hello = ParseHello(incoming.received);
  if (!hello.ok()) {
    LogWarning("the connection from ", incoming.from, " is refused: ", hello.status().message());
    return;
  }
  Verdict verdict =
      JudgeHello(*hello, incoming.received, incoming.challenge, options_.attempt, options_.rank);
  const Key key = {hello->group_digest, hello->from_rank, hello->channel};
  if (verdict == Verdict::kAccepted && !taken_.insert(key).second) verdict = Verdict::kTaken;
  if (verdict == Verdict::kAccepted) {
    introduced_[key] = {.fd = std::move(incoming.fd), .nonce = hello->nonce};
    return;
  }
  // Whether it hears that is its own concern.
  SendWhole(incoming.fd.get(), EncodeVerdict(verdict, hello->nonce, options_.attempt.secret))
      .IgnoreError();
  LogWarning("the connection from ", incoming.from, " is refused: it is ", VerdictReason(verdict),
             " (it says: job ", hello->job_id, ", generation ", hello->generation, ", rank ",
             hello->from_rank, " to rank ", hello->to_rank, ")");
}

void TcpRendezvous::AcceptIntroduced(const std::vector<Key>& keys, std::map<Key, UniqueFd>& met) {
  for (const Key& key : keys) {
    const auto found = introduced_.find(key);
    if (found == introduced_.end()) continue;
    auto& [fd, nonce] = found->second;
    const std::string verdict = EncodeVerdict(Verdict::kAccepted, nonce, options_.attempt.secret);
    if (SendWhole(fd.get(), verdict).ok()) met[key] = std::move(fd);
    introduced_.erase(found);
  }
}

absl::Status TcpRendezvous::Advance(Outgoing& outgoing) {
  if (outgoing.state == Outgoing::State::kConnecting) {
    RETURN_IF_ERROR(FinishConnect(outgoing));
  }
  if (outgoing.state == Outgoing::State::kAwaitsChallenge) {
    RETURN_IF_ERROR(SayHello(outgoing));
  }
  if (outgoing.state == Outgoing::State::kAwaitsVerdict) {
    RETURN_IF_ERROR(HearVerdict(outgoing));
  }
  return absl::OkStatus();
}

absl::Status TcpRendezvous::FinishConnect(Outgoing& outgoing) {
  pollfd query = {.fd = outgoing.fd.get(), .events = POLLOUT, .revents = 0};
  if (poll(&query, 1, /*timeout=*/0) == 0) {
    if (Now() < outgoing.connect_deadline) return absl::OkStatus();
    return GiveUpAddress(
        outgoing,
        DeadlineExceeded("no answer within ", absl::FormatDuration(options_.connect_timeout)));
  }
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(outgoing.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return GiveUpAddress(outgoing, ErrnoError(error, "cannot connect"));
  SetPeerOptions(outgoing.fd.get());
  outgoing.state = Outgoing::State::kAwaitsChallenge;
  return absl::OkStatus();
}

absl::Status TcpRendezvous::SayHello(Outgoing& outgoing) {
  ASSIGN_OR_RETURN(const bool is_whole,
                   ReceiveUpTo(outgoing.fd.get(), kChallengeBytes, outgoing.received));
  if (!is_whole) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Nonce challenge, ParseChallenge(outgoing.received));
  const auto& [digest, rank, channel] = outgoing.key;
  outgoing.received.clear();
  outgoing.nonce = RandomNonce();
  const Hello hello = {.job_id = options_.attempt.job_id,
                       .generation = options_.attempt.generation,
                       .group_digest = digest,
                       .from_rank = static_cast<int32_t>(options_.rank),
                       .to_rank = static_cast<int32_t>(rank),
                       .channel = channel,
                       .nonce = outgoing.nonce,
                       .proof = ""};
  RETURN_IF_ERROR(
      SendWhole(outgoing.fd.get(), EncodeHello(hello, challenge, options_.attempt.secret)));
  outgoing.state = Outgoing::State::kAwaitsVerdict;
  return absl::OkStatus();
}

absl::Status TcpRendezvous::HearVerdict(Outgoing& outgoing) {
  ASSIGN_OR_RETURN(const bool is_whole,
                   ReceiveUpTo(outgoing.fd.get(), kVerdictBytes, outgoing.received));
  if (!is_whole) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Verdict verdict,
                   ParseVerdict(outgoing.received, outgoing.nonce, options_.attempt.secret));
  if (verdict != Verdict::kAccepted) {
    return PermissionDenied("it refuses this rank as ", VerdictReason(verdict));
  }
  outgoing.state = Outgoing::State::kDone;
  return absl::OkStatus();
}

// A rank that listens is there from before any other could connect: whoever does not answer has
// ended, or cannot be reached.
absl::Status TcpRendezvous::Lost(const Outgoing& outgoing, const absl::Status& why) const {
  const int64_t rank = std::get<1>(outgoing.key);
  return MarkPeerLost(WithContext(why, Describe(rank), " at ", options_.endpoints[rank].address));
}

}  // namespace autosp
