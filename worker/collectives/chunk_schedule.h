// What each rank puts into its stream of chunks for one call, in which order, and who reads it.
//
// Every rank has one outgoing stream, which all members of its group can read. A call adds the same
// chunks to a rank's stream on whatever rank one computes them, so that a reader knows which chunks
// are for it without asking. A call moves its blocks in *steps* of one piece each:
//
//   all_to_all, reduce_scatter   step t: piece t of the block of each peer, to that peer
//   all_gather, broadcast        step t: piece t of the sender's block, to all
//   send_recv                    step t: piece t, to rank + shift
//   all_reduce                   step t: piece t of the block of each peer, to that peer, for it to
//                                reduce; then piece t - kResultLag of the own block, reduced, to
//                                all
//
// A chunk of step t is ready as soon as every chunk of earlier steps has been read. So no cycle of
// ranks can wait for each other as long as a stream has room for all chunks of one step.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/collectives/collectives.h"

namespace autosp {

inline constexpr int kToAllRanks = -1;

// Results follow the addends by this many steps, so that ranks reduce while others still send.
inline constexpr int64_t kResultLag = 2;

struct Chunk {
  int64_t position = 0;  // in the sender's stream, from 0 for each call
  int destination = kToAllRanks;
  bool is_addend = false;  // to be reduced; else to be copied
  int block = 0;           // in units of CallBlocks
  int64_t piece = 0;       // of the block
  int64_t offset = 0;      // in the block
  int64_t bytes = 0;
  friend bool operator==(const Chunk&, const Chunk&) = default;
};

// How a call divides its buffers into one block per rank. Blocks are equal but for all_reduce,
// whose last ones may be shorter or empty.
class CallBlocks {
 public:
  CallBlocks(const CollectiveCall& call, int group_size);
  int64_t Begin(int block) const;
  int64_t Bytes(int block) const;
  int64_t max_bytes() const { return block_bytes_; }

 private:
  int64_t block_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

// The chunks that `source` adds to its stream. Requires: chunk_bytes is a multiple of 8.
std::vector<Chunk> ChunksSentBy(const CollectiveCall& call, int group_size, int64_t chunk_bytes,
                                int source);

// Those of `sent` that are for `reader`, in order.
std::vector<Chunk> ChunksFor(const std::vector<Chunk>& sent, int reader);

// Where the bytes of `chunk` are on the rank that sends it. The results of an all_reduce are sent
// from where they were reduced to.
const std::byte* ChunkSource(const CollectiveCall& call, const CallBlocks& blocks,
                             const Chunk& chunk);

// Where the bytes of a chunk from `source` go on the rank that receives it, unless it is an addend;
// with the rank itself as source, where a reduced piece goes.
std::byte* ChunkDestination(const CollectiveCall& call, const CallBlocks& blocks,
                            const Chunk& chunk, int source);

// The part of a call that needs no peer.
void CopyOwnBlock(const CollectiveCall& call, const CallBlocks& blocks, int group_size, int rank);

// Room that a stream must have so that no call can block itself.
int64_t MinChunksInStream(int group_size);

}  // namespace autosp
