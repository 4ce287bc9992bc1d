#include "common/tcp.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr int kMaxPort = 65535;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<std::vector<HostAddress>> Resolve(const std::string& host, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  // A service must be named where no host is.
  const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), "0", &hints, &found);
  if (error != 0) return NotFound("address ", host, ": ", gai_strerror(error));
  const AddressList owner(found, freeaddrinfo);
  std::vector<HostAddress> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    HostAddress& address = addresses.emplace_back();
    address.size = each->ai_addrlen;
    std::memcpy(&address.socket_address, each->ai_addr, each->ai_addrlen);
  }
  return addresses;
}

absl::StatusOr<UniqueFd> OpenSocket(const HostAddress& address) {
  UniqueFd fd(socket(address.socket_address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                     /*protocol=*/0));
  if (!fd.is_open()) return ErrnoError(errno, "cannot make a socket");
  return fd;
}

// The port number is at the same place for both families.
HostAddress WithPort(HostAddress address, int port) {
  reinterpret_cast<sockaddr_in*>(&address.socket_address)->sin_port =
      htons(static_cast<uint16_t>(port));
  return address;
}

const sockaddr* AsSocketAddress(const HostAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.socket_address);
}

int BoundPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

// FAILED_PRECONDITION where all ports are taken.
absl::StatusOr<TcpListener> ListenOn(const HostAddress& address, const PortRange& ports) {
  int error = EADDRINUSE;
  for (int port = ports.first; port <= ports.last; ++port) {
    ASSIGN_OR_RETURN(UniqueFd fd, OpenSocket(address));
    // A port whose last connections are still being forgotten is free all the same.
    const int on = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    // "::" is then all addresses of both families, whatever the system's default is.
    const int off = 0;
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd.get(), AsSocketAddress(WithPort(address, port)), address.size) == 0 &&
        listen(fd.get(), SOMAXCONN) == 0) {
      TcpListener listener{.fds = {}, .port = BoundPort(fd.get())};
      listener.fds.push_back(std::move(fd));
      return listener;
    }
    error = errno;
    if (error != EADDRINUSE) break;
  }
  return ErrnoError(error, "cannot listen");
}

}  // namespace

std::string HostPort::ToString() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  const size_t colon = text.rfind(':');
  HostPort address;
  const bool has_port = colon != std::string::npos &&
                        absl::SimpleAtoi(text.substr(colon + 1), &address.port) &&
                        address.port >= 0 && address.port <= kMaxPort;
  if (!has_port) {
    return InvalidArgument("address \"", text, "\" is not of the form host:port, port 0 to ",
                           kMaxPort);
  }
  absl::string_view host = absl::string_view(text).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  address.host = std::string(host);
  return address;
}

absl::StatusOr<PortRange> ParsePortRange(const std::string& text) {
  const size_t dash = text.find('-');
  PortRange range;
  const bool has_first = absl::SimpleAtoi(text.substr(0, dash), &range.first);
  range.last = range.first;
  const bool has_last =
      dash == std::string::npos || absl::SimpleAtoi(text.substr(dash + 1), &range.last);
  const bool is_any = range.first == 0 && range.last == 0;
  const bool is_range = range.first >= 1 && range.first <= range.last && range.last <= kMaxPort;
  if (has_first && has_last && (is_any || is_range)) return range;
  return InvalidArgument("ports \"", text, "\" are not FIRST-LAST within 1 and ", kMaxPort,
                         ", one port, or 0 for any");
}

absl::StatusOr<TcpListener> ListenTcp(const std::string& host, const PortRange& ports) {
  ASSIGN_OR_RETURN(std::vector<HostAddress> addresses, Resolve(host, AI_PASSIVE));
  if (host.empty()) {
    std::ranges::stable_partition(addresses, [](const HostAddress& address) {
      return address.socket_address.ss_family == AF_INET6;
    });
  }
  absl::StatusOr<TcpListener> listener = ListenTcp(addresses, ports);
  if (listener.ok()) return listener;
  const std::string range = ports.first == ports.last ? absl::StrCat(ports.first)
                                                      : absl::StrCat(ports.first, "-", ports.last);
  return WithContext(listener.status(), host, ", port ", range);
}

absl::StatusOr<TcpListener> ListenTcp(const std::vector<HostAddress>& addresses,
                                      const PortRange& ports) {
  AddressErrors errors;
  TcpListener all;
  for (const HostAddress& address : addresses) {
    const bool is_first = all.fds.empty();
    absl::StatusOr<TcpListener> one =
        ListenOn(address, is_first ? ports : PortRange{.first = all.port, .last = all.port});
    if (one.ok()) {
      all.port = one->port;
      all.fds.push_back(std::move(one->fds.front()));
    } else if (is_first) {
      errors.Add(address, one.status());
      // Whoever comes tries the addresses in the same order, and would find another program there.
      if (absl::IsFailedPrecondition(one.status())) break;
    }
  }
  if (all.fds.empty()) return errors.Summary();
  return all;
}

std::string ToString(const HostAddress& address) {
  char host[NI_MAXHOST];
  if (getnameinfo(AsSocketAddress(address), address.size, host, sizeof(host), nullptr, 0,
                  NI_NUMERICHOST) != 0) {
    return "an unknown address";
  }
  return address.socket_address.ss_family == AF_INET6 ? absl::StrCat("[", host, "]") : host;
}

void AddressErrors::Add(const HostAddress& address, absl::Status error) {
  errors_.emplace_back(ToString(address), std::move(error));
}

absl::Status AddressErrors::Summary() const {
  const absl::Status& last = errors_.back().second;
  if (errors_.size() == 1) return last;
  const std::string all = absl::StrJoin(errors_, "; ", [](std::string* out, const auto& error) {
    absl::StrAppend(out, error.first, ": ", error.second.message());
  });
  return absl::Status(last.code(), all);
}

absl::StatusOr<std::vector<HostAddress>> ResolveHost(const std::string& host) {
  return Resolve(host, /*flags=*/0);
}

absl::StatusOr<UniqueFd> BeginConnectTcp(const HostAddress& host, int port) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenSocket(host));
  if (connect(fd.get(), AsSocketAddress(WithPort(host, port)), host.size) == 0) return fd;
  if (errno == EINPROGRESS) return fd;
  return ErrnoError(errno, "cannot connect");
}

absl::StatusOr<UniqueFd> BeginConnectTcp(const HostPort& address) {
  ASSIGN_OR_RETURN(const std::vector<HostAddress> hosts, ResolveHost(address.host));
  AddressErrors errors;
  for (const HostAddress& host : hosts) {
    absl::StatusOr<UniqueFd> fd = BeginConnectTcp(host, address.port);
    if (fd.ok()) return fd;
    errors.Add(host, fd.status());
  }
  return WithContext(errors.Summary(), address.ToString());
}

std::string PeerAddress(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof(host), port,
                  sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown address";
  }
  return HostPort{.host = host, .port = ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port)}
      .ToString();
}

}  // namespace autosp
