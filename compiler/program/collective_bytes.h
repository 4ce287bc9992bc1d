// The kinds of collectives and the bytes that each moves: one definition for the planner that
// predicts and for the ranks that count.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace autosp {

enum class CollectiveKind : uint8_t {
  kAllToAll,
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kSendRecv,
  kBroadcast,
  kBarrier,
};

inline constexpr std::array kAllCollectiveKinds = {
    CollectiveKind::kAllToAll,  CollectiveKind::kAllGather, CollectiveKind::kReduceScatter,
    CollectiveKind::kAllReduce, CollectiveKind::kSendRecv,  CollectiveKind::kBroadcast,
    CollectiveKind::kBarrier};

inline constexpr std::array<std::string_view, kAllCollectiveKinds.size()> kCollectiveKindNames = {
    "all_to_all", "all_gather", "reduce_scatter", "all_reduce",
    "send_recv",  "broadcast",  "barrier"};

constexpr std::string_view CollectiveKindName(CollectiveKind kind) {
  return kCollectiveKindNames[static_cast<size_t>(kind)];
}

constexpr std::optional<CollectiveKind> CollectiveKindFromName(std::string_view name) {
  for (CollectiveKind kind : kAllCollectiveKinds) {
    if (CollectiveKindName(kind) == name) return kind;
  }
  return std::nullopt;
}

// Bytes that one rank of a group of P = `group_size` receives from its peers in one call.
//
//   kind            `bytes` is                     received
//   all_to_all      the whole buffer, P blocks     bytes * (P - 1) / P
//   all_gather      the shard of one rank          bytes * (P - 1)
//   reduce_scatter  the whole input, P blocks      bytes * (P - 1) / P
//   all_reduce      the buffer                     ceil(2 * bytes * (P - 1) / P)
//   send_recv       the message                    bytes, or 0 where P = 1
//   broadcast       the buffer                     bytes, or 0 where P = 1; the root receives none
//   barrier         ignored                        0
//
// all_to_all and reduce_scatter have equal blocks, so their quotients are exact. An all_reduce is a
// reduce_scatter and an all_gather over blocks that need not be equal: what is stated is the mean
// over the ranks, rounded up to a byte, so that every rank counts the same.
constexpr int64_t BytesReceived(CollectiveKind kind, int64_t bytes, int64_t group_size) {
  const int64_t num_peers = group_size - 1;
  switch (kind) {
    case CollectiveKind::kAllToAll:
    case CollectiveKind::kReduceScatter:
      return bytes / group_size * num_peers;
    case CollectiveKind::kAllGather:
      return bytes * num_peers;
    case CollectiveKind::kAllReduce:
      return (2 * bytes * num_peers + group_size - 1) / group_size;
    case CollectiveKind::kSendRecv:
    case CollectiveKind::kBroadcast:
      return num_peers == 0 ? 0 : bytes;
    case CollectiveKind::kBarrier:
      return 0;
  }
  return 0;
}

}  // namespace autosp
