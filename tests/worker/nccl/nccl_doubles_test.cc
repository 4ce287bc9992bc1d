// The doubles see what they are there for: each misuse of CUDA or NCCL is made once, and named.

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/nccl/fake_cuda.h"
#include "tests/worker/nccl/fake_nccl.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// One or two communicators on one thread, ready for calls.
class NcclDoublesTest : public testing::Test {
 protected:
  void Join(int num_ranks) {
    NcclUniqueId id;
    ASSERT_EQ(nccl_.GetUniqueId(&id), NcclResult::kSuccess);
    for (int rank = 0; rank < num_ranks; ++rank) {
      ASSERT_TRUE(cuda_.SetDevice(rank).ok());
      streams_.push_back(cuda_.CreateStream().value());
      comms_.push_back(nullptr);
      ASSERT_EQ(nccl_.InitRank(&comms_[rank], num_ranks, id, rank), NcclResult::kInProgress);
    }
    for (const NcclComm comm : comms_) Settle(comm);
  }

  void Settle(NcclComm comm) {
    NcclResult error = NcclResult::kInProgress;
    for (int i = 0; i < 10 && error == NcclResult::kInProgress; ++i) {
      ASSERT_EQ(nccl_.GetAsyncError(comm, &error), NcclResult::kSuccess);
    }
    ASSERT_EQ(error, NcclResult::kSuccess);
  }

  NcclResult Reduce(int rank, int64_t count) {
    return nccl_.AllReduce(values_.data(), values_.data(), count, NcclType::kFloat32,
                           NcclReduction::kSum, comms_[rank], streams_[rank]);
  }

  void ExpectViolation(const std::string& text) {
    EXPECT_THAT(cuda_.Violations(), ElementsAre(HasSubstr(text)));
  }

  FakeCuda cuda_;
  FakeNccl nccl_{cuda_};
  std::vector<CudaStream> streams_;
  std::vector<NcclComm> comms_;
  std::vector<float> values_ = {1, 2, 3, 4};
};

TEST_F(NcclDoublesTest, WorkOnAStreamRunsWhenSomebodyWaits) {
  const CudaStream stream = cuda_.CreateStream().value();
  const CudaEvent event = cuda_.CreateEvent().value();
  std::vector<int> copy(4);
  const std::vector<int> source = {1, 2, 3, 4};
  ASSERT_TRUE(cuda_.CopyAsync(copy.data(), source.data(), 16, stream).ok());
  ASSERT_TRUE(cuda_.RecordEvent(event, stream).ok());
  EXPECT_THAT(copy, ElementsAre(0, 0, 0, 0));
  EXPECT_FALSE(cuda_.QueryEvent(event).value());
  ASSERT_TRUE(cuda_.WaitEvent(nullptr, event).ok());
  EXPECT_EQ(copy, source);
  EXPECT_TRUE(cuda_.QueryEvent(event).value());
  EXPECT_THAT(cuda_.Violations(), IsEmpty());
}

TEST_F(NcclDoublesTest, AWaitMeansTheRecordOfItsTime) {
  const CudaStream early = cuda_.CreateStream().value();
  const CudaStream late = cuda_.CreateStream().value();
  const CudaEvent event = cuda_.CreateEvent().value();
  int order = 0;
  int first = 0;
  ASSERT_TRUE(cuda_.Enqueue(early, "first", {}, [&] { first = ++order; }).ok());
  ASSERT_TRUE(cuda_.RecordEvent(event, early).ok());
  ASSERT_TRUE(cuda_.WaitEvent(late, event).ok());
  int second = 0;
  ASSERT_TRUE(cuda_.Enqueue(early, "second", {}, [&] { second = ++order; }).ok());
  ASSERT_TRUE(cuda_.RecordEvent(event, early).ok());
  ASSERT_TRUE(cuda_.SynchronizeStream(late).ok());
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 0);  // nobody has waited for it
}

TEST_F(NcclDoublesTest, SeesABufferThatIsWrittenTooEarly) {
  const CudaStream stream = cuda_.CreateStream().value();
  std::vector<int> source = {1, 2, 3, 4};
  std::vector<int> copy(4);
  ASSERT_TRUE(cuda_.CopyAsync(copy.data(), source.data(), 16, stream).ok());
  source[0] = 7;
  ASSERT_TRUE(cuda_.SynchronizeStream(stream).ok());
  ExpectViolation("CopyAsync of 16 bytes: what it sends was changed");
}

TEST_F(NcclDoublesTest, SeesUseAfterTheEnd) {
  const CudaStream stream = cuda_.CreateStream().value();
  ASSERT_TRUE(cuda_.DestroyStream(stream).ok());
  EXPECT_FALSE(cuda_.SynchronizeStream(stream).ok());
  ExpectViolation("SynchronizeStream on a stream that is no more");
}

TEST_F(NcclDoublesTest, SeesWhatIsLeft) {
  cuda_.CreateStream().IgnoreError();
  cuda_.CreateEvent().IgnoreError();
  cuda_.AllocateHost(8).IgnoreError();
  EXPECT_THAT(cuda_.Leaks(), ElementsAre("1 streams", "1 events", "host memory"));
}

TEST_F(NcclDoublesTest, SeesMemoryThatIsFreedTheWrongWay) {
  void* const memory = cuda_.AllocateHost(8).value();
  EXPECT_FALSE(cuda_.FreeDevice(memory).ok());
  ExpectViolation("free of device memory that was not allocated");
}

TEST_F(NcclDoublesTest, ACallReachesItsStreamOnceTheCommunicatorIsAsked) {
  Join(1);
  ASSERT_EQ(Reduce(0, 4), NcclResult::kInProgress);
  EXPECT_EQ(cuda_.NumQueued(streams_[0]), 0);
  Settle(comms_[0]);
  EXPECT_EQ(cuda_.NumQueued(streams_[0]), 1);
}

TEST_F(NcclDoublesTest, SeesACallWhileAnotherIsInProgress) {
  Join(1);
  ASSERT_EQ(Reduce(0, 4), NcclResult::kInProgress);
  EXPECT_EQ(Reduce(0, 4), NcclResult::kInvalidUsage);
  ExpectViolation("while another call is in progress");
}

TEST_F(NcclDoublesTest, SeesRanksThatDisagree) {
  Join(2);
  ASSERT_EQ(Reduce(0, 4), NcclResult::kInProgress);
  ASSERT_EQ(Reduce(1, 3), NcclResult::kInProgress);
  for (const NcclComm comm : comms_) Settle(comm);
  std::vector<std::thread> threads;
  for (const CudaStream stream : streams_) {
    threads.emplace_back([&, stream] { ASSERT_TRUE(cuda_.SynchronizeStream(stream).ok()); });
  }
  while (cuda_.Violations().empty()) std::this_thread::yield();
  for (const NcclComm comm : comms_) EXPECT_EQ(nccl_.Abort(comm), NcclResult::kSuccess);
  for (std::thread& thread : threads) thread.join();
  ExpectViolation("AllReduce of 3 elements");
}

TEST_F(NcclDoublesTest, SeesASendOutsideOfAGroup) {
  Join(2);
  EXPECT_EQ(nccl_.Send(values_.data(), 4, NcclType::kFloat32, 1, comms_[0], streams_[0]),
            NcclResult::kInvalidUsage);
  ExpectViolation("outside of a group");
}

TEST_F(NcclDoublesTest, SeesASendThatNobodyReceives) {
  Join(2);
  ASSERT_EQ(nccl_.GroupStart(), NcclResult::kSuccess);
  ASSERT_EQ(nccl_.Send(values_.data(), 4, NcclType::kFloat32, 1, comms_[0], streams_[0]),
            NcclResult::kSuccess);
  ASSERT_EQ(nccl_.GroupEnd(), NcclResult::kInProgress);
  Settle(comms_[0]);
  ASSERT_TRUE(cuda_.SynchronizeStream(streams_[0]).ok());
  EXPECT_EQ(nccl_.Finalize(comms_[1]), NcclResult::kInProgress);
  ExpectViolation("1 sends from rank 0 to rank 1 were never received");
}

TEST_F(NcclDoublesTest, SeesAGroupThatIsNotEnded) {
  ASSERT_EQ(nccl_.GroupStart(), NcclResult::kSuccess);
  EXPECT_THAT(nccl_.Leaks(), ElementsAre("a group that was not ended"));
}

TEST_F(NcclDoublesTest, SeesAStreamOfAnotherDevice) {
  Join(2);
  EXPECT_EQ(nccl_.AllReduce(values_.data(), values_.data(), 4, NcclType::kFloat32,
                            NcclReduction::kSum, comms_[0], streams_[1]),
            NcclResult::kInvalidUsage);
  ExpectViolation("on a stream of another device");
}

TEST_F(NcclDoublesTest, RefusesTwoRanksOnOneDevice) {
  NcclUniqueId id;
  ASSERT_EQ(nccl_.GetUniqueId(&id), NcclResult::kSuccess);
  NcclComm comm = nullptr;
  ASSERT_EQ(nccl_.InitRank(&comm, 2, id, 0), NcclResult::kInProgress);
  EXPECT_EQ(nccl_.InitRank(&comm, 2, id, 1), NcclResult::kInvalidUsage);
}

TEST_F(NcclDoublesTest, SeesUseOfACommunicatorAfterAbort) {
  Join(1);
  ASSERT_EQ(nccl_.Abort(comms_[0]), NcclResult::kSuccess);
  EXPECT_EQ(Reduce(0, 4), NcclResult::kInvalidArgument);
  ExpectViolation("on a communicator that is no more");
}

TEST_F(NcclDoublesTest, SeesDestroyBeforeFinalize) {
  Join(1);
  EXPECT_EQ(nccl_.Destroy(comms_[0]), NcclResult::kInvalidUsage);
  ExpectViolation("Destroy before Finalize");
}

}  // namespace
}  // namespace autosp
