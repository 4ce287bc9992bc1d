#include "server/service/compile_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "server/service/compile_process.h"
#include "server/service/compile_proto.h"

namespace autosp {
namespace {

std::string PathOfFd(const char* fd) { return absl::StrCat("/proc/self/fd/", fd); }

// The coordinator ends this process, and with SIGKILL. What is sent to all processes of a service
// must not look like a crash.
void LeaveSignalsToTheCoordinator() {
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGXFSZ}) signal(number, SIG_IGN);
  const UniqueFd nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (nothing.is_open()) dup2(nothing.get(), STDIN_FILENO);
}

// exec of a program with capabilities of its own (setcap) takes back what the coordinator has asked
// of the kernel: to end this process with it.
void EndWithTheCoordinator(const char* its_pid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (absl::StrCat(getppid()) != its_pid) _exit(1);  // It has ended before the call above.
}

// What a stranger's archive makes crash would leave one each time.
void LeaveNoCore() {
  const rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &none);
}

// Where memory runs out the kernel shall end this process, not the coordinator.
void OfferToMemoryKiller() {
  const UniqueFd fd(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd.is_open()) WriteAll(fd.get(), "1000", "oom_score_adj").IgnoreError();
}

// Private and writable: the sixth number of statm, in pages.
int64_t DataBytesNow() {
  const std::string statm = ReadFile("/proc/self/statm", 4096).value_or("");
  const std::vector<absl::string_view> numbers = absl::StrSplit(statm, ' ');
  int64_t pages = 0;
  if (numbers.size() < 6 || !absl::SimpleAtoi(numbers[5], &pages)) return 0;
  return pages * sysconf(_SC_PAGESIZE);
}

[[noreturn]] void EndForLackOfMemory() { _exit(kCompileChildOutOfMemory); }
[[noreturn]] void EndForLackOfAllMemory() { _exit(kCompileChildOutOfAllMemory); }

// Where the coordinator itself may have less, that stays the limit: only root could raise it.
absl::Status Limit(int resource, int64_t bytes, const char* what) {
  const auto kind = static_cast<__rlimit_resource>(resource);
  rlimit limit = {};
  if (getrlimit(kind, &limit) == 0) {
    limit.rlim_max = std::min(limit.rlim_max, static_cast<rlim_t>(bytes));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(kind, &limit) == 0) return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrCat("cannot limit ", what, " to ", FormatBytes(bytes)));
}

// That the answer may have: no write may go past the limit on files.
int64_t MaxAnswerBytes() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return kMaxCompileAnswerBytes;
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, kMaxCompileAnswerBytes));
}

absl::Status TooLongAnswer(size_t size, int64_t max_bytes) {
  const std::string what = absl::StrCat("the plan has ", FormatBytes(static_cast<int64_t>(size)),
                                        " of text, more than ", FormatBytes(max_bytes));
  if (max_bytes < kMaxCompileAnswerBytes) {
    return ResourceExhausted(what,
                             ", to which the coordinator's files are limited; raise its "
                             "`ulimit -f`, or LimitFSIZE of its unit");
  }
  return ResourceExhausted(what, "; split the model, or its steps, into fewer parts");
}

// Not the address space: an archive with weights, which is mapped, may be larger than the memory.
absl::Status LimitMemory(int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return absl::OkStatus();  // They map more than any machine has.
#endif
  const int64_t now = DataBytesNow();
  const int64_t wanted = now + std::min(bytes, std::numeric_limits<int64_t>::max() - now);
  rlimit limit = {};
  const bool may_have_it =
      getrlimit(RLIMIT_DATA, &limit) != 0 || static_cast<rlim_t>(wanted) <= limit.rlim_max;
  std::set_new_handler(may_have_it ? EndForLackOfMemory : EndForLackOfAllMemory);
  return Limit(RLIMIT_DATA, wanted, "memory");
}

// The stack is no data: where `ulimit -s` sets no bound, a recursion that does not end would take
// all memory. Whoever wants less has set less.
void LimitStack() {
  constexpr rlim_t kMaxStackBytes = 64 << 20;
  rlimit limit = {};
  if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur <= kMaxStackBytes) return;
  limit.rlim_cur = kMaxStackBytes;
  setrlimit(RLIMIT_STACK, &limit);
}

absl::StatusOr<CompiledJob> Compile(const v1::CompileRequest& request, const Compiler& compiler) {
  RETURN_IF_ERROR(LimitMemory(request.memory_limit_bytes()));
  return CompileHere(compiler, CompileRequestFromProto(request));
}

absl::Status Run(const char* request_fd, const char* answer_fd, const Compiler& compiler) {
  ASSIGN_OR_RETURN(const std::string bytes,
                   ReadFile(PathOfFd(request_fd), kMaxCompileRequestBytes));
  v1::CompileRequest request;
  if (!request.ParseFromString(bytes)) return Internal("the request cannot be read");
  std::string answer = CompileAnswerToProto(Compile(request, compiler)).SerializeAsString();
  const int64_t max_bytes = MaxAnswerBytes();
  if (static_cast<int64_t>(answer.size()) > max_bytes) {
    answer = CompileAnswerToProto(TooLongAnswer(answer.size(), max_bytes)).SerializeAsString();
  }
  int fd = -1;
  if (!absl::SimpleAtoi(answer_fd, &fd)) return InvalidArgument(answer_fd, " is no descriptor");
  return WriteAll(fd, answer, "the answer");
}

}  // namespace

bool IsCompileChild(int argc, char** argv) {
  return argc == kCompileChildArgc && std::strcmp(argv[1], kCompileChildMode) == 0;
}

int RunCompileChild(char** argv, const Compiler& compiler) {
  prctl(PR_SET_NAME, "autosp-compile");
  EndWithTheCoordinator(argv[4]);
  InitLogging("compile");
  LeaveNoCore();
  LeaveSignalsToTheCoordinator();
  OfferToMemoryKiller();
  LimitStack();
  absl::Status status = Limit(RLIMIT_FSIZE, kMaxCompileAnswerBytes, "files");
  if (status.ok()) status = Run(argv[2], argv[3], compiler);
  if (status.ok()) return 0;
  LogError(status.message());
  return 1;
}

}  // namespace autosp
