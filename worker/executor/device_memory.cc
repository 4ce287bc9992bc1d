#include "worker/executor/device_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstddef>
#include <mutex>
#include <utility>

#include "worker/executor/block_cache.h"

namespace autosp {

// Shared by the handle and by every allocation that was charged to it.
struct MemoryAccount::Counters {
  Counters(std::string name, Counters* outer) : name(std::move(name)), outer(outer) {
    if (outer != nullptr) outer->references.fetch_add(1, std::memory_order_relaxed);
  }
  ~Counters() {
    if (outer != nullptr) outer->Unreference();
  }

  bool Charge(int64_t bytes) {
    if (outer != nullptr && !outer->Charge(bytes)) return false;
    if (ChargeOwn(bytes)) return true;
    if (outer != nullptr) outer->Release(bytes);
    return false;
  }

  bool ChargeOwn(int64_t bytes) {
    const int64_t now = live.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    const int64_t limit = budget.load(std::memory_order_relaxed);
    if (limit > 0 && now > limit) [[unlikely]] {
      Refuse(bytes);
      return false;
    }
    int64_t seen = peak.load(std::memory_order_relaxed);
    while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
    count.fetch_add(1, std::memory_order_relaxed);
    references.fetch_add(1, std::memory_order_relaxed);
    return true;
  }

  void Release(int64_t bytes) {
    if (outer != nullptr) outer->Release(bytes);
    live.fetch_sub(bytes, std::memory_order_relaxed);
    Unreference();
  }

  void Refuse(int64_t bytes) {
    const int64_t before = live.fetch_sub(bytes, std::memory_order_relaxed) - bytes;
    const std::lock_guard lock(refusal_mutex);
    refusal = {.wanted_bytes = bytes, .live_bytes = before};
  }

  void Unreference() {
    if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  const std::string name;
  Counters* const outer;  // that is charged too; null: none
  std::atomic<int64_t> budget{0};
  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> count{0};
  std::atomic<int64_t> references{1};  // the handle's own
  std::mutex refusal_mutex;
  Refusal refusal;
};

namespace {

thread_local MemoryAccount::Counters* current_counters = nullptr;

// Stands before the bytes of every allocation; keeps the alignment that c10 promises.
struct alignas(c10::gAlignment) Header {
  MemoryAccount::Counters* counters = nullptr;  // null: not charged
  int64_t bytes = 0;                            // as asked
  size_t block_bytes = 0;                       // as held by the block cache; header included
};
static_assert(sizeof(Header) == c10::gAlignment);

void Free(void* data) {
  if (data == nullptr) return;
  Header* header = static_cast<Header*>(data) - 1;
  if (header->counters != nullptr) header->counters->Release(header->bytes);
  BlockCache::Get().Give({header, header->block_bytes});
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (size == 0) return {nullptr, nullptr, &Free, cpu};
    MemoryAccount::Counters* counters = current_counters;
    const auto bytes = static_cast<int64_t>(size);
    TORCH_CHECK_WITH(OutOfMemoryError, counters == nullptr || counters->Charge(bytes),
                     "out of memory of the rank: ", bytes, " more bytes do not fit");
    const BlockCache::Block block = BlockCache::Get().Take(size + sizeof(Header));
    if (block.data == nullptr) {
      if (counters != nullptr) counters->Release(bytes);
      TORCH_CHECK_WITH(OutOfMemoryError, false, "the system has no ", bytes, " bytes left");
    }
    auto* header = new (block.data) Header{counters, bytes, block.bytes};
    return {header + 1, header + 1, &Free, cpu};
  }

  // The context is the data itself, as c10's raw interface asks.
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }

  void copy_data(void* dest, const void* src, std::size_t count) const override {
    default_copy_data(dest, src, count);
  }
};

}  // namespace

MemoryAccount::MemoryAccount(std::string name, int64_t budget_bytes, const MemoryAccount* within)
    : counters_(new Counters(std::move(name), within == nullptr ? nullptr : within->counters_)) {
  counters_->budget = budget_bytes;
}

MemoryAccount::~MemoryAccount() { counters_->Unreference(); }

std::string_view MemoryAccount::name() const { return counters_->name; }
int64_t MemoryAccount::budget_bytes() const { return counters_->budget; }
void MemoryAccount::set_budget_bytes(int64_t bytes) { counters_->budget = bytes; }
int64_t MemoryAccount::live_bytes() const { return counters_->live; }
int64_t MemoryAccount::peak_bytes() const { return counters_->peak; }
int64_t MemoryAccount::num_allocations() const { return counters_->count; }
void MemoryAccount::ResetPeak() { counters_->peak = counters_->live.load(); }

MemoryAccount::Refusal MemoryAccount::TakeRefusal() {
  const std::lock_guard lock(counters_->refusal_mutex);
  return std::exchange(counters_->refusal, {});
}

bool MemoryAccount::Charge(int64_t bytes) { return counters_->Charge(bytes); }
void MemoryAccount::Release(int64_t bytes) { counters_->Release(bytes); }

void InstallCountingAllocator() {
  // Above the priority of the allocators that libtorch itself installs. Never deleted: tensors of
  // static life may be freed after main.
  static const bool installed = [] {
    c10::SetCPUAllocator(new CountingAllocator, /*priority=*/200);
    return true;
  }();
  static_cast<void>(installed);
}

int64_t CachedBytes() { return BlockCache::Get().cached_bytes(); }
void ReleaseCachedBlocks() { BlockCache::Get().ReleaseAll(); }

MemoryScope::MemoryScope(const MemoryAccount* account)
    : previous_(std::exchange(current_counters, account ? account->counters_ : nullptr)) {}

MemoryScope::~MemoryScope() { current_counters = previous_; }

}  // namespace autosp
