// The store under kill -9 and on a full disk, in child processes.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/job_store.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"
#include "tests/server/store/job_fixture.h"

namespace autosp {
namespace {

using testing::HasSubstr;

// Stores jobs and their changes as fast as it can and says so on `fd` after each one. Never
// returns.
[[noreturn]] void WriteForEver(const std::string& path, int fd, int64_t round) {
  auto store = JobStore::Open(path);
  if (!store.ok()) _exit(2);
  const JobInputs inputs{.program_text = std::string(20'000, 'p')};
  for (int64_t i = 0;; ++i) {
    Job job = MakeJob(absl::StrCat("j", round, "-", i));
    if (!(*store)->Apply(Change(job, JobState::kQueued), &inputs).ok()) _exit(3);
    for (int change = 0; change < 3; ++change) {
      if (!(*store)->Apply(Change(job, JobState::kRunning, 5)).ok()) _exit(4);
    }
    if (write(fd, &i, sizeof(i)) != sizeof(i)) _exit(5);
  }
}

// The number of the last job that the child said it had stored.
int64_t LastSaid(int fd) {
  int64_t last = -1;
  for (int64_t value; read(fd, &value, sizeof(value)) == sizeof(value);) last = value;
  return last;
}

TEST(JobStoreCrash, KeepsWhatWasAcknowledgedAcrossKills) {
  TempDir dir;
  const std::string path = JoinPath(dir.path(), "autosp.db");
  for (int64_t round = 0; round < 8; ++round) {
    int fds[2];
    ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) WriteForEver(path, fds[1], round);
    close(fds[1]);
    absl::SleepFor(absl::Milliseconds(150 + 37 * round));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    const int64_t last = LastSaid(fds[0]);
    close(fds[0]);

    ASSERT_OK_AND_ASSIGN(auto store, JobStore::Open(path));
    for (int64_t i = 0; i <= last; ++i) {
      ASSERT_OK_AND_ASSIGN(const Job job, store->GetJob(JobId(absl::StrCat("j", round, "-", i))));
      EXPECT_EQ(job.revision, 4);
    }
    // Of the job that it was at, the state and the history agree.
    const JobId torn(absl::StrCat("j", round, "-", last + 1));
    if (auto job = store->GetJob(torn); job.ok()) {
      ASSERT_OK_AND_ASSIGN(const auto history, store->History(torn, 0, 1000));
      EXPECT_EQ(std::ssize(history), job->last_sequence);
      EXPECT_THAT(store->GetInputs(torn), IsOk());
    }
  }
}

// What a child found; printed by the parent through its exit code.
int FillTheDisk(const std::string& path) {
  auto store = JobStore::Open(path);
  if (!store.ok()) return 1;
  Job kept = MakeJob("kept");
  if (!(*store)->Apply(Change(kept, JobState::kQueued)).ok()) return 2;
  // As on a full disk, writes beyond the limit fail; without this the signal would end the process.
  signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{.rlim_cur = 300'000, .rlim_max = RLIM_INFINITY};
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 3;
  const JobInputs inputs{.program_text = std::string(100'000, 'p')};
  absl::Status status;
  int64_t stored = 0;
  for (; status.ok() && stored < 100; ++stored) {
    Job job = MakeJob(absl::StrCat("j", stored));
    status = (*store)->Apply(Change(job, JobState::kQueued), &inputs);
  }
  std::fprintf(stderr, "after %ld jobs: %s\n", static_cast<long>(stored),
               status.ToString().c_str());
  if (!absl::IsResourceExhausted(status)) return 4;
  if ((*store)->GetJob(JobId(absl::StrCat("j", stored - 1))).ok()) return 5;
  // Room again: the same store goes on.
  const rlimit none{.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
  if (setrlimit(RLIMIT_FSIZE, &none) != 0) return 6;
  return (*store)->Apply(Change(kept, JobState::kStarting)).ok() ? 0 : 7;
}

TEST(JobStoreCrash, SaysThatTheDiskIsFullAndGoesOnAfterwards) {
  TempDir dir;
  const std::string path = JoinPath(dir.path(), "autosp.db");
  const pid_t child = fork();
  if (child == 0) _exit(FillTheDisk(path));
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "see FillTheDisk";
  ASSERT_OK_AND_ASSIGN(auto store, JobStore::Open(path));
  ASSERT_OK_AND_ASSIGN(const Job kept, store->GetJob(JobId("kept")));
  EXPECT_EQ(kept.state, JobState::kStarting);
}

}  // namespace
}  // namespace autosp
