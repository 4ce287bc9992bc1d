#include "worker/executor/block_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace autosp {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kAlignment = 64;  // c10's promise for every tensor

void* MapPages(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  // One fault for 2 MiB instead of 512; the system may decline.
  if (bytes >= kHugePageBytes) madvise(data, bytes, MADV_HUGEPAGE);
  return data;
}

}  // namespace

BlockCache& BlockCache::Get() {
  static BlockCache& cache = *new BlockCache;
  return cache;
}

BlockCache::Block BlockCache::Take(size_t bytes) {
  if (bytes < kMinBytes) {
    void* data = nullptr;
    return {posix_memalign(&data, kAlignment, bytes) == 0 ? data : nullptr, bytes};
  }
  bytes = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  {
    const std::lock_guard lock(mutex_);
    // An eighth may go to waste; beyond that a new block is better.
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && found->first <= bytes + bytes / 8) {
      const Block block = {found->second, found->first};
      free_.erase(found);
      cached_ -= block.bytes;
      used_ += block.bytes;
      peak_ = std::max(peak_, used_);
      return block;
    }
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    Evict(Limit());
  }
  const Block block = {MapPages(bytes), bytes};
  if (block.data == nullptr) {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
  }
  return block;
}

void BlockCache::Give(Block block) {
  if (block.bytes < kMinBytes) {
    std::free(block.data);
    return;
  }
  const std::lock_guard lock(mutex_);
  used_ -= block.bytes;
  cached_ += block.bytes;
  free_.emplace(block.bytes, block.data);
  Evict(Limit());
}

void BlockCache::Evict(size_t limit) {
  // The largest first: it gives the most room for one system call.
  while (cached_ > 0 && used_ + cached_ > limit) {
    const auto last = std::prev(free_.end());
    munmap(last->second, last->first);
    cached_ -= last->first;
    free_.erase(last);
  }
}

void BlockCache::ReleaseAll() {
  const std::lock_guard lock(mutex_);
  Evict(0);
}

int64_t BlockCache::cached_bytes() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(cached_);
}

}  // namespace autosp
