// Memory of a rank, counted and capped: the "device memory" of a rank on the CPU.
//
// Every CPU tensor is allocated through c10's allocator, which `InstallCountingAllocator` replaces
// by one that charges the account of the calling thread. An allocation remembers its account, so a
// tensor may be freed by any thread, and may outlive the account's handle. Threads without an
// account (tests, worker threads of a kernel) are not counted.
//
// Counted are the bytes that were asked for: not the header of 64 bytes and the rounding to whole
// pages that the system adds. Memory that kernels get from malloc themselves (packing buffers of
// the matrix library) is not seen.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace autosp {

// Thread-safe. `budget_bytes` 0 means no limit. What is charged to an account `within` another is
// charged to that one too, and must fit there.
class MemoryAccount {
 public:
  explicit MemoryAccount(std::string name, int64_t budget_bytes = 0,
                         const MemoryAccount* within = nullptr);
  ~MemoryAccount();
  MemoryAccount(const MemoryAccount&) = delete;
  MemoryAccount& operator=(const MemoryAccount&) = delete;

  std::string_view name() const;
  int64_t budget_bytes() const;
  void set_budget_bytes(int64_t bytes);

  int64_t live_bytes() const;
  int64_t peak_bytes() const;
  int64_t num_allocations() const;  // since the beginning
  void ResetPeak();                 // the peak becomes what is live now

  // The last allocation that was refused, and how much was live then; zero bytes when none was.
  // Taking it forgets it.
  struct Refusal {
    int64_t wanted_bytes = 0;
    int64_t live_bytes = 0;
  };
  Refusal TakeRefusal();

  // Memory that is not from c10's allocator, such as a shared segment, is charged by hand. False
  // when past the budget; then nothing was charged.
  bool Charge(int64_t bytes);
  void Release(int64_t bytes);

  struct Counters;  // lives on while allocations refer to it

 private:
  friend class MemoryScope;
  Counters* counters_;
};

// Replaces c10's CPU allocator, once for the process; later calls do nothing. Call it before the
// first tensor is made. Past its budget an allocation throws c10::OutOfMemoryError.
void InstallCountingAllocator();

// Bytes of freed blocks that the allocator keeps for reuse, over all accounts. Handing large blocks
// back to the system costs a page fault for each 4 KiB at the next use.
int64_t CachedBytes();
void ReleaseCachedBlocks();

// Charges what this thread allocates to `account` (null: to none) until the scope ends. Scopes
// nest.
class MemoryScope {
 public:
  explicit MemoryScope(const MemoryAccount* account);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  MemoryAccount::Counters* previous_;
};

}  // namespace autosp
