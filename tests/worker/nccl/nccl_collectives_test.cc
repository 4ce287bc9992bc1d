// What the collectives do with streams, beyond moving the right bytes (collectives_test.cc).

#include "worker/nccl/nccl_collectives.h"

#include <atomic>
#include <functional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/nccl/fake_gpus.h"
#include "worker/cuda/staged_collectives.h"

namespace autosp {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

using Floats = std::vector<float>;

CollectiveCall AllReduceOf(Floats& values) {
  const auto bytes =
      absl::MakeSpan(reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(float));
  return {.kind = CollectiveKind::kAllReduce, .send = bytes, .recv = bytes};
}

// A rank that computes on a queue too, as a GPU does.
struct QueueRank {
  CudaStream compute = nullptr;
  std::shared_ptr<NcclDevice> device;

  QueueRank(FakeGpus& gpus, int rank) {
    EXPECT_TRUE(gpus.cuda().SetDevice(rank).ok());
    compute = gpus.cuda().CreateStream().value();
    device = NcclDevice::Open(gpus.cuda(), gpus.nccl(), rank, [this] { return compute; }).value();
  }
};

// A rank that computes on a queue makes calls; the queue is destroyed behind it.
void RunOnQueues(FakeGpus& gpus,
                 const std::function<void(int rank, CudaStream compute, Collectives&)>& body) {
  gpus.cuda().AllowLateWrites();
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const QueueRank queue(gpus, rank);
    {
      const auto group = NcclCollectives::Open(queue.device, std::move(control)).value();
      body(rank, queue.compute, *group);
      ASSERT_TRUE(gpus.cuda().SynchronizeStream(queue.compute).ok());
    }
    ASSERT_TRUE(gpus.cuda().DestroyStream(queue.compute).ok());
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclCollectivesTest, NeitherStartNorWaitHoldsTheHost) {
  FakeGpus gpus;
  RunOnQueues(gpus, [&](int rank, CudaStream compute, Collectives& group) {
    FakeCuda& cuda = gpus.cuda();
    Floats values(8);
    // The rank computes what is sent, and computes with what was received, on its queue.
    const auto fill = [&] { values.assign(8, static_cast<float>(rank + 1)); };
    const auto make_double = [&] {
      for (float& value : values) value *= 2;
    };
    ASSERT_TRUE(cuda.Enqueue(compute, "fill", {}, fill).ok());
    const auto handle = group.Start(AllReduceOf(values));
    ASSERT_TRUE(handle.ok()) << handle.status();
    ASSERT_TRUE(group.Wait(*handle).ok());
    ASSERT_TRUE(cuda.Enqueue(compute, "double", {}, make_double).ok());
    EXPECT_THAT(values, Each(0.0f));  // nothing has run
    ASSERT_TRUE(cuda.SynchronizeStream(compute).ok());
    EXPECT_THAT(values, Each(6.0f));
    EXPECT_TRUE(group.Synchronize().ok());
  });
}

// Even when the communication stream comes first.
TEST(NcclCollectivesTest, SendsWhatWasComputedBefore) {
  FakeGpus gpus;
  RunOnQueues(gpus, [&](int rank, CudaStream compute, Collectives& group) {
    Floats values(8);
    const auto fill = [&] { values.assign(8, static_cast<float>(rank + 1)); };
    ASSERT_TRUE(gpus.cuda().Enqueue(compute, "fill", {}, fill).ok());
    ASSERT_TRUE(group.Start(AllReduceOf(values)).ok());
    ASSERT_TRUE(group.Synchronize().ok());
    EXPECT_THAT(values, Each(3.0f));
  });
}

TEST(NcclCollectivesTest, ABarrierHoldsTheHost) {
  FakeGpus gpus;
  std::atomic<int> num_arrived = 0;
  RunOnQueues(gpus, [&](int, CudaStream, Collectives& group) {
    for (int round = 1; round <= 20; ++round) {
      num_arrived.fetch_add(1);
      ASSERT_TRUE(group.Barrier().ok());
      ASSERT_GE(num_arrived.load(), 2 * round);
    }
  });
}

TEST(NcclCollectivesTest, ResultsAreThereAfterTheWaitAndNotBefore) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(rank, std::move(control)).value();
    Floats values(8, 1.0f);
    const auto handle = group->Start(AllReduceOf(values)).value();
    EXPECT_THAT(values, Each(1.0f));
    ASSERT_TRUE(group->Wait(handle).ok());
    EXPECT_THAT(values, Each(2.0f));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclCollectivesTest, SynchronizeEndsWhatWasNotWaitedFor) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(rank, std::move(control)).value();
    Floats values(8, 1.0f);
    group->Start(AllReduceOf(values)).IgnoreError();
    ASSERT_TRUE(group->Synchronize().ok());
    EXPECT_THAT(values, Each(2.0f));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclCollectivesTest, TheHostRunsAheadOnlySoFar) {
  constexpr int kLimit = 4;
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const QueueRank queue(gpus, rank);
    {
      const auto group =
          NcclCollectives::Open(queue.device, std::move(control), {.max_calls_ahead = kLimit})
              .value();
      std::vector<Floats> values(20, Floats(2, 1.0f));
      for (Floats& each : values) {
        const auto handle = group->Start(AllReduceOf(each));
        ASSERT_TRUE(handle.ok()) << handle.status();
        ASSERT_TRUE(group->Wait(*handle).ok());
        // Each call is a wait, the call itself and a record.
        EXPECT_LE(gpus.cuda().NumQueued(queue.device->stream()), 3 * kLimit);
      }
      ASSERT_TRUE(group->Synchronize().ok());
      EXPECT_THAT(values, Each(Each(2.0f)));
      ASSERT_TRUE(gpus.cuda().SynchronizeStream(queue.compute).ok());
    }
    ASSERT_TRUE(gpus.cuda().DestroyStream(queue.compute).ok());
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclCollectivesTest, RefusesATypeThatNcclLacksAndGoesOn) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(rank, std::move(control)).value();
    Floats values(8, 1.0f);
    CollectiveCall call = AllReduceOf(values);
    call.dtype = DType::kI16;
    const absl::Status refused = group->Run(call);
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("all_reduce of i16"));
    ASSERT_TRUE(group->Run(AllReduceOf(values)).ok());
    EXPECT_THAT(values, Each(2.0f));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(StagedCollectivesTest, ComesBackOnTheComputeStream) {
  FakeGpus gpus;
  gpus.cuda().AllowLateWrites();
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> host) {
    FakeCuda& cuda = gpus.cuda();
    ASSERT_TRUE(cuda.SetDevice(rank).ok());
    const CudaStream compute = cuda.CreateStream().value();
    {
      StagedCollectives group(
          cuda, rank, [compute] { return compute; }, std::move(host));
      Floats values(8);
      ASSERT_TRUE(cuda.Enqueue(compute, "fill", {}, [&] { values.assign(8, 1.0f); }).ok());
      const auto handle = group.Start(AllReduceOf(values));
      ASSERT_TRUE(handle.ok()) << handle.status();
      ASSERT_TRUE(group.Wait(*handle).ok());
      EXPECT_THAT(values, Each(1.0f));
      ASSERT_TRUE(group.Synchronize().ok());
      EXPECT_THAT(values, Each(2.0f));
    }
    ASSERT_TRUE(cuda.DestroyStream(compute).ok());
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

// A second call may take the pinned buffers of the first while its result is on the way back.
TEST(StagedCollectivesTest, ReusesBuffersOnlyOnceTheyAreFree) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> host) {
    FakeCuda& cuda = gpus.cuda();
    ASSERT_TRUE(cuda.SetDevice(rank).ok());
    const CudaStream compute = cuda.CreateStream().value();
    {
      StagedCollectives group(
          cuda, rank, [compute] { return compute; }, std::move(host));
      std::vector<Floats> values(10, Floats(8, static_cast<float>(rank)));
      for (Floats& each : values) ASSERT_TRUE(group.Run(AllReduceOf(each)).ok());
      ASSERT_TRUE(group.Synchronize().ok());
      EXPECT_THAT(values, Each(Each(1.0f)));
    }
    ASSERT_TRUE(cuda.DestroyStream(compute).ok());
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(StagedCollectivesTest, NamesTheCallWhenNoPinnedMemoryIsLeft) {
  FakeGpus gpus;
  gpus.cuda().FailOnce("host");
  RunAsRanks(1, [&](int rank, std::unique_ptr<Collectives> host) {
    const auto group = gpus.Stage(rank, std::move(host));
    Floats values(8, 1.0f);
    EXPECT_THAT(std::string(group->Run(AllReduceOf(values)).message()),
                HasSubstr("staging of all_reduce of 32 bytes"));
    ASSERT_TRUE(group->Run(AllReduceOf(values)).ok());
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

}  // namespace
}  // namespace autosp
