#include "worker/collectives/chunk_schedule.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace autosp {
namespace {

std::vector<std::byte>& Memory() {
  static std::vector<std::byte> memory(1 << 16);
  return memory;
}

CollectiveCall Call(CollectiveKind kind, int64_t bytes) {
  CollectiveCall call{.kind = kind, .dtype = DType::kF32};
  auto span = absl::MakeSpan(Memory()).subspan(0, bytes);
  if (kind == CollectiveKind::kBroadcast) {
    call.recv = span;
  } else {
    call.send = span;
  }
  return call;
}

TEST(ChunkScheduleTest, AllToAllSendsToNeighbourFirst) {
  const auto chunks = ChunksSentBy(Call(CollectiveKind::kAllToAll, 3 * 100), 3, 64, 1);
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(
      chunks[0],
      (Chunk{.position = 0, .destination = 2, .block = 2, .piece = 0, .offset = 0, .bytes = 64}));
  EXPECT_EQ(
      chunks[1],
      (Chunk{.position = 1, .destination = 0, .block = 0, .piece = 0, .offset = 0, .bytes = 64}));
  EXPECT_EQ(
      chunks[2],
      (Chunk{.position = 2, .destination = 2, .block = 2, .piece = 1, .offset = 64, .bytes = 36}));
}

TEST(ChunkScheduleTest, UnevenBlocksCoverAnAllReduce) {
  for (const int64_t num_elements : {0, 1, 2, 3, 4, 5, 9, 100}) {
    const CollectiveCall call = Call(CollectiveKind::kAllReduce, num_elements * 4);
    const CallBlocks blocks(call, 4);
    int64_t next = 0;
    for (int block = 0; block < 4; ++block) {
      EXPECT_EQ(blocks.Begin(block), next);
      EXPECT_EQ(blocks.Bytes(block) % 4, 0);
      next += blocks.Bytes(block);
    }
    EXPECT_EQ(next, num_elements * 4);
  }
}

// Plays all streams with rings of the smallest size: whatever the timing, someone can go on.
class StreamsCannotBlock : public testing::TestWithParam<std::tuple<CollectiveKind, int>> {};

TEST_P(StreamsCannotBlock, WithTheSmallestRing) {
  const auto [kind, group_size] = GetParam();
  const CollectiveCall call = Call(kind, kind == CollectiveKind::kBarrier ? 0 : group_size * 1200);
  std::vector<std::vector<Chunk>> sent(group_size);
  for (int rank = 0; rank < group_size; ++rank)
    sent[rank] = ChunksSentBy(call, group_size, 64, rank);
  std::vector<int64_t> published(group_size, 0);
  std::vector<int64_t> reduced(group_size, 0);
  std::vector<std::vector<size_t>> next(group_size, std::vector<size_t>(group_size, 0));
  const auto inbox = [&](int from, int to) { return ChunksFor(sent[from], to); };
  const auto read_position = [&](int from, int to) {
    const auto chunks = inbox(from, to);
    const size_t n = next[from][to];
    return n == chunks.size() ? static_cast<int64_t>(sent[from].size()) : chunks[n].position;
  };
  const auto publish = [&](int rank) {
    if (published[rank] == static_cast<int64_t>(sent[rank].size())) return false;
    const Chunk& chunk = sent[rank][published[rank]];
    const bool is_result = kind == CollectiveKind::kAllReduce && chunk.destination == kToAllRanks;
    if (is_result && reduced[rank] <= chunk.piece) return false;
    for (int peer = 0; peer < group_size; ++peer) {
      if (peer == rank) continue;
      if (read_position(rank, peer) <= published[rank] - MinChunksInStream(group_size))
        return false;
    }
    ++published[rank];
    return true;
  };
  const auto has_arrived = [&](int from, int to, bool addend) {
    const auto chunks = inbox(from, to);
    const size_t n = next[from][to];
    return n < chunks.size() && chunks[n].is_addend == addend &&
           published[from] > chunks[n].position;
  };
  // Publishing first is the worst order: it fills the rings.
  for (bool any = true; any;) {
    any = false;
    for (int rank = 0; rank < group_size; ++rank) any |= publish(rank);
    if (any) continue;
    for (int to = 0; to < group_size; ++to) {
      bool all_addends = group_size > 1;
      for (int from = 0; from < group_size; ++from) {
        if (from == to) continue;
        if (has_arrived(from, to, false)) {
          ++next[from][to];
          any = true;
        }
        all_addends &= has_arrived(from, to, true);
      }
      if (!all_addends) continue;
      for (int from = 0; from < group_size; ++from) next[from][to] += from != to;
      ++reduced[to];
      any = true;
    }
  }
  for (int rank = 0; rank < group_size; ++rank) {
    EXPECT_EQ(published[rank], static_cast<int64_t>(sent[rank].size()));
    for (int peer = 0; peer < group_size; ++peer) {
      if (peer != rank) {
        EXPECT_EQ(next[rank][peer], inbox(rank, peer).size());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, StreamsCannotBlock,
                         testing::Combine(testing::ValuesIn(kAllCollectiveKinds),
                                          testing::Values(1, 2, 3, 4, 8)));

}  // namespace
}  // namespace autosp
