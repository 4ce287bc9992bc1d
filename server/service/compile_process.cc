#include "server/service/compile_process.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/bytes.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/subprocess.h"
#include "server/service/compile_child.h"
#include "server/service/compile_proto.h"
#include "server/service/limits.h"

namespace autosp {
namespace {

// What Linux starts for this name is the program that runs, whatever has its path by now.
constexpr char kThisProgram[] = "/proc/self/exe";

constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
// Between the end of its output and its own there is next to nothing.
constexpr absl::Duration kEndInterval = absl::Milliseconds(1);
constexpr size_t kReadBytes = 1 << 12;
// The end of its output: for the log, and for the caller, whom gRPC gives no long messages.
constexpr size_t kLoggedOutputBytes = 4000;
constexpr size_t kShownOutputBytes = 500;

// Reasons of errors that are no words of the compiler.
constexpr char kNotStartedReason[] = "COMPILER_NOT_STARTED";
constexpr char kTimeReason[] = "COMPILE_TIME";
constexpr char kMemoryReason[] = "COMPILE_MEMORY";
constexpr char kKilledReason[] = "COMPILER_KILLED";
constexpr char kCrashedReason[] = "COMPILER_CRASHED";

// In memory, without a name; goes when nobody has it open.
absl::StatusOr<UniqueFd> MakeMemoryFile(const char* name) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC));
  if (!fd.is_open()) return ErrnoError(errno, "cannot make a file in memory");
  return fd;
}

// How long a child that was killed may take to end. One that waits for a disk that hangs does not
// end until that answers, and nobody shall wait for it as long.
constexpr absl::Duration kKillPatience = absl::Seconds(1);

// Whether somebody has ended the process, the kernel for lack of memory among them. It ends by any
// other signal through a fault of its own.
bool IsFromOutside(int signal_number) {
  return signal_number == SIGKILL || signal_number == SIGTERM || signal_number == SIGINT ||
         signal_number == SIGHUP;
}

// One job in one child.
class Compilation {
 public:
  Compilation(const CompileLimits& limits, const JobToCompile& job)
      : limits_(limits), job_(job), id_(RandomId("compile")), begin_(Clock::Real().Steady()) {}

  absl::StatusOr<CompiledJob> Run(const std::function<bool()>& is_unwanted) {
    if (const absl::Status status = Start(); !status.ok()) return NotStarted(status);
    const absl::StatusOr<ExitState> exit = AwaitEnd(is_unwanted);
    absl::StatusOr<CompiledJob> compiled =
        exit.ok() ? Answer(*exit) : absl::StatusOr<CompiledJob>(exit.status());
    if (!exit.ok()) Kill();
    if (!output_.empty()) {
      LogWarning(id_, " of job ", job_.name, " has written: ", Tail(kLoggedOutputBytes));
    }
    return compiled;
  }

 private:
  absl::Status Start() {
    ASSIGN_OR_RETURN(const UniqueFd request, MakeMemoryFile("autosp-compile-request"));
    ASSIGN_OR_RETURN(answer_, MakeMemoryFile("autosp-compile-answer"));
    RETURN_IF_ERROR(WriteAll(request.get(),
                             CompileRequestToProto(job_, limits_.memory_bytes).SerializeAsString(),
                             "the request"));
    SubprocessOptions options;
    options.argv = {kThisProgram, kCompileChildMode, absl::StrCat(request.get()),
                    absl::StrCat(answer_.get()), absl::StrCat(getpid())};
    options.output = SubprocessOptions::Output::kPipe;
    options.inherited_fds = {request.get(), answer_.get()};
    options.dies_with_parent = true;
    ASSIGN_OR_RETURN(process_, Subprocess::Start(options));
    return absl::OkStatus();
  }

  // An error: the child is to be killed.
  absl::StatusOr<ExitState> AwaitEnd(const std::function<bool()>& is_unwanted) {
    while (true) {
      ReadOutput(kPollInterval);
      if (const std::optional<ExitState> exit = process_->Poll()) {
        while (ReadOutput(absl::ZeroDuration())) {
        }
        return *exit;
      }
      if (is_unwanted()) return Cancelled("nobody waits for the plan of job ", job_.name);
      if (Clock::Real().Steady() - begin_ > limits_.time) return OutOfTime();
    }
  }

  void Kill() {
    process_->Signal(SIGKILL);
    if (process_->WaitFor(kKillPatience)) return;
    LogWarning(id_, ", process ", process_->pid(), ", does not end although it was killed: does ",
               "it wait for a disk that hangs?");
    std::thread([process = *std::move(process_), id = id_]() mutable {
      process.Wait();
      LogInfo(id, ", process ", process.pid(), ", has ended");
    }).detach();
    process_.reset();
  }

  // Waits for some, up to `patience`. Whether there was any.
  bool ReadOutput(absl::Duration patience) {
    if (is_output_over_) {
      Clock::Real().Sleep(std::min(patience, kEndInterval));
      return false;
    }
    pollfd ready = {.fd = process_->output().get(), .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) return false;
    char bytes[kReadBytes];
    const ssize_t count = read(ready.fd, bytes, sizeof(bytes));
    is_output_over_ = count == 0;
    if (count <= 0) return false;
    output_.append(bytes, static_cast<size_t>(count));
    if (output_.size() > 2 * kLoggedOutputBytes) output_ = Tail(kLoggedOutputBytes);
    return true;
  }

  std::string Tail(size_t max_bytes) const {
    const absl::string_view text = absl::StripTrailingAsciiWhitespace(output_);
    return std::string(text.substr(text.size() - std::min(text.size(), max_bytes)));
  }

  absl::StatusOr<CompiledJob> Answer(const ExitState& exit) const {
    if (exit.ok()) {
      // By this name the file is read from its beginning, wherever the child has left it.
      const absl::StatusOr<std::string> bytes =
          ReadFile(absl::StrCat("/proc/self/fd/", answer_.get()), kMaxCompileAnswerBytes);
      if (!bytes.ok())
        return Crashed(absl::StrCat("has left no answer: ", bytes.status().message()));
      auto answer = CompileAnswerFromProto(*bytes);
      return answer ? *std::move(answer) : Crashed("has left no whole answer");
    }
    if (!exit.was_signaled && exit.code == kCompileChildOutOfMemory) return OutOfMemory();
    if (!exit.was_signaled && exit.code == kCompileChildOutOfAllMemory) return OutOfAllMemory();
    if (exit.was_signaled && IsFromOutside(exit.code)) return Killed(exit);
    if (exit.was_signaled && exit.code == SIGBUS) return LostItsFile(exit);
    return Crashed(exit.ToString());
  }

  absl::Status NotStarted(const absl::Status& why) const {
    return Failed(kNotStartedReason,
                  Unavailable(Subject(), "no process can be started that plans it: ", why.message(),
                              "; ", RemedyOfStart(why), ", then submit again"));
  }

  static const char* RemedyOfStart(const absl::Status& why) {
    if (absl::IsPermissionDenied(why)) {
      return "the user of the coordinator must be allowed to execute its program, which must not "
             "be on a file system that is mounted noexec";
    }
    if (absl::IsNotFound(why)) return "the coordinator needs /proc: mount it";
    return "look at the coordinator's limits on memory, processes, open files and the size of "
           "files";
  }

  absl::Status OutOfTime() const {
    return Failed(kTimeReason,
                  ResourceExhausted(Subject(), "planning it has taken longer than ",
                                    absl::FormatDuration(limits_.time),
                                    ", which is the limit; raise --compile-seconds of the "
                                    "coordinator; if `autosp-cli plan` does not end either, "
                                    "report it with the job file and the archive"));
  }

  absl::Status OutOfAllMemory() const {
    return Failed(kMemoryReason,
                  ResourceExhausted(Subject(),
                                    "planning it needs more memory than a process of "
                                    "the coordinator may have; raise its `ulimit -d`, or "
                                    "LimitDATA of its unit"));
  }

  absl::Status OutOfMemory() const {
    return Failed(kMemoryReason,
                  ResourceExhausted(Subject(), "planning it needs more than ",
                                    FormatBytes(limits_.memory_bytes),
                                    " of memory, which is the limit; raise --compile-memory of "
                                    "the coordinator; if the model is not unusually large, "
                                    "report it with the job file and the archive"));
  }

  absl::Status Killed(const ExitState& exit) const {
    return Failed(kKilledReason,
                  ResourceExhausted(Subject(), "the process that planned it ", exit.ToString(),
                                    "; the kernel does that where memory runs out: give the "
                                    "coordinator more, or lower --compile-memory; if somebody "
                                    "else did it, submit again"));
  }

  // A file that is mapped has become shorter, or its disk does not give it.
  absl::Status LostItsFile(const ExitState& exit) const {
    return Failed(
        "FILE_CHANGED",
        FailedPrecondition(Subject(), "the process that planned it ", exit.ToString(),
                           ": its archive or weights were changed or could not be read meanwhile; "
                           "submit again once they are whole, and replace them by renaming new "
                           "files rather than writing into them"));
  }

  absl::Status Crashed(const std::string& how) const {
    std::string output = Tail(kShownOutputBytes);
    // Messages are UTF-8, and what a process that crashes writes may be anything.
    std::ranges::replace_if(
        output, [](unsigned char c) { return !absl::ascii_isprint(c) && c != '\n'; }, '?');
    return Failed(
        kCrashedReason,
        Internal(Subject(), "the process that planned it ", how,
                 "; this is a fault of AutoSP: please report it with the job file, the "
                 "archive and what the coordinator's log says of ",
                 id_, output.empty() ? "" : absl::StrCat("; its output ends with: ", output)));
  }

  std::string Subject() const { return absl::StrCat("job ", job_.name, " was not planned: "); }

  absl::Status Failed(const char* reason, const absl::Status& status) const {
    const absl::Duration taken = Clock::Real().Steady() - begin_;
    const std::string process = process_ ? absl::StrCat(", process ", process_->pid()) : "";
    LogError(id_, process, ", after ",
             absl::FormatDuration(absl::Trunc(taken, absl::Milliseconds(1))), ": ",
             status.message());
    return WithErrorInfo(status, {.reason = reason, .subject = job_.name});
  }

  const CompileLimits& limits_;
  const JobToCompile& job_;
  const std::string id_;  // in the log
  const absl::Duration begin_;
  UniqueFd answer_;
  std::optional<Subprocess> process_;
  std::string output_;  // the end of it
  bool is_output_over_ = false;
};

}  // namespace

int64_t CompileMemoryOf(int64_t machine_bytes) { return machine_bytes / 5 * 4 / kMaxCompiles; }

bool IsCompilerFailure(const absl::Status& status) {
  const std::string reason = GetErrorInfo(status).reason;
  return reason == kNotStartedReason || reason == kTimeReason || reason == kMemoryReason ||
         reason == kKilledReason || reason == kCrashedReason;
}

JobCompiler InChildProcess(CompileLimits limits) {
  return [limits](const JobToCompile& job, const std::function<bool()>& is_unwanted) {
    return Compilation(limits, job).Run(is_unwanted);
  };
}

}  // namespace autosp
