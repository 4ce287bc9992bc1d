// TCP sockets and their addresses, as text: "host:port" and "[v6]:port".

#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

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
  // One for each address. They do not block, and are not inherited by child processes.
  std::vector<UniqueFd> fds;
  int port = 0;
};

// Listens on the addresses of a host that are this machine's, on the first free port of the range;
// an empty host is all addresses, of both families where the machine has both.
absl::StatusOr<TcpListener> ListenTcp(const std::string& host, const PortRange& ports);

// An address of a host, of either family.
struct HostAddress {
  sockaddr_storage socket_address = {};  // its port is 0
  socklen_t size = 0;
};

// As above. The port is one that is free at the first address; what cannot be had of the others is
// left out, since whoever comes tries them in the same order.
absl::StatusOr<TcpListener> ListenTcp(const std::vector<HostAddress>& addresses,
                                      const PortRange& ports);

// "10.0.0.2" or "[fd00::2]".
std::string ToString(const HostAddress& address);

// Why the addresses of one host did not do, one after the other: the error of the last one alone
// may hide the true one.
class AddressErrors {
 public:
  void Add(const HostAddress& address, absl::Status error);
  // Of several, each with its address; of the last one's code. Requires: there is one.
  absl::Status Summary() const;

 private:
  std::vector<std::pair<std::string, absl::Status>> errors_;
};

// All addresses of a host, in the order in which they are to be tried; at least one. Waits for the
// servers of names.
absl::StatusOr<std::vector<HostAddress>> ResolveHost(const std::string& host);

// Begins to connect, without waiting: the socket is writable once it is connected or has failed.
absl::StatusOr<UniqueFd> BeginConnectTcp(const HostAddress& host, int port);
// To the first of the host's addresses that the kernel does not refuse at once.
absl::StatusOr<UniqueFd> BeginConnectTcp(const HostPort& address);

// "10.0.0.2:41234", whom `fd` is connected with.
std::string PeerAddress(int fd);

}  // namespace autosp
