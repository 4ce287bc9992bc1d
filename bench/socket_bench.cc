// What a plain TCP connection moves between two processes: the measure of collectives over TCP.
//
//   socket_bench --listen 10.0.0.1:7000 --both-ways        # on one host
//   socket_bench --connect 10.0.0.1:7000 --both-ways       # on the other; prints JSON
//
// A round is preceded by a byte each way, as a call of collectives_bench is by a barrier. One way,
// the connecting side sends; both ways, each side sends and receives as much at the same time, in
// one thread. Throughput is that of one direction.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/check.h"
#include "common/tcp.h"

namespace autosp {
namespace {

// Half of what collectives_bench has: that much an all_to_all of two ranks moves each way.
constexpr int64_t kSizesBytes[] = {512 << 10, 2 << 20, 8 << 20, 32 << 20};
constexpr int kRounds = 15;

void Await(int fd, short events) {
  pollfd query = {.fd = fd, .events = events, .revents = 0};
  AUTOSP_CHECK(poll(&query, 1, /*timeout=*/30'000) == 1, "the other side is away");
}

UniqueFd Open(const std::string& listen_at, const std::string& connect_to) {
  UniqueFd fd;
  if (!listen_at.empty()) {
    const auto address = ParseHostPort(listen_at);
    AUTOSP_CHECK(address.ok(), address.status().message());
    auto listener = ListenTcp(address->host, {.first = address->port, .last = address->port});
    AUTOSP_CHECK(listener.ok(), listener.status().message());
    Await(listener->fds.front().get(), POLLIN);
    fd.Reset(accept4(listener->fds.front().get(), nullptr, nullptr, SOCK_NONBLOCK));
  } else {
    const auto address = ParseHostPort(connect_to);
    AUTOSP_CHECK(address.ok(), address.status().message());
    auto connection = BeginConnectTcp(*address);
    AUTOSP_CHECK(connection.ok(), connection.status().message());
    fd = *std::move(connection);
    Await(fd.get(), POLLOUT);
  }
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// Sends and receives that many bytes, as they come.
void Exchange(int fd, const char* out, int64_t to_send, char* in, int64_t to_receive) {
  while (to_send > 0 || to_receive > 0) {
    const ssize_t sent = to_send > 0 ? send(fd, out, to_send, MSG_NOSIGNAL) : -1;
    const ssize_t received = to_receive > 0 ? recv(fd, in, to_receive, 0) : -1;
    AUTOSP_CHECK(received != 0, "the other side is gone");
    if (sent > 0) out += sent, to_send -= sent;
    if (received > 0) in += received, to_receive -= received;
    if (sent > 0 || received > 0) continue;
    Await(fd, static_cast<short>((to_send > 0 ? POLLOUT : 0) | (to_receive > 0 ? POLLIN : 0)));
  }
}

double MedianSeconds(int fd, int64_t to_send, int64_t to_receive) {
  std::vector<char> out(std::max<int64_t>(to_send, 1), 'x');
  std::vector<char> in(std::max<int64_t>(to_receive, 1));
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    Exchange(fd, out.data(), 1, in.data(), 1);
    const auto start = std::chrono::steady_clock::now();
    Exchange(fd, out.data(), to_send, in.data(), to_receive);
    // The one who sends knows that all has arrived from a byte that comes back.
    if (to_send == 0) Exchange(fd, out.data(), 1, in.data(), 0);
    if (to_receive == 0) Exchange(fd, out.data(), 0, in.data(), 1);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::nth_element(seconds, seconds.begin() + kRounds / 2);
  return seconds[kRounds / 2];
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  std::string listen_at;
  std::string connect_to;
  bool both_ways = false;
  CLI::App app("Measures a plain TCP connection.");
  auto* listen_option = app.add_option("--listen", listen_at, "host:port of this side");
  app.add_option("--connect", connect_to, "host:port of the other side")->excludes(listen_option);
  app.add_flag("--both-ways", both_ways, "send and receive at the same time");
  CLI11_PARSE(app, argc, argv);
  const autosp::UniqueFd fd = autosp::Open(listen_at, connect_to);
  const bool is_listener = !listen_at.empty();
  nlohmann::json rows = nlohmann::json::array();
  for (const int64_t size : autosp::kSizesBytes) {
    const int64_t to_send = both_ways || !is_listener ? size : 0;
    const int64_t to_receive = both_ways || is_listener ? size : 0;
    const double seconds = autosp::MedianSeconds(fd.get(), to_send, to_receive);
    rows.push_back({{"size_bytes", size}, {"bytes_per_second", size / seconds}});
  }
  if (!is_listener) std::puts(nlohmann::json{{"sizes", rows}}.dump().c_str());
  return 0;
}
