// Ranks that meet while others try to get in: strangers, old ranks, silence and noise.

#include "worker/collectives/tcp_rendezvous.h"

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "tests/common/status_matchers.h"
#include "tests/worker/collectives/network_fixture.h"

namespace autosp {
namespace {

using testing::HasSubstr;

const ProcessGroup kPair = {.name = "ulysses:0", .ranks = {0, 1}};
const std::vector<bool> kAllData = {true, true};

UniqueFd ConnectTo(const FakeNetwork& network, int64_t rank) {
  const auto address = ParseHostPort(network.endpoints()[rank].address);
  auto fd = BeginConnectTcp(*address);
  EXPECT_THAT(fd, IsOk());
  absl::SleepFor(absl::Milliseconds(20));
  return std::move(*fd);
}

std::string ReceiveAll(int fd, size_t size) {
  std::string bytes(size, '\0');
  size_t done = 0;
  for (int i = 0; i < 500 && done < size; ++i) {
    const ssize_t count = recv(fd, bytes.data() + done, size - done, MSG_DONTWAIT);
    if (count == 0) break;
    if (count > 0) done += static_cast<size_t>(count);
    if (count < 0) absl::SleepFor(absl::Milliseconds(10));
  }
  bytes.resize(done);
  return bytes;
}

bool IsClosedSoon(int fd) {
  char byte;
  for (int i = 0; i < 500; ++i) {
    const ssize_t count = recv(fd, &byte, 1, MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN)) return true;
    if (count < 0) absl::SleepFor(absl::Milliseconds(10));
  }
  return false;
}

// Runs `attack` while rank 0 waits for rank 1, which comes afterwards and must be let in.
void MeetDuring(FakeNetwork& network, const std::function<void()>& attack,
                const TcpRendezvousOptions& options) {
  absl::Status first;
  std::thread acceptor([&] {
    TcpRendezvous rendezvous(network.TakeListeners(0), options);
    first = rendezvous.Meet(kPair, kAllData).status();
  });
  attack();
  const auto sockets = network.MakeRendezvous(1)->Meet(kPair, kAllData);
  acceptor.join();
  EXPECT_THAT(first, IsOk());
  ASSERT_THAT(sockets, IsOk());
  EXPECT_TRUE((*sockets)[0].data.is_open());
  EXPECT_TRUE((*sockets)[0].control.is_open());
}

TEST(TcpRendezvousTest, HostileBytesAreRefusedAndMembersComeIn) {
  const std::string attacks[] = {
      "",
      "x",
      "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      std::string(kHelloBytes, '\0'),
      std::string(kHelloBytes, '\xff'),
      std::string(1 << 20, 'a'),
      EncodeHello({}, {}, "guess"),
      EncodeHello({}, {}, "guess").substr(0, kHelloBytes - 1),
  };
  for (const std::string& bytes : attacks) {
    FakeNetwork network({"a", "b"});
    TcpRendezvousOptions options = network.Options(0);
    options.hello_timeout = absl::Milliseconds(200);
    MeetDuring(
        network,
        [&] {
          const UniqueFd stranger = ConnectTo(network, 0);
          send(stranger.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
          EXPECT_TRUE(IsClosedSoon(stranger.get())) << bytes.size() << " bytes";
        },
        options);
  }
}

TEST(TcpRendezvousTest, CrowdsOfSilentStrangersKeepNobodyOut) {
  FakeNetwork network({"a", "b"});
  std::vector<UniqueFd> strangers;
  MeetDuring(
      network,
      [&] {
        for (int i = 0; i < 300; ++i) {
          auto fd = BeginConnectTcp(*ParseHostPort(network.endpoints()[0].address));
          if (fd.ok()) strangers.push_back(std::move(*fd));
        }
      },
      network.Options(0));
}

// All have connected before rank 0 looks, as when a job of many ranks comes up.
TEST(TcpRendezvousTest, CrowdsOfMembersComeIn) {
  constexpr int kNumRanks = 80;  // two connections each, but for the first
  FakeNetwork network(std::vector<std::string>(kNumRanks, "a"));
  std::vector<std::thread> members;
  std::vector<absl::Status> statuses(kNumRanks);
  for (int rank = 1; rank < kNumRanks; ++rank) {
    members.emplace_back([&, rank] {
      const ProcessGroup group = {.name = "dp:0", .ranks = {0, rank}};
      statuses[rank] = network.MakeRendezvous(rank)->Meet(group, kAllData).status();
    });
  }
  absl::SleepFor(absl::Milliseconds(500));
  const auto rendezvous = network.MakeRendezvous(0);
  for (int rank = 1; rank < kNumRanks; ++rank) {
    const ProcessGroup group = {.name = "dp:0", .ranks = {0, rank}};
    EXPECT_THAT(rendezvous->Meet(group, kAllData), IsOk()) << rank;
    if (HasFailure()) break;
  }
  for (std::thread& member : members) member.join();
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

// A peer that was connected to would drop a rank that then asks for the name of the next.
TEST(TcpRendezvousTest, NamesAreKnownBeforeAnyPeerIsConnectedTo) {
  FakeNetwork network({"a", "b", "c"});
  const ProcessGroup group = {.name = "ulysses:0", .ranks = {0, 1, 2}};
  const std::vector<bool> all(3, true);
  std::vector<UniqueFd> listeners[] = {network.TakeListeners(0), network.TakeListeners(1)};
  TcpRendezvousOptions options = network.Options(2);
  options.endpoints[0].address = absl::StrCat("a", options.endpoints[0].address.substr(9));
  options.endpoints[1].address = absl::StrCat("b", options.endpoints[1].address.substr(9));
  std::vector<std::thread> acceptors;
  std::vector<std::string> names;
  options.resolve = [&](const std::string& host) {
    names.push_back(host);
    // Nobody accepts before the last name is known, so that whoever has connected still waits here.
    for (const std::vector<UniqueFd>& of_rank : listeners) {
      pollfd query = {.fd = of_rank.front().get(), .events = POLLIN, .revents = 0};
      EXPECT_EQ(poll(&query, 1, /*timeout=*/0), 0) << host;
    }
    if (host != "b") return ResolveHost("127.0.0.1");
    for (const int rank : {0, 1}) {
      acceptors.emplace_back([&, rank] {
        TcpRendezvous rendezvous(std::move(listeners[rank]), network.Options(rank));
        EXPECT_THAT(rendezvous.Meet(group, all), IsOk());
      });
    }
    return ResolveHost("127.0.0.1");
  };
  TcpRendezvous rendezvous(network.TakeListeners(2), options);
  EXPECT_THAT(rendezvous.Meet(group, all), IsOk());
  for (std::thread& acceptor : acceptors) acceptor.join();
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b"})) << "each once, for both channels";
}

// As where a node's name has an address of each family, and its ranks listen on one of them.
TEST(TcpRendezvousTest, AllAddressesOfANameAreTried) {
  FakeNetwork network({"a", "b"});
  std::thread acceptor(
      [&] { EXPECT_THAT(network.MakeRendezvous(0)->Meet(kPair, kAllData), IsOk()); });
  TcpRendezvousOptions options = network.Options(1);
  options.resolve = [&](const std::string& host) -> absl::StatusOr<std::vector<HostAddress>> {
    auto hosts = ResolveHost("127.0.0.2");
    hosts->push_back(ResolveHost(host)->front());
    return hosts;
  };
  TcpRendezvous rendezvous(network.TakeListeners(1), options);
  EXPECT_THAT(rendezvous.Meet(kPair, kAllData), IsOk());
  acceptor.join();
}

TEST(TcpRendezvousTest, EveryAddressThatDoesNotAnswerIsNamed) {
  FakeNetwork network({"a", "b"});
  network.TakeListener(0);  // closes it
  TcpRendezvousOptions options = network.Options(1);
  options.resolve = [&](const std::string& host) -> absl::StatusOr<std::vector<HostAddress>> {
    auto hosts = ResolveHost(host);
    hosts->push_back(ResolveHost("224.0.0.1")->front());  // of a group: nothing connects to one
    return hosts;
  };
  TcpRendezvous rendezvous(network.TakeListeners(1), options);
  const absl::Status status = rendezvous.Meet(kPair, kAllData).status();
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("127.0.0.1: cannot connect: Connection refused; 224.0.0.1: cannot connect"));
  EXPECT_TRUE(IsPeerLost(status));
}

TEST(TcpRendezvousTest, AnOldRankIsToldThatItIsOld) {
  FakeNetwork network({"a", "b"});
  MeetDuring(
      network,
      [&] {
        FakeNetwork spare({"a", "b"});  // lends a listener to the old rank
        TcpRendezvousOptions old = network.Options(1);
        old.attempt.generation = 1;
        TcpRendezvous rendezvous(spare.TakeListeners(1), old);
        EXPECT_THAT(rendezvous.Meet(kPair, kAllData),
                    IsError(absl::StatusCode::kPermissionDenied,
                            HasSubstr("rank 0 on node a at 127.0.0.1")));
        EXPECT_THAT(rendezvous.Meet(kPair, kAllData).status().message(),
                    HasSubstr("of another generation"));
      },
      network.Options(0));
}

TEST(TcpRendezvousTest, ASecondConnectionOfARankIsRefused) {
  FakeNetwork network({"a", "b", "c"});
  const ProcessGroup group = {.name = "ulysses:0", .ranks = {0, 1, 2}};
  const std::vector<bool> all(3, true);
  std::thread acceptor([&] { EXPECT_THAT(network.MakeRendezvous(0)->Meet(group, all), IsOk()); });
  std::thread member([&] { EXPECT_THAT(network.MakeRendezvous(1)->Meet(group, all), IsOk()); });
  // Says hello as rank 2, which it can: it knows the secret.
  const UniqueFd early = ConnectTo(network, 0);
  const auto challenge = ParseChallenge(ReceiveAll(early.get(), kChallengeBytes));
  ASSERT_THAT(challenge, IsOk());
  const Hello hello = {.job_id = "job-1",
                       .generation = 2,
                       .group_digest = 1234,
                       .from_rank = 2,
                       .to_rank = 0,
                       .channel = PeerChannel::kData,
                       .nonce = {},
                       .proof = ""};
  const std::string bytes = EncodeHello(hello, *challenge, "secret");
  send(early.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  absl::SleepFor(absl::Milliseconds(50));  // until it has been read
  const UniqueFd late = ConnectTo(network, 0);
  const auto second = ParseChallenge(ReceiveAll(late.get(), kChallengeBytes));
  ASSERT_THAT(second, IsOk());
  const std::string again = EncodeHello(hello, *second, "secret");
  send(late.get(), again.data(), again.size(), MSG_NOSIGNAL);
  EXPECT_THAT(ParseVerdict(ReceiveAll(late.get(), kVerdictBytes), {}, "secret"),
              IsOkAndHolds(Verdict::kTaken));
  char byte;
  EXPECT_EQ(recv(early.get(), &byte, 1, MSG_DONTWAIT), -1) << "its group has not been opened";
  // The group's own connections are others, and come in.
  EXPECT_THAT(network.MakeRendezvous(2)->Meet(group, all), IsOk());
  acceptor.join();
  member.join();
}

// What rank 0 makes for a group before it opens it has to be there for whoever has met rank 0.
TEST(TcpRendezvousTest, ARankThatIsAheadWaits) {
  FakeNetwork network({"a", "b", "c"});
  const ProcessGroup first = {.name = "ulysses:0", .ranks = {0, 2}};
  const ProcessGroup second = {.name = "checkpoint", .ranks = {0, 1}};
  std::atomic<bool> has_made = false;
  std::thread behind([&] {
    const auto rendezvous = network.MakeRendezvous(0);
    EXPECT_THAT(rendezvous->Meet(first, kAllData), IsOk());
    has_made = true;
    EXPECT_THAT(rendezvous->Meet(second, kAllData), IsOk());
  });
  std::atomic<bool> has_met = false;
  std::thread ahead([&] {
    EXPECT_THAT(network.MakeRendezvous(1)->Meet(second, kAllData), IsOk());
    EXPECT_TRUE(has_made);
    has_met = true;
  });
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_FALSE(has_met) << "rank 0 still waits for rank 2 in another group";
  EXPECT_THAT(network.MakeRendezvous(2)->Meet(first, kAllData), IsOk());
  behind.join();
  ahead.join();
  EXPECT_TRUE(has_met);
}

TEST(TcpRendezvousTest, WhoListensWithoutTheSecretIsNotBelieved) {
  FakeNetwork network({"a", "b"});
  const UniqueFd listener = network.TakeListener(0);
  std::thread impostor([&] {
    UniqueFd fd;
    while (!fd.is_open()) fd.Reset(accept(listener.get(), nullptr, nullptr));
    const std::string challenge = EncodeChallenge({});
    send(fd.get(), challenge.data(), challenge.size(), MSG_NOSIGNAL);
    ReceiveAll(fd.get(), kHelloBytes);
    const std::string verdict = EncodeVerdict(Verdict::kAccepted, {}, "guess");
    send(fd.get(), verdict.data(), verdict.size(), MSG_NOSIGNAL);
    IsClosedSoon(fd.get());
  });
  EXPECT_THAT(network.MakeRendezvous(1)->Meet(kPair, {false, false}),
              IsError(absl::StatusCode::kPermissionDenied, HasSubstr("does not know")));
  impostor.join();
}

TEST(TcpRendezvousTest, MissingAndDeadMembersAreNamed) {
  {
    FakeNetwork network({"a", "b"});
    TcpRendezvousOptions options = network.Options(0);
    options.timeout = absl::Milliseconds(200);
    TcpRendezvous rendezvous(network.TakeListeners(0), options);
    const absl::Status status = rendezvous.Meet(kPair, kAllData).status();
    EXPECT_THAT(status, IsError(absl::StatusCode::kDeadlineExceeded,
                                HasSubstr("group ulysses:0: rank 1 on node b did not come up")));
    EXPECT_TRUE(IsPeerLost(status));
  }
  FakeNetwork network({"a", "b"});
  network.TakeListener(0);  // closes it
  const absl::Status status = network.MakeRendezvous(1)->Meet(kPair, kAllData).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 on node a at 127.0.0.1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused"));
  EXPECT_TRUE(IsPeerLost(status));
}

}  // namespace
}  // namespace autosp
