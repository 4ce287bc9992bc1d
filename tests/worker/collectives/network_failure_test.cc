// What the other ranks see over TCP, and over TCP and memory mixed, when one of them dies, leaves,
// aborts or disagrees.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/collectives/network_fixture.h"
#include "worker/collectives/network_collectives.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kTimeout = absl::Seconds(30);

// The nodes of the ranks.
class NetworkFailureTest : public testing::TestWithParam<std::vector<std::string>> {
 protected:
  NetworkFailureTest() : network_(GetParam()) {}

  int size() const { return static_cast<int>(GetParam().size()); }

  ProcessGroup Group() const {
    ProcessGroup group{.name = "world:0", .ranks = {}};
    for (int rank = 0; rank < size(); ++rank) group.ranks.push_back(rank);
    return group;
  }

  std::unique_ptr<Collectives> Open(int rank, absl::Duration timeout = kTimeout) {
    const auto rendezvous = network_.MakeRendezvous(rank);
    auto end =
        OpenNetworkCollectives(Group(), rank, *rendezvous,
                               {.shm_prefix = absl::StrCat("/autosp-network-failure-", parent_),
                                .stream = {.timeout = timeout}});
    EXPECT_TRUE(end.ok()) << end.status();
    return end.ok() ? *std::move(end) : nullptr;
  }

  // Runs `body` as each rank but those in other processes.
  void RunRanks(int num_ranks, const std::function<void(int rank, Collectives&)>& body,
                absl::Duration timeout = kTimeout) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < num_ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto end = Open(rank, timeout);
        ASSERT_NE(end, nullptr);
        body(rank, *end);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  static absl::Status ReduceUntilError(Collectives& end) {
    std::vector<std::byte> buffer(1 << 20);
    while (true) {
      absl::Status status = end.AllReduce(buffer, absl::MakeSpan(buffer), DType::kF32);
      if (!status.ok()) return status;
    }
  }

  const pid_t parent_ = getpid();
  FakeNetwork network_;
};

TEST_P(NetworkFailureTest, AKilledRankIsNamedByTheOthers) {
  const int last = size() - 1;
  const pid_t victim = fork();
  if (victim == 0) {
    const auto end = Open(last);
    if (end != nullptr) ReduceUntilError(*end).IgnoreError();
    _exit(0);
  }
  network_.TakeListener(last);  // As the agent does, once the rank has it.
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    kill(victim, SIGKILL);
  });
  RunRanks(last, [&](int, Collectives& end) {
    const auto began = std::chrono::steady_clock::now();
    const absl::Status status = ReduceUntilError(end);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("rank ", last, " on node ", GetParam()[last], " has died")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("all_reduce of 1048576 bytes"));
    EXPECT_TRUE(IsPeerLost(status));
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  });
  killer.join();
  waitpid(victim, nullptr, 0);
}

TEST_P(NetworkFailureTest, LeavingIsAnErrorOnlyForThoseWhoWait) {
  std::latch all_have_it(size() - 1);
  RunRanks(size(), [&](int rank, Collectives& end) {
    std::vector<std::byte> data(3'000'000, rank == 0 ? std::byte{3} : std::byte{0});
    ASSERT_TRUE(end.Broadcast(absl::MakeSpan(data), 0).ok());
    EXPECT_EQ(data, std::vector<std::byte>(3'000'000, std::byte{3}));
    if (rank == 0) return;
    // The first one to fail ends the calls of all.
    all_have_it.arrive_and_wait();
    const absl::Status status = end.Barrier();
    EXPECT_TRUE(IsPeerLost(status));
    // What the slower ones hear first may be that another rank has noticed.
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("rank 0 on node ", GetParam()[0], " has left")));
  });
}

TEST_P(NetworkFailureTest, AnAbortEndsTheWaitsOfAll) {
  RunRanks(size(), [&](int rank, Collectives& end) {
    ASSERT_TRUE(end.Barrier().ok());
    if (rank == 0) {
      // The data of the others is stuck behind what rank 0 does not read; word of the abort is not.
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      std::thread([&] { end.Abort("stopped by the user"); }).join();
      const absl::Status own = end.Barrier();
      EXPECT_EQ(own.code(), absl::StatusCode::kAborted);
      EXPECT_FALSE(IsPeerLost(own));
      return;
    }
    std::vector<std::byte> send(64 << 20);
    std::vector<std::byte> recv(send.size());
    const absl::Status status = end.AllReduce(send, absl::MakeSpan(recv), DType::kF32);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("stopped by the user"));
    EXPECT_TRUE(IsPeerLost(status));
    EXPECT_EQ(end.Barrier(), status);
  });
}

// Asks without a call until there is an error, as the watchdog of an NCCL group does.
absl::Status CheckUntilError(Collectives& end) {
  for (int i = 0; i < 1000; ++i) {
    absl::Status status = end.CheckPeers();
    if (!status.ok()) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return absl::OkStatus();
}

TEST_P(NetworkFailureTest, WhoeverAsksFindsAnAbort) {
  std::latch all_are_open(size());
  std::latch all_know(size());
  RunRanks(size(), [&](int rank, Collectives& end) {
    EXPECT_TRUE(end.CheckPeers().ok());
    all_are_open.arrive_and_wait();
    if (rank == 0) end.Abort("stopped by the user");
    const absl::Status status = CheckUntilError(end);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("stopped by the user"));
    EXPECT_EQ(IsPeerLost(status), rank != 0);
    all_know.arrive_and_wait();
  });
}

TEST_P(NetworkFailureTest, WhoeverAsksFindsADeadRank) {
  const int last = size() - 1;
  const pid_t victim = fork();
  if (victim == 0) {
    const auto end = Open(last);
    if (end != nullptr) end->Barrier().IgnoreError();
    pause();
  }
  network_.TakeListener(last);
  std::latch all_have_asked(last);
  std::latch all_know(last);
  RunRanks(last, [&](int rank, Collectives& end) {
    ASSERT_TRUE(end.Barrier().ok());
    EXPECT_TRUE(end.CheckPeers().ok());
    all_have_asked.arrive_and_wait();
    if (rank == 0) kill(victim, SIGKILL);
    const absl::Status status = CheckUntilError(end);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("rank ", last, " on node ", GetParam()[last], " has died")));
    EXPECT_TRUE(IsPeerLost(status));
    all_know.arrive_and_wait();
  });
  waitpid(victim, nullptr, 0);
}

TEST_P(NetworkFailureTest, ASilentRankIsNamedAfterTheTimeout) {
  RunRanks(
      size(),
      [&](int rank, Collectives& end) {
        if (rank == 0) {
          // It computes, longer than the others have patience.
          std::this_thread::sleep_for(std::chrono::seconds(2));
          EXPECT_FALSE(end.Barrier().ok() && end.Barrier().ok());
          return;
        }
        const absl::Status status = end.Barrier();
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr(absl::StrCat("rank 0 on node ", GetParam()[0])));
        EXPECT_TRUE(IsPeerLost(status));
      },
      absl::Milliseconds(500));
}

TEST_P(NetworkFailureTest, RanksThatDisagreeFindOut) {
  std::vector<std::string> messages(size());
  RunRanks(size(), [&](int rank, Collectives& end) {
    std::vector<std::byte> send(16 * size());
    std::vector<std::byte> recv(send.size() * size());
    const absl::Status status =
        rank == 0 ? end.AllGather(send, absl::MakeSpan(recv))
                  : end.AllToAll(send, absl::MakeSpan(recv).subspan(0, send.size()));
    EXPECT_FALSE(status.ok());
    messages[rank] = std::string(status.message());
  });
  EXPECT_THAT(messages, testing::Contains(HasSubstr("makes another call")));
}

INSTANTIATE_TEST_SUITE_P(All, NetworkFailureTest,
                         testing::Values(std::vector<std::string>{"a", "b"},
                                         std::vector<std::string>{"a", "b", "c"},
                                         std::vector<std::string>{"a", "a", "b", "b"}));

}  // namespace
}  // namespace autosp
