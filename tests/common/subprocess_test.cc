#include "common/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::HasSubstr;

SubprocessOptions Shell(const std::string& script) {
  SubprocessOptions options;
  options.argv = {"sh", "-c", script};
  return options;
}

std::string ReadAll(const UniqueFd& fd) {
  std::string text;
  char buffer[4096];
  ssize_t count;
  while ((count = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  return text;
}

std::string OutputOf(SubprocessOptions options) {
  options.output = SubprocessOptions::Output::kPipe;
  auto process = Subprocess::Start(options);
  EXPECT_THAT(process, IsOk());
  return process.ok() ? ReadAll(process->output()) : "";
}

bool IsGone(pid_t pid) { return kill(pid, 0) != 0; }

// A killed process stays as a zombie until init has reaped it, which may take its time.
bool HasEnded(pid_t pid) {
  const std::string stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096).value_or("");
  return stat.empty() || absl::StrContains(stat, ") Z ");
}

bool EndsSoon(pid_t pid) {
  for (int i = 0; i < 500 && !HasEnded(pid); ++i) absl::SleepFor(absl::Milliseconds(10));
  return HasEnded(pid);
}

// Reads a number that a child writes to `path`, waiting for it.
pid_t AwaitPid(const std::string& path) {
  for (int i = 0; i < 500; ++i) {
    const std::string text = ReadFile(path, 100).value_or("");
    pid_t pid = 0;
    if (absl::EndsWith(text, "\n") && absl::SimpleAtoi(text, &pid)) return pid;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return 0;
}

TEST(SubprocessTest, ReportsExitCodes) {
  ASSERT_OK_AND_ASSIGN(Subprocess good, Subprocess::Start(Shell("exit 0")));
  EXPECT_TRUE(good.Wait().ok());
  ASSERT_OK_AND_ASSIGN(Subprocess bad, Subprocess::Start(Shell("exit 3")));
  const ExitState state = bad.Wait();
  EXPECT_FALSE(state.ok());
  EXPECT_EQ(state.ToString(), "exited with code 3");
  EXPECT_EQ(bad.Poll()->code, 3);  // Still known after the child has gone.
}

TEST(SubprocessTest, ReportsSignals) {
  ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(Shell("kill -9 $$")));
  EXPECT_EQ(process.Wait().ToString(), "was killed by signal 9 (Killed)");
}

TEST(SubprocessTest, ReportsExitCodesWhereTheParentIgnoredThem) {
  signal(SIGCHLD, SIG_IGN);
  ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(Shell("exit 3")));
  EXPECT_EQ(process.Wait().ToString(), "exited with code 3");
}

TEST(SubprocessTest, NamesAProgramThatCannotStart) {
  SubprocessOptions options;
  options.argv = {"/nonexistent/program"};
  EXPECT_THAT(Subprocess::Start(options),
              IsError(absl::StatusCode::kNotFound,
                      "cannot start /nonexistent/program: No such file or directory"));
  options.argv = {"/etc/passwd"};
  EXPECT_THAT(Subprocess::Start(options),
              IsError(absl::StatusCode::kPermissionDenied, HasSubstr("/etc/passwd")));
  options.argv = {};
  EXPECT_THAT(Subprocess::Start(options),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("argv is empty")));
}

TEST(SubprocessTest, NamesAFolderThatIsMissing) {
  SubprocessOptions options = Shell("true");
  options.working_directory = "/nonexistent";
  EXPECT_THAT(Subprocess::Start(options), IsError(absl::StatusCode::kNotFound, HasSubstr("sh")));
  options = Shell("true");
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = "/nonexistent/log";
  EXPECT_THAT(Subprocess::Start(options),
              IsError(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/log")));
}

TEST(SubprocessTest, PassesArgumentsEnvironmentAndFolder) {
  const TempDir dir;
  SubprocessOptions options = Shell("echo \"$0 $NEW $HOME\"; pwd");
  options.argv.push_back("a b");
  options.env = {"NEW=x=y", "HOME=replaced"};
  options.working_directory = dir.path();
  EXPECT_EQ(OutputOf(options), "a b x=y replaced\n" + dir.path() + "\n");
}

TEST(SubprocessTest, GivesOnOnlyTheDescriptorsThatItIsTold) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd given(fds[0]);
  const UniqueFd kept(fds[1]);
  SubprocessOptions options = Shell(
      absl::StrCat("ls /proc/self/fd/", fds[0], " /proc/self/fd/", fds[1], " 2>/dev/null; true"));
  options.inherited_fds = {fds[0]};
  EXPECT_EQ(OutputOf(options), absl::StrCat("/proc/self/fd/", fds[0], "\n"));
  // Here it is as it was: the next child does not get it by accident.
  EXPECT_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
}

TEST(SubprocessTest, CollectsBothStreams) {
  EXPECT_EQ(OutputOf(Shell("echo out; echo err >&2")), "out\nerr\n");
}

TEST(SubprocessTest, AppendsToAFile) {
  const TempDir dir;
  SubprocessOptions options = Shell("echo line; echo problem >&2");
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = dir.Join("log");
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(options));
    EXPECT_TRUE(process.Wait().ok());
  }
  EXPECT_THAT(ReadFile(dir.Join("log"), 1000), IsOkAndHolds("line\nproblem\nline\nproblem\n"));
}

TEST(SubprocessTest, PollDoesNotWait) {
  ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(Shell("sleep 60")));
  EXPECT_EQ(process.Poll(), std::nullopt);
  EXPECT_EQ(process.WaitFor(absl::Milliseconds(30)), std::nullopt);
  EXPECT_EQ(process.Stop(absl::Seconds(10)).code, SIGTERM);
}

TEST(SubprocessTest, StopLetsTheChildFinishInGrace) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(Subprocess process,
                       Subprocess::Start(Shell("trap 'exit 7' TERM; echo $$ > " + dir.Join("pid") +
                                               "; while true; do sleep 0.01; done")));
  ASSERT_EQ(AwaitPid(dir.Join("pid")), process.pid());
  EXPECT_EQ(process.Stop(absl::Seconds(10)).ToString(), "exited with code 7");
}

TEST(SubprocessTest, StopKillsWhatDoesNotListen) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(Subprocess process,
                       Subprocess::Start(Shell("trap '' TERM; echo $$ > " + dir.Join("pid") +
                                               "; while true; do sleep 0.01; done")));
  ASSERT_NE(AwaitPid(dir.Join("pid")), 0);
  EXPECT_EQ(process.Stop(absl::Milliseconds(50)).code, SIGKILL);
}

TEST(SubprocessTest, LeavesNoGrandchild) {
  const TempDir dir;
  // The child ends at once; what it started would live for a minute.
  ASSERT_OK_AND_ASSIGN(Subprocess process,
                       Subprocess::Start(Shell(
                           "(trap '' TERM HUP; echo $$ > /dev/null; exec sleep 60) & echo $! > " +
                           dir.Join("pid"))));
  const pid_t grandchild = AwaitPid(dir.Join("pid"));
  ASSERT_NE(grandchild, 0);
  EXPECT_TRUE(process.Wait().ok());
  EXPECT_TRUE(EndsSoon(grandchild));
}

TEST(SubprocessTest, GivesNoFileThatWasNotMeantForIt) {
  const TempDir dir;
  // As libraries open files that forget O_CLOEXEC.
  const UniqueFd stray(open(dir.Join("stray").c_str(), O_RDWR | O_CREAT, 0600));
  const UniqueFd meant(open(dir.Join("meant").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  SubprocessOptions options = Shell("ls -l /proc/$$/fd");
  options.inherited_fds = {meant.get()};
  const std::string files = OutputOf(options);
  EXPECT_THAT(files, HasSubstr(dir.Join("meant")));
  EXPECT_THAT(files, testing::Not(HasSubstr(dir.Join("stray"))));
}

TEST(SubprocessTest, DestructionKillsAndReaps) {
  pid_t pid;
  {
    ASSERT_OK_AND_ASSIGN(const Subprocess process, Subprocess::Start(Shell("exec sleep 60")));
    pid = process.pid();
    EXPECT_FALSE(IsGone(pid));
  }
  EXPECT_TRUE(IsGone(pid));  // Reaped, not merely dead.
}

TEST(SubprocessTest, SurvivesTheThreadThatStartedIt) {
  SubprocessOptions options = Shell("exec sleep 60");
  options.dies_with_parent = true;
  absl::StatusOr<Subprocess> process = absl::UnknownError("not started");
  std::thread([&] { process = Subprocess::Start(options); }).join();
  ASSERT_THAT(process, IsOk());
  EXPECT_EQ(process->WaitFor(absl::Milliseconds(100)), std::nullopt);
}

// The parent that is killed in the next test. A fork of this process would not do: it would have
// only one of the threads.
TEST(SubprocessTest, DISABLED_Parent) {
  SubprocessOptions options = Shell("echo $$ > $PID_FILE; exec sleep 60");
  options.dies_with_parent = true;
  ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(options));
  process.Wait();
}

TEST(SubprocessTest, DiesWithItsParent) {
  const TempDir dir;
  SubprocessOptions options;
  options.argv = {std::filesystem::read_symlink("/proc/self/exe").string(),
                  "--gtest_also_run_disabled_tests",
                  "--gtest_filter=SubprocessTest.DISABLED_Parent"};
  options.env = {"PID_FILE=" + dir.Join("pid")};
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = dir.Join("log");
  ASSERT_OK_AND_ASSIGN(Subprocess parent, Subprocess::Start(options));
  const pid_t child = AwaitPid(dir.Join("pid"));
  ASSERT_NE(child, 0);
  EXPECT_NE(getpgid(child), parent.pid());  // Another group: only the kernel's signal reaches it.
  parent.Signal(SIGKILL);
  parent.Wait();
  EXPECT_TRUE(EndsSoon(child));
}

// Where there are too many threads, or no memory for the stack of one.
TEST(SubprocessTest, ATooFullMachineIsAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers leave no room for a limit on memory";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // Without the thread that starts processes.
  const auto start = [] {
    rlimit before = {};
    getrlimit(RLIMIT_AS, &before);
    const rlimit full = {.rlim_cur = 1, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_AS, &full);
    const absl::Status status = Subprocess::Start(Shell("exit 0")).status();
    setrlimit(RLIMIT_AS, &before);
    EXPECT_THAT(status, IsError(absl::StatusCode::kUnavailable, HasSubstr("cannot start")));
    EXPECT_THAT(Subprocess::Start(Shell("exit 0")), IsOk()) << "once there is room";
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(start(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace autosp
