// The schedule of links as a whole: who gets what, how often anything crosses between nodes, and
// that no order of events can make ranks wait in a circle.

#include "worker/collectives/link_schedule.h"

#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::UnorderedElementsAreArray;

constexpr int64_t kChunkBytes = 64;
const GroupPlacement kPlacements[] = {
    {0, 1}, {0, 0, 2, 2}, {0, 1, 0, 1}, {0, 0, 0, 3}, {0, 1, 1, 1, 4}, {0, 0, 2, 2, 4, 4, 4},
};
constexpr CollectiveKind kToAll[] = {CollectiveKind::kAllGather, CollectiveKind::kAllReduce,
                                     CollectiveKind::kBroadcast};

// A call whose blocks take three pieces.
CollectiveCall CallOf(CollectiveKind kind, int group_size, std::vector<std::byte>& buffer) {
  buffer.resize(3 * kChunkBytes * group_size);
  CollectiveCall call{.kind = kind, .dtype = DType::kF32, .root = group_size - 1};
  const bool is_block = kind == CollectiveKind::kAllGather || kind == CollectiveKind::kSendRecv;
  if (kind == CollectiveKind::kBroadcast) call.recv = absl::MakeSpan(buffer);
  if (kind != CollectiveKind::kBroadcast && kind != CollectiveKind::kBarrier) {
    call.send = absl::MakeSpan(buffer).subspan(0, is_block ? 3 * kChunkBytes : buffer.size());
  }
  return call;
}

// What `to` is to have at the end, whatever the ways: origin and piece.
using Parcel = std::tuple<int, bool, int64_t>;  // origin, is_addend, piece
std::vector<Parcel> Wanted(const CollectiveCall& call, int size, int to) {
  std::vector<Parcel> wanted;
  for (int from = 0; from < size; ++from) {
    if (from == to) continue;
    for (const Chunk& chunk : ChunksFor(ChunksSentBy(call, size, kChunkBytes, from), to)) {
      wanted.emplace_back(from, chunk.is_addend, chunk.piece);
    }
  }
  return wanted;
}

TEST(LinkScheduleTest, EveryMemberGetsEverythingOnce) {
  for (const GroupPlacement& placement : kPlacements) {
    const int size = static_cast<int>(placement.size());
    for (const CollectiveKind kind : kAllCollectiveKinds) {
      std::vector<std::byte> buffer;
      const CollectiveCall call = CallOf(kind, size, buffer);
      for (int to = 0; to < size; ++to) {
        std::vector<Parcel> got;
        for (int from = 0; from < size; ++from) {
          if (from == to) continue;
          for (const LinkChunk& next : ChunksOnLink(call, placement, kChunkBytes, from, to)) {
            got.emplace_back(next.origin, next.chunk.is_addend, next.chunk.piece);
          }
        }
        EXPECT_THAT(got, UnorderedElementsAreArray(Wanted(call, size, to)))
            << KindName(kind) << " to " << to << " of " << absl::StrJoin(placement, ",");
      }
    }
  }
}

TEST(LinkScheduleTest, WhatIsForAllCrossesToEachNodeOnce) {
  for (const GroupPlacement& placement : kPlacements) {
    const int size = static_cast<int>(placement.size());
    for (const CollectiveKind kind : kToAll) {
      std::vector<std::byte> buffer;
      const CollectiveCall call = CallOf(kind, size, buffer);
      std::map<std::tuple<int, int, int64_t>, int> crossings;  // origin, node, piece
      for (int from = 0; from < size; ++from) {
        for (int to = 0; to < size; ++to) {
          if (placement[from] == placement[to]) continue;
          for (const LinkChunk& next : ChunksOnLink(call, placement, kChunkBytes, from, to)) {
            EXPECT_EQ(next.origin, from) << "nothing is relayed between nodes";
            if (next.chunk.is_addend) continue;
            ++crossings[{from, placement[to], next.chunk.piece}];
          }
        }
      }
      for (const auto& [crossing, count] : crossings) EXPECT_EQ(count, 1);
    }
  }
}

TEST(LinkScheduleTest, OneHostOrOneRankPerHostIsAsBefore) {
  for (const GroupPlacement& placement : {GroupPlacement{0, 0, 0}, GroupPlacement{0, 1, 2}}) {
    for (const CollectiveKind kind : kAllCollectiveKinds) {
      std::vector<std::byte> buffer;
      const CollectiveCall call = CallOf(kind, 3, buffer);
      const auto direct = ChunksFor(ChunksSentBy(call, 3, kChunkBytes, 0), 2);
      const auto link = ChunksOnLink(call, placement, kChunkBytes, 0, 2);
      ASSERT_EQ(link.size(), direct.size());
      for (size_t i = 0; i < link.size(); ++i) EXPECT_EQ(link[i].chunk, direct[i]);
    }
  }
}

// Plays a call with room for one addend per link, each link in order: at the end nothing waits.
TEST(LinkScheduleTest, NobodyWaitsInACircle) {
  for (const GroupPlacement& placement : kPlacements) {
    const int size = static_cast<int>(placement.size());
    for (const CollectiveKind kind : kAllCollectiveKinds) {
      std::vector<std::byte> buffer;
      const CollectiveCall call = CallOf(kind, size, buffer);
      std::map<std::pair<int, int>, std::vector<LinkChunk>> links;
      for (int from = 0; from < size; ++from) {
        for (int to = 0; to < size; ++to) {
          if (from != to) links[{from, to}] = ChunksOnLink(call, placement, kChunkBytes, from, to);
        }
      }
      std::map<std::pair<int, int>, size_t> done;      // by link
      std::map<std::pair<int, int>, int64_t> addends;  // that have come over a link
      std::map<std::pair<int, int>, int64_t> copied;   // rank, origin
      const auto reduced = [&](int rank) {
        int64_t least = INT64_MAX;
        for (int peer = 0; peer < size; ++peer) {
          if (peer != rank) least = std::min(least, addends[{peer, rank}]);
        }
        return least;
      };
      bool again = true;
      while (again) {
        again = false;
        for (auto& [link, chunks] : links) {
          const auto [from, to] = link;
          if (done[link] == chunks.size()) continue;
          const auto& [chunk, origin] = chunks[done[link]];
          const bool is_result =
              kind == CollectiveKind::kAllReduce && chunk.destination == kToAllRanks;
          if (origin != from && copied[{from, origin}] <= chunk.piece) continue;
          if (origin == from && is_result && reduced(from) <= chunk.piece) continue;
          if (chunk.is_addend && addends[link] > reduced(to)) continue;
          ++done[link];
          ++(chunk.is_addend ? addends[link] : copied[{to, origin}]);
          again = true;
        }
      }
      for (const auto& [link, chunks] : links) {
        EXPECT_EQ(done[link], chunks.size())
            << KindName(kind) << " on " << absl::StrJoin(placement, ",");
      }
    }
  }
}

}  // namespace
}  // namespace autosp
