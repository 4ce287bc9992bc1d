#include "server/service/compile_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
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

absl::Status Limit(int resource, int64_t bytes, const char* what) {
  const rlimit limit = {.rlim_cur = static_cast<rlim_t>(bytes),
                        .rlim_max = static_cast<rlim_t>(bytes)};
  if (setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("cannot limit ", what, " to ", FormatBytes(bytes)));
}

// Not the address space: an archive with weights, which is mapped, may be larger than the memory.
absl::Status LimitMemory(int64_t bytes) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return absl::OkStatus();  // They map more than any machine has.
#endif
  std::set_new_handler(EndForLackOfMemory);
  return Limit(RLIMIT_DATA, DataBytesNow() + bytes, "memory");
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
  if (answer.size() > kMaxCompileAnswerBytes) {
    const absl::Status too_long = ResourceExhausted(
        "the plan has ", FormatBytes(static_cast<int64_t>(answer.size())), " of text, more than ",
        FormatBytes(kMaxCompileAnswerBytes), "; split the model, or its steps, into fewer parts");
    answer = CompileAnswerToProto(too_long).SerializeAsString();
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
  InitLogging("compile");
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
