// TCP sockets and their addresses, as text: "host:port" and "[v6]:port".

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/file.h"

namespace autosp {

struct HostPort {
  std::string host;
  int port = 0;

  // With brackets around a host that has colons.
  std::string ToString() const;
};

absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// Ports that may be listened on; 0 to 0: any free one.
struct PortRange {
  int first = 0;
  int last = 0;
};

// "7000-7100", "7000", or "0".
absl::StatusOr<PortRange> ParsePortRange(const std::string& text);

struct TcpListener {
  UniqueFd fd;  // Does not block, and is not inherited by child processes.
  int port = 0;
};

// Listens on an address of this machine, on the first free port of the range.
absl::StatusOr<TcpListener> ListenTcp(const std::string& host, const PortRange& ports);

// Begins to connect, without waiting: the socket is writable once it is connected or has failed.
absl::StatusOr<UniqueFd> BeginConnectTcp(const HostPort& address);

// "10.0.0.2:41234", whom `fd` is connected with.
std::string PeerAddress(int fd);

}  // namespace autosp
