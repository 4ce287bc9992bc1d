#include "common/subprocess.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"

extern "C" char** environ;

namespace autosp {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(10);

// PR_SET_PDEATHSIG fires when the *thread* that forked ends, and RPC threads come and go. All
// children are therefore forked by one thread that lives as long as the process.
class Spawner {
 public:
  // Returns when `work` is done. An error: the thread cannot be started; a later call tries again.
  static absl::Status Run(const std::function<void()>& work) try {
    static Spawner& spawner = *new Spawner();
    std::packaged_task<void()> task(work);
    std::future<void> done = task.get_future();
    {
      const std::lock_guard lock(spawner.mutex_);
      spawner.tasks_.push_back(std::move(task));
    }
    spawner.has_tasks_.notify_one();
    done.wait();
    return absl::OkStatus();
  } catch (const std::system_error& error) {
    return ErrnoError(error.code().value(), "cannot start a thread that starts processes");
  }

 private:
  Spawner() {
    std::thread([this] { Loop(); }).detach();
  }

  [[noreturn]] void Loop() {
    while (true) {
      std::unique_lock lock(mutex_);
      has_tasks_.wait(lock, [this] { return !tasks_.empty(); });
      std::packaged_task<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable has_tasks_;
  std::deque<std::packaged_task<void()>> tasks_;  // Guarded by mutex_.
};

std::vector<std::string> MergedEnvironment(const std::vector<std::string>& changes) {
  const auto name_of = [](absl::string_view entry) { return entry.substr(0, entry.find('=')); };
  std::vector<std::string> merged = changes;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    bool is_replaced = false;
    for (const std::string& change : changes) is_replaced |= name_of(change) == name_of(*entry);
    if (!is_replaced) merged.emplace_back(*entry);
  }
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Everything that the child needs, made before the fork: afterwards only async-signal-safe calls
// are allowed, since another thread may have held malloc's lock.
struct ChildPlan {
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::vector<char*> argv_pointers;
  std::vector<char*> env_pointers;
  const char* working_directory = nullptr;
  std::vector<int> inherited_fds;
  bool dies_with_parent = false;
  int output_fd = -1;  // -1: inherit.
  int error_fd = -1;   // Closed by a successful exec, else receives errno.
  pid_t parent = 0;
};

[[noreturn]] void ReportAndExit(const ChildPlan& plan) {
  const int error_number = errno;
  [[maybe_unused]] const ssize_t ignored = write(plan.error_fd, &error_number, sizeof(int));
  _exit(127);
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  setpgid(0, 0);
  if (plan.dies_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan.parent) _exit(127);  // The parent died before the call above.
  }
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  // exec keeps what is ignored, and a child must hear a request to stop.
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) signal(number, SIG_DFL);
  if (plan.output_fd >= 0) {
    if (dup2(plan.output_fd, STDOUT_FILENO) < 0) ReportAndExit(plan);
    if (dup2(plan.output_fd, STDERR_FILENO) < 0) ReportAndExit(plan);
  }
  // A library may have opened a file without O_CLOEXEC. Older kernels than 5.11 lack this.
  close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  for (const int fd : plan.inherited_fds) {
    if (fcntl(fd, F_SETFD, 0) != 0) ReportAndExit(plan);
  }
  if (plan.working_directory != nullptr && chdir(plan.working_directory) != 0) {
    ReportAndExit(plan);
  }
  execvpe(plan.argv_pointers[0], plan.argv_pointers.data(), plan.env_pointers.data());
  ReportAndExit(plan);
}

// A parent may have left SIGCHLD ignored, which exec keeps; then the kernel reaps children itself,
// and how they ended is lost.
void KeepEndedChildren() {
  struct sigaction action = {};
  sigaction(SIGCHLD, nullptr, &action);
  if (action.sa_handler == SIG_IGN) signal(SIGCHLD, SIG_DFL);
}

absl::Status MakePipe(UniqueFd& reader, UniqueFd& writer) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "cannot make a pipe");
  reader.Reset(fds[0]);
  writer.Reset(fds[1]);
  return absl::OkStatus();
}

absl::Status OpenOutput(const SubprocessOptions& options, UniqueFd& reader, UniqueFd& writer) {
  switch (options.output) {
    case SubprocessOptions::Output::kInherit:
      return absl::OkStatus();
    case SubprocessOptions::Output::kPipe:
      return MakePipe(reader, writer);
    case SubprocessOptions::Output::kFile:
      writer.Reset(
          open(options.output_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
      if (writer.is_open()) return absl::OkStatus();
      return ErrnoError(errno, absl::StrCat("cannot open ", options.output_path));
  }
  return Internal("unknown output kind");
}

ExitState FromWaitStatus(int status) {
  if (WIFSIGNALED(status)) return {.was_signaled = true, .code = WTERMSIG(status)};
  return {.was_signaled = false, .code = WEXITSTATUS(status)};
}

ExitState Reap(pid_t pid) {
  // The child is a zombie until it is reaped, so its group id cannot have been given away yet, and
  // what it left running can be killed by that id.
  kill(-pid, SIGKILL);
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  AUTOSP_CHECK(reaped == pid, "child ", pid, " was reaped by somebody else");
  return FromWaitStatus(status);
}

bool HasEnded(pid_t pid, int extra_flags) {
  siginfo_t info;
  info.si_pid = 0;
  int result;
  do {
    result = waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT | extra_flags);
  } while (result != 0 && errno == EINTR);
  AUTOSP_CHECK(result == 0, "child ", pid, " was reaped by somebody else");
  return info.si_pid == pid;
}

// Waits for exec to succeed (the pipe closes) or for the errno of what failed.
int ReadExecError(int fd) {
  int error_number = 0;
  ssize_t count;
  do {
    count = read(fd, &error_number, sizeof(error_number));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(error_number) ? error_number : 0;
}

}  // namespace

std::string ExitState::ToString() const {
  if (!was_signaled) return absl::StrCat("exited with code ", code);
  return absl::StrCat("was killed by signal ", code, " (", sigdescr_np(code), ")");
}

absl::StatusOr<Subprocess> Subprocess::Start(const SubprocessOptions& options) {
  if (options.argv.empty()) return InvalidArgument("cannot start a program: argv is empty");
  UniqueFd output_reader, output_writer, error_reader, error_writer;
  RETURN_IF_ERROR(OpenOutput(options, output_reader, output_writer));
  RETURN_IF_ERROR(MakePipe(error_reader, error_writer));

  ChildPlan plan;
  plan.argv = options.argv;
  plan.env = MergedEnvironment(options.env);
  plan.argv_pointers = Pointers(plan.argv);
  plan.env_pointers = Pointers(plan.env);
  if (!options.working_directory.empty()) {
    plan.working_directory = options.working_directory.c_str();
  }
  plan.inherited_fds = options.inherited_fds;
  plan.dies_with_parent = options.dies_with_parent;
  plan.output_fd = output_writer.get();
  plan.error_fd = error_writer.get();
  plan.parent = getpid();

  KeepEndedChildren();
  pid_t pid = -1;
  int fork_error = 0;
  RETURN_IF_ERROR(Spawner::Run([&] {
    pid = fork();
    if (pid == 0) RunChild(plan);
    if (pid < 0) fork_error = errno;
  }));
  if (pid < 0) return ErrnoError(fork_error, absl::StrCat("cannot start ", options.argv[0]));
  // Both sides set the group, so that neither the child nor a Signal() from here comes too early.
  setpgid(pid, pid);

  Subprocess process(pid, std::move(output_reader));
  error_writer.Reset();
  if (const int error_number = ReadExecError(error_reader.get()); error_number != 0) {
    process.Wait();
    return ErrnoError(error_number, absl::StrCat("cannot start ", options.argv[0]));
  }
  return process;
}

Subprocess::~Subprocess() { KillAndReap(); }

Subprocess::Subprocess(Subprocess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      output_(std::move(other.output_)),
      exit_state_(std::exchange(other.exit_state_, std::nullopt)) {}

Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  if (this == &other) return *this;
  KillAndReap();
  pid_ = std::exchange(other.pid_, -1);
  output_ = std::move(other.output_);
  exit_state_ = std::exchange(other.exit_state_, std::nullopt);
  return *this;
}

std::optional<ExitState> Subprocess::Poll() {
  if (!exit_state_.has_value() && HasEnded(pid_, WNOHANG)) exit_state_ = Reap(pid_);
  return exit_state_;
}

ExitState Subprocess::Wait() {
  if (!exit_state_.has_value()) {
    HasEnded(pid_, 0);
    exit_state_ = Reap(pid_);
  }
  return *exit_state_;
}

std::optional<ExitState> Subprocess::WaitFor(absl::Duration timeout) {
  Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + timeout;
  while (!Poll().has_value() && clock.Steady() < deadline) {
    clock.Sleep(std::min(kPollInterval, deadline - clock.Steady()));
  }
  return exit_state_;
}

void Subprocess::Signal(int signal_number) {
  if (!Poll().has_value()) kill(-pid_, signal_number);
}

ExitState Subprocess::Stop(absl::Duration grace) {
  Signal(SIGTERM);
  if (const auto state = WaitFor(grace)) return *state;
  Signal(SIGKILL);
  return Wait();
}

void Subprocess::KillAndReap() {
  if (pid_ < 0) return;
  Signal(SIGKILL);
  Wait();
}

}  // namespace autosp
