// What a group over NCCL does when a rank dies, hangs, aborts or cannot start.

#include <atomic>
#include <chrono>
#include <ostream>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/nccl/fake_gpus.h"
#include "worker/collectives/ring_collectives.h"
#include "worker/collectives/segment.h"

namespace autosp {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr auto kSoon = std::chrono::seconds(10);  // far below the time-out of the control group

// Reduces until something is wrong, as the steps of a training do.
absl::Status ReduceUntilError(Collectives& group) {
  std::vector<std::byte> values(256);
  const CollectiveCall call{
      .kind = CollectiveKind::kAllReduce, .send = values, .recv = absl::MakeSpan(values)};
  while (true) {
    absl::Status status = group.Run(call);
    if (!status.ok()) return status;
  }
}

enum class Fault { kHang, kDeath, kRemoteError, kOwnDevice, kAbort };

struct FaultCase {
  const char* name;
  Fault fault;
  // Of rank 1, where the fault is, and of rank 0.
  const char* own_message;
  const char* peer_message;
  bool own_is_peer_lost;
};

void PrintTo(const FaultCase& c, std::ostream* out) { *out << c.name; }

class NcclFailureTest : public testing::TestWithParam<FaultCase> {
 protected:
  void Inject(FakeGpus& gpus) {
    switch (GetParam().fault) {
      case Fault::kHang:
        return gpus.nccl().HangAt(1, 5);
      case Fault::kDeath:
        return gpus.nccl().DieAt(1, 5);
      case Fault::kRemoteError:
        return gpus.nccl().FailAsyncAt(1, 5, NcclResult::kRemoteError);
      case Fault::kOwnDevice:
        return gpus.nccl().FailAsyncAt(1, 5, NcclResult::kUnhandledCudaError);
      case Fault::kAbort:
        return;
    }
  }
};

TEST_P(NcclFailureTest, EveryRankFailsSoonAndSaysWhy) {
  const FaultCase& c = GetParam();
  FakeGpus gpus;
  Inject(gpus);
  const auto start = std::chrono::steady_clock::now();
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group =
        gpus.OpenNccl(rank, std::move(control), {.timeout = absl::Milliseconds(100)}).value();
    std::thread stopper;
    if (c.fault == Fault::kAbort && rank == 1) {
      stopper = std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        group->Abort("it was stopped by signal 15");
      });
    }
    const absl::Status status = ReduceUntilError(*group);
    if (stopper.joinable()) stopper.join();
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(rank == 1 ? c.own_message : c.peer_message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("group world:0"));
    EXPECT_EQ(IsPeerLost(status), rank == 0 || c.own_is_peer_lost) << status;
    // The group is of no further use, and says the same for ever.
    EXPECT_EQ(group->Barrier(), status);
    EXPECT_EQ(group->Synchronize(), status);
    EXPECT_EQ(group->CheckPeers(), status);
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, kSoon);
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Faults, NcclFailureTest,
    testing::Values(FaultCase{"Hang", Fault::kHang, "all_reduce of 256 bytes (call 5",
                              "all_reduce of 256 bytes", true},
                    FaultCase{"Death", Fault::kDeath, "fake NCCL result 6", "", true},
                    FaultCase{"RemoteError", Fault::kRemoteError, "fake NCCL result 6",
                              "rank 1 has aborted", true},
                    FaultCase{"OwnDevice", Fault::kOwnDevice, "fake NCCL result 1",
                              "rank 1 has aborted", false},
                    FaultCase{"Abort", Fault::kAbort, "it was stopped by signal 15",
                              "stopped by signal 15", false}),
    [](const auto& info) { return info.param.name; });

// A death that NCCL does not notice is seen beside it.
class OneDeadPeer final : public PeerWatcher {
 public:
  explicit OneDeadPeer(std::atomic<bool>& is_dead) : is_dead_(is_dead) {}
  std::vector<Death> FindDead() override {
    if (!is_dead_.load()) return {};
    return {{.rank = 1, .how = "pid 123 is gone"}};
  }

 private:
  std::atomic<bool>& is_dead_;
};

TEST(NcclFailureTest, TheControlGroupNamesThePeerThatDied) {
  FakeGpus gpus;
  gpus.nccl().HangAt(1, 3);
  std::atomic<bool> is_dead = false;
  const ProcessGroup group{.name = "world:10", .ranks = {10, 11}};
  const auto segment = Segment::OnHeap({.group_size = 2, .chunk_bytes = 64, .chunks_per_ring = 16});
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    segment->slot(rank).state.store(SlotState::kAttached);
    threads.emplace_back([&, rank] {
      auto watcher = rank == 0 ? std::make_unique<OneDeadPeer>(is_dead) : nullptr;
      auto control = std::make_unique<RingCollectives>(group, rank, segment, std::move(watcher),
                                                       RingOptions{});
      const auto end = gpus.OpenNccl(rank, std::move(control), {.timeout = absl::Minutes(1)});
      ASSERT_TRUE(end.ok()) << end.status();
      if (rank == 1) is_dead = true;  // in its fourth call, on which it hangs
      const absl::Status status = ReduceUntilError(**end);
      EXPECT_TRUE(IsPeerLost(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("rank 11 has died: pid 123 is gone"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclFailureTest, ARankThatLeavesWithACallUnderWayFailsItsPeers) {
  FakeGpus gpus;
  gpus.nccl().HangAt(1, 1);
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    auto group = gpus.OpenNccl(rank, std::move(control), {.timeout = absl::Minutes(1)}).value();
    ASSERT_TRUE(group->Barrier().ok());
    if (rank == 1) {
      std::vector<std::byte> values(256);
      group
          ->Start(
              {.kind = CollectiveKind::kAllReduce, .send = values, .recv = absl::MakeSpan(values)})
          .IgnoreError();
      group.reset();
      return;
    }
    EXPECT_THAT(std::string(ReduceUntilError(*group).message()),
                HasSubstr("the rank has left before its end"));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

struct StartCase {
  const char* name;
  const char* function;  // of NCCL, which fails once
  const char* message;   // on every rank
};

class NcclStartTest : public testing::TestWithParam<StartCase> {};

TEST_P(NcclStartTest, EveryRankLearnsWhyThereIsNoCommunicator) {
  FakeGpus gpus;
  gpus.nccl().FailOnce(GetParam().function, NcclResult::kInternalError);
  RunAsRanks(3, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(rank, std::move(control));
    EXPECT_THAT(std::string(group.status().message()), HasSubstr(GetParam().message));
    EXPECT_THAT(std::string(group.status().message()),
                HasSubstr("NCCL communicator of group world:0"));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Functions, NcclStartTest,
    testing::Values(StartCase{"Id", "GetUniqueId", "ncclGetUniqueId: fake NCCL result 3"},
                    StartCase{"Init", "InitRank", "ncclCommInitRankConfig: fake NCCL result 3"}),
    [](const auto& info) { return info.param.name; });

TEST(NcclStartTest, AMissingRankIsATimeOut) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int rank, std::unique_ptr<Collectives> control) {
    if (rank == 1) {
      // It takes the id, and never joins.
      std::vector<std::byte> id(128);
      EXPECT_TRUE(control->Broadcast(absl::MakeSpan(id), 0).ok());
      EXPECT_FALSE(control->Barrier().ok());
      return;
    }
    const auto group =
        gpus.OpenNccl(rank, std::move(control), {.init_timeout = absl::Milliseconds(50)});
    EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("not all 2 ranks connected"));
    EXPECT_TRUE(IsPeerLost(group.status()));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

TEST(NcclStartTest, TwoRanksOnOneDeviceAreRefused) {
  FakeGpus gpus;
  RunAsRanks(2, [&](int, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(/*global_rank=*/3, std::move(control));
    EXPECT_THAT(std::string(group.status().message()), HasSubstr("fake NCCL result 5"));
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

class CudaFailureTest : public testing::TestWithParam<const char*> {};

TEST_P(CudaFailureTest, IsTheRanksOwnAndLeavesNothing) {
  FakeGpus gpus;
  RunAsRanks(1, [&](int rank, std::unique_ptr<Collectives> control) {
    const auto group = gpus.OpenNccl(rank, std::move(control)).value();
    gpus.cuda().FailOnce(GetParam());
    const absl::Status status = ReduceUntilError(*group);
    EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam()));
    EXPECT_FALSE(IsPeerLost(status));
    EXPECT_EQ(group->Barrier(), status);
  });
  EXPECT_THAT(gpus.Complaints(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Calls, CudaFailureTest,
                         testing::Values("CreateEvent", "RecordEvent", "WaitEvent", "QueryEvent"),
                         [](const auto& info) { return std::string(info.param); });

TEST(CudaFailureTest, ADeviceThatCannotBeOpenedLeavesNothing) {
  for (const char* call : {"SetDevice", "CreateStream", "device"}) {
    FakeGpus gpus;
    gpus.cuda().FailOnce(call);
    RunAsRanks(1, [&](int rank, std::unique_ptr<Collectives> control) {
      const auto group = gpus.OpenNccl(rank, std::move(control));
      EXPECT_THAT(std::string(group.status().message()), HasSubstr("injected")) << call;
    });
    EXPECT_THAT(gpus.Complaints(), IsEmpty()) << call;
  }
}

}  // namespace
}  // namespace autosp
