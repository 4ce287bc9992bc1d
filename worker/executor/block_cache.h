// Large blocks of memory, kept for reuse after they are freed.
//
// The system zeroes memory page by page as it is first touched: for the tensors of a long sequence
// this costs as much as computing them. A training step asks for the same sizes again and again, so
// freed blocks are kept by size and handed out again.
//
// The cache never makes the process larger than it had to be anyway: used and kept blocks together
// stay within the most that was ever in use at once, plus an eighth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace autosp {

// Thread-safe.
class BlockCache {
 public:
  struct Block {
    void* data = nullptr;  // null: the system refused
    size_t bytes = 0;      // at least what was asked
  };

  // Of the process; never destroyed, because tensors of static life may be freed after main.
  static BlockCache& Get();

  Block Take(size_t bytes);
  void Give(Block block);
  void ReleaseAll();
  int64_t cached_bytes() const;

  // Smaller blocks go to malloc, which keeps them itself. So does everything under the address
  // sanitizer, which would not notice the use of a freed block that is kept.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kMinBytes = SIZE_MAX;
#else
  static constexpr size_t kMinBytes = size_t{128} << 10;
#endif

 private:
  void Evict(size_t limit);  // Requires: mutex_ is held.
  size_t Limit() const { return peak_ + peak_ / 8; }

  mutable std::mutex mutex_;
  std::multimap<size_t, void*> free_;  // by size
  size_t used_ = 0;
  size_t cached_ = 0;
  size_t peak_ = 0;  // of used_
};

}  // namespace autosp
