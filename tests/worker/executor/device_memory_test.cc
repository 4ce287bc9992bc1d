#include "worker/executor/device_memory.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "worker/executor/block_cache.h"

namespace autosp {
namespace {

at::Tensor Bytes(int64_t count) { return at::empty({count}, at::kByte); }

TEST(MemoryAccountTest, CountsLiveAndPeakByBytesAsked) {
  MemoryAccount account("device");
  const MemoryScope scope(&account);
  {
    const at::Tensor a = Bytes(1000);
    const at::Tensor b = Bytes(3);
    EXPECT_EQ(account.live_bytes(), 1003);
  }
  EXPECT_EQ(account.live_bytes(), 0);
  EXPECT_EQ(account.peak_bytes(), 1003);
  EXPECT_EQ(account.num_allocations(), 2);
  const at::Tensor c = Bytes(10);
  account.ResetPeak();
  EXPECT_EQ(account.peak_bytes(), 10);
}

TEST(MemoryAccountTest, ScopesNestAndEmptyTensorsCostNothing) {
  MemoryAccount outer("outer");
  MemoryAccount inner("inner");
  const MemoryScope outer_scope(&outer);
  {
    const MemoryScope inner_scope(&inner);
    const at::Tensor a = Bytes(7);
    EXPECT_EQ(inner.live_bytes(), 7);
    {
      const MemoryScope nobody(nullptr);
      const at::Tensor b = Bytes(100);
      EXPECT_EQ(inner.live_bytes(), 7);
    }
  }
  const at::Tensor empty = Bytes(0);
  EXPECT_EQ(outer.live_bytes(), 0);
  EXPECT_EQ(outer.peak_bytes(), 0);
}

TEST(MemoryAccountTest, RefusesPastTheBudgetAndSaysHowMuchWasLive) {
  MemoryAccount account("device", 1000);
  const MemoryScope scope(&account);
  const at::Tensor a = Bytes(600);
  EXPECT_THROW(Bytes(401), c10::OutOfMemoryError);
  EXPECT_EQ(account.live_bytes(), 600);
  const MemoryAccount::Refusal refusal = account.TakeRefusal();
  EXPECT_EQ(refusal.wanted_bytes, 401);
  EXPECT_EQ(refusal.live_bytes, 600);
  EXPECT_EQ(account.TakeRefusal().wanted_bytes, 0);
  EXPECT_NO_THROW(Bytes(400));
}

TEST(MemoryAccountTest, FreesByOtherThreadsAreRight) {
  MemoryAccount mine("mine");
  MemoryAccount theirs("theirs");
  const MemoryScope scope(&mine);
  std::optional<at::Tensor> tensor = Bytes(50);
  std::thread([&] {
    const MemoryScope their_scope(&theirs);
    tensor.reset();
    EXPECT_EQ(theirs.live_bytes(), 0);
  }).join();
  EXPECT_EQ(mine.live_bytes(), 0);
}

TEST(MemoryAccountTest, TensorsMayOutliveTheAccount) {
  at::Tensor survivor;
  {
    MemoryAccount account("short");
    const MemoryScope scope(&account);
    survivor = at::ones({100});
  }
  EXPECT_EQ(survivor.sum().item<float>(), 100);
}

TEST(MemoryAccountTest, ChargesByHand) {
  MemoryAccount account("communication", 100);
  EXPECT_TRUE(account.Charge(80));
  EXPECT_FALSE(account.Charge(30));
  account.Release(80);
  EXPECT_EQ(account.live_bytes(), 0);
  EXPECT_EQ(account.peak_bytes(), 80);
}

TEST(MemoryAccountTest, AnAccountWithinAnotherIsAPartOfIt) {
  MemoryAccount device("device", 1000);
  MemoryAccount buffers("communication", 0, &device);
  const MemoryScope outer(&device);
  at::Tensor mine = at::empty({600}, at::kByte);
  {
    const MemoryScope inner(&buffers);
    const at::Tensor packed = at::empty({300}, at::kByte);
    EXPECT_EQ(device.live_bytes(), 900);
    EXPECT_EQ(buffers.live_bytes(), 300);
    EXPECT_FALSE(buffers.Charge(200));
    EXPECT_EQ(buffers.live_bytes(), 300);
    // The one that has no room says so.
    EXPECT_EQ(device.TakeRefusal().wanted_bytes, 200);
    EXPECT_EQ(buffers.TakeRefusal().wanted_bytes, 0);
  }
  EXPECT_EQ(device.live_bytes(), 600);
  EXPECT_EQ(device.peak_bytes(), 900);
  EXPECT_EQ(buffers.peak_bytes(), 300);
  mine.reset();
  EXPECT_EQ(device.live_bytes(), 0);
}

TEST(MemoryAccountTest, OfTwoAnInnerBudgetCountsToo) {
  MemoryAccount device("device");
  MemoryAccount buffers("communication", 100, &device);
  EXPECT_FALSE(buffers.Charge(200));
  EXPECT_EQ(device.live_bytes(), 0);
  EXPECT_TRUE(buffers.Charge(100));
  EXPECT_EQ(device.live_bytes(), 100);
  buffers.Release(100);
  EXPECT_EQ(device.live_bytes(), 0);
}

TEST(MemoryAccountTest, IsExactUnderThreads) {
  MemoryAccount account("device");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&account] {
      const MemoryScope scope(&account);
      for (int j = 0; j < 500; ++j) Bytes(100 + (j % 7) * 100'000);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(account.live_bytes(), 0);
  EXPECT_LE(account.peak_bytes(), 4 * 600'100);
}

TEST(MemoryAccountTest, RawInterfaceWorks) {
  MemoryAccount account("device");
  const MemoryScope scope(&account);
  void* data = c10::GetCPUAllocator()->raw_allocate(123);
  EXPECT_EQ(account.live_bytes(), 123);
  c10::GetCPUAllocator()->raw_deallocate(data);
  EXPECT_EQ(account.live_bytes(), 0);
}

TEST(BlockCacheTest, HandsOutTheSameBlockAgain) {
  if (BlockCache::kMinBytes == SIZE_MAX) GTEST_SKIP() << "no cache under the address sanitizer";
  ReleaseCachedBlocks();
  const void* first = nullptr;
  {
    const at::Tensor a = Bytes(10'000'000);
    first = a.data_ptr();
  }
  EXPECT_GE(CachedBytes(), 10'000'000);
  const at::Tensor b = Bytes(9'500'000);  // An eighth may go to waste.
  EXPECT_EQ(b.data_ptr(), first);
  ReleaseCachedBlocks();
  EXPECT_EQ(CachedBytes(), 0);
}

TEST(BlockCacheTest, StaysWithinTheMostThatWasInUse) {
  ReleaseCachedBlocks();
  // One large block was the peak: small ones that follow may not add to it for ever.
  { const at::Tensor a = Bytes(16'000'000); }
  std::vector<at::Tensor> held;
  for (int i = 0; i < 8; ++i) {
    held.push_back(Bytes(1'000'000 + i * 200'000));
    const at::Tensor gone = Bytes(3'000'000 + i * 500'000);
  }
  int64_t used = 0;
  for (const at::Tensor& tensor : held) used += static_cast<int64_t>(tensor.nbytes());
  EXPECT_LE(used + CachedBytes(), (int64_t{16} << 20) * 9 / 8 + (8 << 20));
  ReleaseCachedBlocks();
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
