#include "common/tcp.h"

#include <poll.h>
#include <sys/socket.h>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

TEST(HostPortTest, ReadsHostsOfEveryKind) {
  struct Case {
    const char* text;
    const char* host;
    int port;
  };
  for (const Case& c : {Case{"a.example:80", "a.example", 80}, Case{"10.0.0.1:0", "10.0.0.1", 0},
                        Case{"[::1]:65535", "::1", 65535}, Case{":7", "", 7}}) {
    const auto address = ParseHostPort(c.text);
    ASSERT_THAT(address, IsOk()) << c.text;
    EXPECT_EQ(address->host, c.host);
    EXPECT_EQ(address->port, c.port);
    EXPECT_EQ(address->ToString(), c.text);
  }
}

TEST(HostPortTest, RefusesWhatHasNoPort) {
  for (const char* text : {"", "host", "host:", "host:x", "host:-1", "host:65536"}) {
    EXPECT_THAT(ParseHostPort(text), IsError(absl::StatusCode::kInvalidArgument, HasSubstr(text)))
        << text;
  }
}

TEST(PortRangeTest, ReadsRanges) {
  const auto range = ParsePortRange("7000-7010");
  ASSERT_THAT(range, IsOk());
  EXPECT_EQ(range->first, 7000);
  EXPECT_EQ(range->last, 7010);
  ASSERT_THAT(ParsePortRange("0"), IsOk());
  ASSERT_THAT(ParsePortRange("65535"), IsOk());
}

TEST(PortRangeTest, RefusesWhatIsNone) {
  for (const char* text : {"", "-", "7000-", "-7000", "7010-7000", "0-10", "1-65536", "a-b"}) {
    EXPECT_THAT(ParsePortRange(text), IsError(absl::StatusCode::kInvalidArgument, HasSubstr(text)))
        << text;
  }
}

TEST(ListenTest, TakesTheNextFreePortOfARange) {
  const auto first = ListenTcp("127.0.0.1", {});
  ASSERT_THAT(first, IsOk());
  // The range begins at a port that is taken.
  const auto second = ListenTcp("127.0.0.1", {.first = first->port, .last = first->port + 20});
  ASSERT_THAT(second, IsOk());
  EXPECT_GT(second->port, first->port);
  EXPECT_LE(second->port, first->port + 20);
  EXPECT_THAT(ListenTcp("127.0.0.1", {.first = first->port, .last = first->port}),
              testing::Not(IsOk()));
}

TEST(ListenTest, RefusesAnAddressOfAnotherMachine) {
  EXPECT_THAT(ListenTcp("192.0.2.1", {}).status().message(), HasSubstr("192.0.2.1"));
  EXPECT_THAT(ListenTcp("no such host", {}).status().message(), HasSubstr("no such host"));
}

TEST(ListenTest, AnEmptyHostIsAllAddressesOfBothFamilies) {
  const auto listener = ListenTcp("", {});
  ASSERT_THAT(listener, IsOk());
  std::vector<std::string> hosts = {"127.0.0.1"};
  if (ListenTcp("::1", {}).ok()) hosts.push_back("::1");
  for (const std::string& host : hosts) {
    const auto connection = BeginConnectTcp({.host = host, .port = listener->port});
    ASSERT_THAT(connection, IsOk()) << host;
    pollfd query = {.fd = listener->fds.front().get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&query, 1, /*timeout=*/10000), 1) << host;
    const UniqueFd accepted(accept(listener->fds.front().get(), nullptr, nullptr));
    EXPECT_TRUE(accepted.is_open()) << host;
  }
}

// A name may have addresses of several networks, and others come from any of them.
TEST(ListenTest, IsReachedAtEachAddressOfThisMachine) {
  std::vector<HostAddress> addresses;
  for (const char* host : {"198.51.100.1", "127.0.0.1", "127.0.0.2", "198.51.100.2"}) {
    addresses.push_back(ResolveHost(host)->front());
  }
  const auto listener = ListenTcp(addresses, {});
  ASSERT_THAT(listener, IsOk());
  ASSERT_EQ(listener->fds.size(), 2);
  for (const size_t i : {0, 1}) {
    const auto connection = BeginConnectTcp(addresses[i + 1], listener->port);
    ASSERT_THAT(connection, IsOk());
    pollfd query = {.fd = listener->fds[i].get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&query, 1, /*timeout=*/10000), 1) << i;
  }
}

TEST(ListenTest, GoesWithoutAnAddressWhosePortIsTaken) {
  const auto taken = ListenTcp("127.0.0.2", {});
  ASSERT_THAT(taken, IsOk());
  const PortRange same = {.first = taken->port, .last = taken->port};
  const HostAddress free = ResolveHost("127.0.0.1")->front();
  const HostAddress busy = ResolveHost("127.0.0.2")->front();
  const auto listener = ListenTcp({free, busy}, same);
  ASSERT_THAT(listener, IsOk());
  EXPECT_EQ(listener->fds.size(), 1);
  EXPECT_THAT(ListenTcp({busy, free}, same), testing::Not(IsOk()))
      << "whoever came would find another program";
}

TEST(AddressErrorsTest, EachAddressHasItsOwn) {
  AddressErrors errors;
  errors.Add(ResolveHost("127.0.0.1")->front(), absl::UnavailableError("refused"));
  EXPECT_EQ(errors.Summary(), absl::UnavailableError("refused"));
  errors.Add(ResolveHost("::1")->front(), absl::DeadlineExceededError("no answer"));
  EXPECT_EQ(errors.Summary(), absl::DeadlineExceededError("127.0.0.1: refused; [::1]: no answer"));
}

TEST(ConnectTest, ReachesAListener) {
  const auto listener = ListenTcp("127.0.0.1", {});
  ASSERT_THAT(listener, IsOk());
  const auto connection = BeginConnectTcp({.host = "127.0.0.1", .port = listener->port});
  ASSERT_THAT(connection, IsOk());
  const UniqueFd accepted(accept(listener->fds.front().get(), nullptr, nullptr));
  ASSERT_TRUE(accepted.is_open());
  EXPECT_EQ(PeerAddress(connection->get()), HostPort("127.0.0.1", listener->port).ToString());
}

TEST(ConnectTest, KnowsAllAddressesOfAHost) {
  const auto hosts = ResolveHost("127.0.0.1");
  ASSERT_THAT(hosts, IsOk());
  ASSERT_EQ(hosts->size(), 1);
  const auto listener = ListenTcp("127.0.0.1", {});
  ASSERT_THAT(listener, IsOk());
  const auto connection = BeginConnectTcp(hosts->front(), listener->port);
  ASSERT_THAT(connection, IsOk());
  EXPECT_EQ(PeerAddress(connection->get()), HostPort("127.0.0.1", listener->port).ToString());
  EXPECT_THAT(ResolveHost("no such host").status().message(), HasSubstr("no such host"));
}

}  // namespace
}  // namespace autosp
