#include "worker/collectives/chunk_schedule.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace autosp {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool SendsToAll(const CollectiveCall& call, int source) {
  switch (call.kind) {
    case CollectiveKind::kAllGather:
    case CollectiveKind::kBarrier:
      return true;
    case CollectiveKind::kBroadcast:
      return source == call.root;
    default:
      return false;
  }
}

// Collects chunks and numbers them.
class ChunkList {
 public:
  ChunkList(const CallBlocks& blocks, int64_t chunk_bytes)
      : blocks_(blocks), chunk_bytes_(chunk_bytes) {}

  void AddPiece(int64_t piece, int block, int destination, bool is_addend) {
    const int64_t offset = std::min(piece * chunk_bytes_, blocks_.Bytes(block));
    chunks_.push_back({.position = static_cast<int64_t>(chunks_.size()),
                       .destination = destination,
                       .is_addend = is_addend,
                       .block = block,
                       .piece = piece,
                       .offset = offset,
                       .bytes = std::min(chunk_bytes_, blocks_.Bytes(block) - offset)});
  }

  std::vector<Chunk> Take() { return std::move(chunks_); }

 private:
  const CallBlocks& blocks_;
  int64_t chunk_bytes_;
  std::vector<Chunk> chunks_;
};

}  // namespace

CallBlocks::CallBlocks(const CollectiveCall& call, int group_size) {
  total_bytes_ = CallBytes(call);
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
    case CollectiveKind::kReduceScatter:
      block_bytes_ = total_bytes_ / group_size;
      break;
    case CollectiveKind::kAllReduce: {
      const int64_t element_bytes = SizeOf(call.dtype);
      block_bytes_ = CeilDiv(total_bytes_ / element_bytes, group_size) * element_bytes;
      break;
    }
    case CollectiveKind::kAllGather:
      block_bytes_ = total_bytes_;
      total_bytes_ *= group_size;
      break;
    case CollectiveKind::kSendRecv:
    case CollectiveKind::kBroadcast:
    case CollectiveKind::kBarrier:
      block_bytes_ = total_bytes_;
      break;
  }
}

int64_t CallBlocks::Begin(int block) const { return std::min(block * block_bytes_, total_bytes_); }

int64_t CallBlocks::Bytes(int block) const {
  return std::min(block_bytes_, total_bytes_ - Begin(block));
}

std::vector<Chunk> ChunksSentBy(const CollectiveCall& call, int group_size, int64_t chunk_bytes,
                                int source) {
  const CallBlocks blocks(call, group_size);
  const bool is_barrier = call.kind == CollectiveKind::kBarrier;
  const int64_t num_pieces = is_barrier ? 1 : CeilDiv(blocks.max_bytes(), chunk_bytes);
  const bool is_all_reduce = call.kind == CollectiveKind::kAllReduce;
  const bool is_addend = is_all_reduce || call.kind == CollectiveKind::kReduceScatter;
  ChunkList list(blocks, chunk_bytes);
  if (num_pieces == 0 || group_size == 1) return {};

  if (call.kind == CollectiveKind::kSendRecv) {
    const int destination = ((source + call.shift) % group_size + group_size) % group_size;
    if (destination == source) return {};
    for (int64_t piece = 0; piece < num_pieces; ++piece) {
      list.AddPiece(piece, /*block=*/0, destination, /*is_addend=*/false);
    }
    return list.Take();
  }
  const bool sends_to_each = is_addend || call.kind == CollectiveKind::kAllToAll;
  const int64_t result_lag = is_all_reduce ? kResultLag : 0;
  const bool has_own_block = call.kind == CollectiveKind::kAllGather || is_all_reduce;
  for (int64_t step = 0; step < num_pieces + result_lag; ++step) {
    // Each rank begins with its neighbour, so that not all send to rank 0 first.
    for (int i = 1; sends_to_each && step < num_pieces && i < group_size; ++i) {
      const int peer = (source + i) % group_size;
      list.AddPiece(step, peer, peer, is_addend);
    }
    if (!(SendsToAll(call, source) || is_all_reduce) || step < result_lag) continue;
    list.AddPiece(step - result_lag, has_own_block ? source : 0, kToAllRanks,
                  /*is_addend=*/false);
  }
  return list.Take();
}

std::vector<Chunk> ChunksFor(const std::vector<Chunk>& sent, int reader) {
  std::vector<Chunk> chunks;
  for (const Chunk& chunk : sent) {
    if (chunk.destination == reader || chunk.destination == kToAllRanks) chunks.push_back(chunk);
  }
  return chunks;
}

const std::byte* ChunkSource(const CollectiveCall& call, const CallBlocks& blocks,
                             const Chunk& chunk) {
  const bool from_recv =
      call.kind == CollectiveKind::kBroadcast ||
      (call.kind == CollectiveKind::kAllReduce && chunk.destination == kToAllRanks);
  const std::byte* buffer = from_recv ? call.recv.data() : call.send.data();
  const bool sends_whole_buffer = call.kind == CollectiveKind::kAllGather;
  return buffer + (sends_whole_buffer ? 0 : blocks.Begin(chunk.block)) + chunk.offset;
}

std::byte* ChunkDestination(const CollectiveCall& call, const CallBlocks& blocks,
                            const Chunk& chunk, int source) {
  std::byte* buffer = call.recv.data() + chunk.offset;
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
    case CollectiveKind::kAllGather:
    case CollectiveKind::kAllReduce:
      return buffer + blocks.Begin(source);
    default:
      return buffer;
  }
}

void CopyOwnBlock(const CollectiveCall& call, const CallBlocks& blocks, int group_size, int rank) {
  const std::byte* from = call.send.data();
  std::byte* to = call.recv.data();
  int64_t bytes = 0;
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
      from += blocks.Begin(rank);
      to += blocks.Begin(rank);
      bytes = blocks.Bytes(rank);
      break;
    case CollectiveKind::kAllGather:
      to += blocks.Begin(rank);
      bytes = blocks.Bytes(rank);
      break;
    case CollectiveKind::kSendRecv:
      if (call.shift % group_size == 0) bytes = blocks.max_bytes();
      break;
    case CollectiveKind::kReduceScatter:
    case CollectiveKind::kAllReduce:
      if (group_size == 1) bytes = blocks.max_bytes();
      break;
    case CollectiveKind::kBroadcast:
    case CollectiveKind::kBarrier:
      break;
  }
  if (bytes > 0 && from != to) std::memmove(to, from, bytes);
}

int64_t MinChunksInStream(int group_size) { return (kResultLag + 1) * group_size; }

}  // namespace autosp
