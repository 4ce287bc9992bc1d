#include "worker/collectives/network_collectives.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/collectives/memory_stream.h"
#include "worker/collectives/tcp_stream.h"

namespace autosp {
namespace {

// Of the memory that two members share.
std::string MemoryName(const ProcessGroup& group, int a, int b, const NetworkOptions& options) {
  return absl::StrCat(options.shm_prefix, "-", group.name, "-", std::min(a, b), "-",
                      std::max(a, b));
}

// The first of two members makes their memory before it can be met, so that the second one finds it
// once they have.
absl::StatusOr<std::optional<SharedMemory>> MakeMemoryFor(const ProcessGroup& group, int rank,
                                                          int peer, const NetworkOptions& options) {
  if (rank > peer) return std::nullopt;
  ASSIGN_OR_RETURN(SharedMemory memory,
                   MemoryStream::MakeMemory(MemoryName(group, rank, peer, options)));
  return memory;
}

absl::StatusOr<SharedMemory> AttachMemory(const ProcessGroup& group, int rank, int peer,
                                          const NetworkOptions& options) {
  const std::string name = MemoryName(group, rank, peer, options);
  absl::StatusOr<SharedMemory> memory = SharedMemory::Attach(name);
  UnlinkSharedMemoryName(name);
  return memory;
}

GroupPlacement PlacementOf(const ProcessGroup& group, const TcpRendezvous& rendezvous) {
  GroupPlacement placement;
  for (int member = 0; member < group.size(); ++member) {
    // The number of a node is its first member.
    int first = 0;
    while (rendezvous.NodeOf(group.ranks[first]) != rendezvous.NodeOf(group.ranks[member])) ++first;
    placement.push_back(first);
  }
  return placement;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collectives>> OpenNetworkCollectives(const ProcessGroup& group,
                                                                    int rank,
                                                                    TcpRendezvous& rendezvous,
                                                                    const NetworkOptions& options) {
  const std::string& own_node = rendezvous.NodeOf(group.ranks[rank]);
  std::vector<bool> needs_data(group.size());
  std::vector<std::optional<SharedMemory>> memories(group.size());
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == rank) continue;
    needs_data[peer] = rendezvous.NodeOf(group.ranks[peer]) != own_node;
    if (needs_data[peer]) continue;
    ASSIGN_OR_RETURN(memories[peer], MakeMemoryFor(group, rank, peer, options));
  }
  ASSIGN_OR_RETURN(std::vector<PeerSockets> sockets, rendezvous.Meet(group, needs_data));
  std::vector<PeerLink> links(group.size());
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == rank) continue;
    PeerLink& link = links[peer];
    link.name = rendezvous.Describe(group.ranks[peer]);
    link.control = std::make_unique<PeerControl>(std::move(sockets[peer].control));
    if (needs_data[peer]) {
      link.stream = std::make_unique<TcpStream>(std::move(sockets[peer].data));
      continue;
    }
    const bool is_creator = memories[peer].has_value();
    if (!is_creator) {
      ASSIGN_OR_RETURN(memories[peer], AttachMemory(group, rank, peer, options), link.name);
    }
    link.stream =
        std::make_unique<MemoryStream>(*std::move(memories[peer]), is_creator, link.control.get());
  }
  return std::make_unique<StreamCollectives>(group, rank, PlacementOf(group, rendezvous),
                                             std::move(links), options.stream);
}

}  // namespace autosp
