// What the other ranks see when one of them dies, hangs, aborts or is a stranger. Ranks are
// processes here, but where a thread can play the part.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collectives/in_process_collectives.h"
#include "worker/collectives/shared_memory_collectives.h"

namespace autosp {
namespace {

using testing::HasSubstr;

ProcessGroup Group(int size) {
  ProcessGroup group{.name = "world:10", .ranks = {}};
  for (int rank = 0; rank < size; ++rank) group.ranks.push_back(10 + rank);
  return group;
}

SharedMemoryOptions Options(int64_t generation = 1) {
  static int num_groups = 0;
  return {.name_prefix = absl::StrCat("/autosp-failure-", getpid(), "-", num_groups++),
          .generation = generation,
          .rendezvous_timeout = absl::Seconds(5),
          .ring = {.timeout = absl::Seconds(30)}};
}

int NumSegments(const std::string& prefix) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    count += entry.path().filename().string().starts_with(prefix.substr(1));
  }
  return count;
}

// Forks; the child runs `body` and ends without the test's own exit handlers.
pid_t Fork(const std::function<void()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  return pid;
}

// A rank that all-reduces for ever.
void ReduceForever(int size, int rank, const SharedMemoryOptions& options) {
  auto end = OpenSharedMemoryCollectives(Group(size), rank, options);
  std::vector<std::byte> buffer(1 << 20);
  while (end.ok() && (*end)->AllReduce(buffer, absl::MakeSpan(buffer), DType::kF32).ok()) {
  }
}

absl::Status ReduceUntilError(Collectives& end) {
  std::vector<std::byte> buffer(1 << 20);
  while (true) {
    absl::Status status = end.AllReduce(buffer, absl::MakeSpan(buffer), DType::kF32);
    if (!status.ok()) return status;
  }
}

TEST(PeerFailureTest, KilledRankIsNamedByTheOthers) {
  const SharedMemoryOptions options = Options();
  const pid_t victim = Fork([&] { ReduceForever(3, 2, options); });
  absl::Status statuses[2];
  std::chrono::steady_clock::time_point seen[2];
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      auto end = OpenSharedMemoryCollectives(Group(3), rank, options);
      ASSERT_TRUE(end.ok()) << end.status();
      statuses[rank] = ReduceUntilError(**end);
      seen[rank] = std::chrono::steady_clock::now();
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto killed = std::chrono::steady_clock::now();
  kill(victim, SIGKILL);
  for (std::thread& thread : threads) thread.join();
  waitpid(victim, nullptr, 0);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(std::string(statuses[rank].message()), HasSubstr("rank 12 has died"));
    EXPECT_TRUE(IsPeerLost(statuses[rank]));
    EXPECT_THAT(std::string(statuses[rank].message()), HasSubstr("all_reduce of 1048576 bytes"));
    EXPECT_LT(seen[rank] - killed, std::chrono::seconds(5));
  }
  EXPECT_EQ(NumSegments(options.name_prefix), 0);
}

// kill -9 of all ranks while they communicate leaves nothing in /dev/shm.
TEST(PeerFailureTest, NothingIsLeftAfterKillNine) {
  const SharedMemoryOptions options = Options();
  std::vector<pid_t> pids;
  for (int rank = 0; rank < 2; ++rank) {
    pids.push_back(Fork([&, rank] { ReduceForever(2, rank, options); }));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (const pid_t pid : pids) kill(pid, SIGKILL);
  for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
  EXPECT_EQ(NumSegments(options.name_prefix), 0);
}

// A rank that dies before the others attach leaves its segment; who started it cleans up.
TEST(PeerFailureTest, UnlinkRemovesWhatDeadRanksLeft) {
  const SharedMemoryOptions options = Options();
  const pid_t pid = Fork([&] { ReduceForever(2, 0, options); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  ASSERT_EQ(NumSegments(options.name_prefix), 1);
  UnlinkSharedMemory(options.name_prefix);
  EXPECT_EQ(NumSegments(options.name_prefix), 0);
}

TEST(PeerFailureTest, MissingRankIsNamed) {
  SharedMemoryOptions options = Options();
  options.rendezvous_timeout = absl::Milliseconds(200);
  const auto end = OpenSharedMemoryCollectives(Group(2), 0, options);
  EXPECT_EQ(end.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(end.status().message()), HasSubstr("rank 11 did not come up"));
  EXPECT_EQ(NumSegments(options.name_prefix), 0);
}

TEST(PeerFailureTest, StrangerOfAnotherGenerationIsRefused) {
  SharedMemoryOptions options = Options(/*generation=*/4);
  SharedMemoryOptions old = options;
  old.generation = 3;
  std::thread creator([&] {
    const auto end = OpenSharedMemoryCollectives(Group(2), 0, options);
    EXPECT_TRUE(end.ok()) << end.status();
  });
  const auto stranger = OpenSharedMemoryCollectives(Group(2), 1, old);
  EXPECT_EQ(stranger.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(stranger.status().message()), HasSubstr("is of generation 4"));
  const auto member = OpenSharedMemoryCollectives(Group(2), 1, options);
  EXPECT_TRUE(member.ok()) << member.status();
  creator.join();
}

TEST(PeerFailureTest, OtherGroupAndTakenPlaceAreRefused) {
  const SharedMemoryOptions options = Options();
  std::thread creator([&] {
    const auto end = OpenSharedMemoryCollectives(Group(3), 0, options);
    EXPECT_TRUE(end.ok()) << end.status();
  });
  ProcessGroup other = Group(3);
  std::swap(other.ranks[1], other.ranks[2]);
  EXPECT_EQ(OpenSharedMemoryCollectives(other, 1, options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  std::thread second([&] {
    const auto end = OpenSharedMemoryCollectives(Group(3), 1, options);
    EXPECT_TRUE(end.ok()) << end.status();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(OpenSharedMemoryCollectives(Group(3), 1, options).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(OpenSharedMemoryCollectives(Group(3), 2, options).ok());
  creator.join();
  second.join();
}

TEST(PeerFailureTest, FullSharedMemoryIsAnError) {
  SharedMemoryOptions options = Options();
  options.chunk_bytes = int64_t{1} << 40;
  const auto end = OpenSharedMemoryCollectives(Group(2), 0, options);
  EXPECT_EQ(end.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(end.status().message()), HasSubstr("are free in /dev/shm"));
  EXPECT_EQ(NumSegments(options.name_prefix), 0);
}

TEST(PeerFailureTest, SilentRankIsNamedAfterTheTimeout) {
  auto ends = MakeInProcessCollectives(Group(2), {.ring = {.timeout = absl::Milliseconds(200)}});
  const absl::Status status = ends[0]->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("waited 200ms for rank 11"));
  // The other one learns why its peer is gone instead of waiting for it, though the peer's chunk
  // for this very call had come; the group stays unusable.
  EXPECT_TRUE(ends[1]->Barrier().ok());
  const absl::Status late = ends[1]->Barrier();
  EXPECT_EQ(late.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(late.message()), HasSubstr("rank 10 has aborted"));
  EXPECT_EQ(ends[0]->Barrier(), status);
}

// Ranks that come one after another are waited for, each for the time-out.
TEST(PeerFailureTest, TheTimeoutCountsFromTheLastProgress) {
  // The last comes after 4 s, and each within 0.8 s of the one before, give or take 2.2 s in which
  // a busy machine does nothing.
  constexpr int kNumRanks = 6;
  auto ends = MakeInProcessCollectives(Group(kNumRanks),
                                       {.ring = {.timeout = absl::Seconds(3), .spin_rounds = 20}});
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kNumRanks; ++rank) {
    threads.emplace_back([&, rank] {
      std::this_thread::sleep_for(std::chrono::milliseconds(800 * rank));
      std::vector<std::byte> send(64);
      std::vector<std::byte> recv(kNumRanks * send.size());
      const absl::Status status = ends[rank]->AllGather(send, absl::MakeSpan(recv));
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PeerFailureTest, LeavingIsAnErrorOnlyForThoseWhoWait) {
  auto ends = MakeInProcessCollectives(Group(2));
  std::vector<std::byte> data(1000, std::byte{3});
  std::thread leaver([&] {
    EXPECT_TRUE(ends[0]->Broadcast(absl::MakeSpan(data), 0).ok());
    ends[0].reset();
  });
  leaver.join();
  std::vector<std::byte> received(1000);
  EXPECT_TRUE(ends[1]->Broadcast(absl::MakeSpan(received), 0).ok());
  EXPECT_EQ(received, data);
  const absl::Status status = ends[1]->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 10 has left the group"));
}

TEST(PeerFailureTest, AbortFromAnotherThreadEndsAWait) {
  auto ends = MakeInProcessCollectives(Group(2));
  absl::Status own;
  std::thread waiter([&] { own = ends[0]->Barrier(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ends[0]->Abort("stopped by the user");
  waiter.join();
  EXPECT_EQ(own.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(own.message()), HasSubstr("stopped by the user"));
  EXPECT_FALSE(IsPeerLost(own));
  absl::Status other;
  EXPECT_TRUE(ends[1]->Barrier().ok());  // its peer's part was there
  other = ends[1]->Barrier();
  EXPECT_EQ(other.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(other.message()), HasSubstr("rank 10 has aborted: stopped by the user"));
  EXPECT_TRUE(IsPeerLost(other));
}

TEST(PeerFailureTest, RanksThatDisagreeFindOut) {
  auto ends = MakeInProcessCollectives(Group(2), {.ring = {.timeout = absl::Seconds(10)}});
  std::vector<std::byte> a(64);
  std::vector<std::byte> b(128);
  absl::Status statuses[2];
  std::thread other([&] { statuses[1] = ends[1]->AllToAll(b, absl::MakeSpan(b)); });
  std::vector<std::byte> recv(128);
  statuses[0] = ends[0]->AllGather(a, absl::MakeSpan(recv));
  other.join();
  // At least one sees the other's call; what the slower one sees may be the abort.
  const std::string both = absl::StrCat(statuses[0].message(), " ", statuses[1].message());
  EXPECT_FALSE(statuses[0].ok());
  EXPECT_FALSE(statuses[1].ok());
  EXPECT_THAT(both, HasSubstr("makes another call"));
}

}  // namespace
}  // namespace autosp
