// Compilers that crash, never end or take all memory, in a child process: this program itself, as
// the coordinator is its own.
#include "server/service/compile_process.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/file.h"
#include "common/subprocess.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "proto/shutting_down.h"
#include "server/service/compile_proto.h"
#include "server/service/coordinator_server.h"
#include "server/service/limits.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"
#include "tests/server/service/fake_compile.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string ListOpenFiles() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (!error && !target.ends_with("/fd")) files.push_back(target.substr(0, target.find(':')));
  }
  std::ranges::sort(files);
  return absl::StrJoin(files, " ");
}

// Takes so much of the stack, page by page.
int64_t Recurse(int64_t bytes) {
  volatile char page[4096];
  page[0] = 1;
  return bytes <= 0 ? page[0] : Recurse(bytes - 4096) + page[0];
}

// As one in a system call that a hung disk does not end: while another process traces it, nobody
// sees that it was killed.
constexpr absl::Duration kHang = absl::Seconds(6);
constexpr char kCannotTrace[] = "no process may trace another here";

absl::Status BeTraced() {
  const pid_t traced = getpid();
  int ready[2];
  if (pipe(ready) != 0) std::abort();
  if (fork() == 0) {
    setpgid(0, 0);  // It would be killed too.
    const bool ok = ptrace(PTRACE_SEIZE, traced, nullptr, nullptr) == 0;
    if (write(ready[1], ok ? "y" : "n", 1) != 1 || !ok) _exit(1);
    Clock::Real().Sleep(kHang);
    _exit(0);
  }
  char answer = 'n';
  if (read(ready[0], &answer, 1) != 1 || answer != 'y') return Unimplemented(kCannotTrace);
  while (true) pause();
}

std::string TellLimits() {
  rlimit core = {};
  getrlimit(RLIMIT_CORE, &core);
  int death_signal = 0;
  prctl(PR_GET_PDEATHSIG, &death_signal);
  return absl::StrCat("core ", core.rlim_max, ", death signal ", death_signal);
}

// A character of two bytes, which take six in a header.
constexpr char kOddName[] = "\xc3\xb6";

// The name of the job says what becomes of its compiler.
absl::StatusOr<CompiledPlan> OddCompile(const JobSpec& job, const ClusterSpec& cluster) {
  if (job.name == "crashes") raise(SIGSEGV);
  if (job.name == "is-killed") raise(SIGKILL);
  if (job.name == "loses-its-file") raise(SIGBUS);
  if (job.name == "cannot-be-ended") return BeTraced();
  if (job.name == "tells-limits") return NotFound(TellLimits());
  if (job.name == "tells-memory-limit") {
    rlimit data = {};
    getrlimit(RLIMIT_DATA, &data);
    return NotFound(data.rlim_cur);
  }
  if (job.name == "exits") std::_Exit(3);
  if (job.name == "exits-as-if-well") std::_Exit(0);
  if (job.name == "aborts") {
    for (int i = 0; i < 1000; ++i) std::fprintf(stderr, "line %d of a long report\n", i);
    std::fprintf(stderr, "the last words \xff\n");
    std::abort();
  }
  while (job.name.starts_with("never-ends")) pause();
  if (job.name == "recurses" && Recurse(128 << 20) == 0) std::abort();
  std::vector<std::string> blocks;
  while (job.name == "takes-all-memory") blocks.emplace_back(1 << 20, 'x');
  if (job.name == "lists-files") return NotFound(ListOpenFiles());
  if (job.name == "says-a-lot") {
    std::string names;
    for (int i = 0; i < 10'000; ++i) names += kOddName;
    return WithErrorInfo(NotFound("no such op: ", names, "; rename it"),
                         {.subject = names, .remedy = names, .metadata = {{"op", names}}});
  }
  if (job.name == "is-refused") {
    return WithErrorInfo(NotFound("no \xff here"), {.reason = "NO_FF",
                                                    .subject = "model.archive",
                                                    .remedy = "look elsewhere",
                                                    .metadata = {{"place", "here"}}});
  }
  return FakeCompile(job, cluster);
}

Compiler OddCompiler() { return {OddCompile, FakeVerification}; }

std::string YamlOf(const std::string& name) {
  return absl::StrCat("version: 1\nkind: Job\nname: ", name,
                      "\nmodel: {archive: /m.pt2}\ndata: {format: text, files: [/a.txt]}\n"
                      "training: {seq_len: 64, global_batch_size: 2, steps: 5}\n"
                      "output: {dir: /out}\n");
}

constexpr char kThisTest[] = "/proc/self/exe";
// As argument of a copy of this program.
constexpr char kWithoutExecution[] = "without-execution";

JobToCompile JobOf(const std::string& name) {
  return {.name = name, .job_yaml = YamlOf(name), .cluster = LocalCluster()};
}

absl::StatusOr<CompiledJob> CompileInChild(const std::string& name, CompileLimits limits = {}) {
  return InChildProcess(limits)(JobOf(name), [] { return false; });
}

// Those of this process that compile.
int NumChildren() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string stat = ReadFile((entry.path() / "stat").string(), 4096).value_or("");
    // "PID (NAME) STATE PARENT ..."
    const std::vector<std::string> words = absl::StrSplit(stat, ' ');
    count +=
        words.size() > 3 && words[1] == "(autosp-compile)" && words[3] == absl::StrCat(getpid());
  }
  return count;
}

bool WaitFor(const std::function<bool()>& is_true) {
  for (int i = 0; i < 2000 && !is_true(); ++i) Clock::Real().Sleep(absl::Milliseconds(5));
  return is_true();
}

TEST(CompileProcessTest, APlanIsThatOfThisProcess) {
  for (const char* name : {"any", kUnprovedJob}) {
    ASSERT_OK_AND_ASSIGN(const CompiledJob here, CompileHere(OddCompiler(), JobOf(name)));
    ASSERT_OK_AND_ASSIGN(const CompiledJob there, CompileInChild(name));
    EXPECT_EQ(there.program_text, here.program_text);
    EXPECT_EQ(there.plan_digest, here.plan_digest);
    EXPECT_EQ(there.plan_text, here.plan_text);
    EXPECT_EQ(there.summary.SerializeAsString(), here.summary.SerializeAsString());
    ASSERT_EQ(there.verification.has_value(), name == std::string(kUnprovedJob));
    ASSERT_EQ(here.verification.has_value(), there.verification.has_value());
    if (!there.verification) continue;
    EXPECT_EQ(there.verification->attempt, here.verification->attempt);
    EXPECT_EQ(there.verification->digest, here.verification->digest);
  }
  EXPECT_EQ(NumChildren(), 0);
}

TEST(CompileProcessTest, TheClusterArrivesAsItIs) {
  JobToCompile job = JobOf("any");
  job.cluster.nodes = {
      {.name = "a", .address = "a:1", .devices = 8, .device_memory_bytes = int64_t{80} << 30},
      {.name = "\xff",
       .address = "",
       .devices = 0,
       .kind = DeviceKind::kH100_80gb,
       .host_memory_bytes = 0}};
  job.cluster.links = {.intra_node_gb_per_s = 0.1, .inter_node_gb_per_s = 1e-300};
  v1::CompileRequest request;
  ASSERT_TRUE(request.ParseFromString(CompileRequestToProto(job, 7).SerializeAsString()));
  EXPECT_EQ(CompileRequestFromProto(request).cluster, job.cluster);
  EXPECT_EQ(CompileRequestFromProto(request).job_yaml, job.job_yaml);
  EXPECT_EQ(request.memory_limit_bytes(), 7);
}

TEST(CompileProcessTest, ARefusalIsThatOfTheCompiler) {
  const absl::Status here = CompileHere(OddCompiler(), JobOf("is-refused")).status();
  const absl::Status there = CompileInChild("is-refused").status();
  EXPECT_THAT(there, IsError(absl::StatusCode::kNotFound, "no \xff here"));
  EXPECT_EQ(GetErrorInfo(there), GetErrorInfo(here));
  EXPECT_THAT(CompileInChild("cannot-be-planned"),
              IsError(absl::StatusCode::kInvalidArgument, "model.archive: it is too odd"));
}

TEST(CompileProcessTest, ACrashIsAFaultOfOursAndNamesTheSignal) {
  testing::internal::CaptureStderr();
  const absl::Status status = CompileInChild("crashes").status();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(status,
              IsError(absl::StatusCode::kInternal,
                      AllOf(HasSubstr("job crashes was not planned: the process that planned it "
                                      "was killed by signal 11 (Segmentation fault)"),
                            HasSubstr("this is a fault of AutoSP: please report it"),
                            HasSubstr("what the coordinator's log says of compile-"))));
  const std::string message(status.message());
  const std::string id = message.substr(message.find("compile-"));
  EXPECT_THAT(log, AllOf(HasSubstr(id), HasSubstr("signal 11 (Segmentation fault)")));
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILER_CRASHED");
  EXPECT_EQ(GetErrorInfo(status).subject, "crashes");
  EXPECT_TRUE(IsCompilerFailure(status));
}

TEST(CompileProcessTest, LastWordsAreInTheLogAndInTheAnswer) {
  testing::internal::CaptureStderr();
  const absl::Status status = CompileInChild("aborts").status();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInternal, AllOf(HasSubstr("signal 6 (Aborted)"),
                                                                 HasSubstr("the last words ?"))));
  EXPECT_LT(status.message().size(), 1500u) << "gRPC refuses long messages";
  EXPECT_THAT(log, AllOf(HasSubstr("of job aborts has written"), HasSubstr("the last words")));
  EXPECT_LT(log.size(), 10'000u);
  EXPECT_THAT(CompileInChild("exits"),
              IsError(absl::StatusCode::kInternal, HasSubstr("exited with code 3")));
}

TEST(CompileProcessTest, AnAnswerThatIsNotWholeIsNone) {
  EXPECT_THAT(CompileInChild("exits-as-if-well"),
              IsError(absl::StatusCode::kInternal,
                      AllOf(HasSubstr("has left no whole answer"), HasSubstr("fault of AutoSP"))));
  ASSERT_OK_AND_ASSIGN(const CompiledJob job, CompileHere(OddCompiler(), JobOf("any")));
  const std::string answer = CompileAnswerToProto(job).SerializeAsString();
  EXPECT_TRUE(CompileAnswerFromProto(answer).has_value());
  EXPECT_FALSE(CompileAnswerFromProto(answer.substr(0, answer.size() / 2)).has_value());
  v1::CompileAnswer no_error;
  no_error.mutable_error()->set_message("all is well");
  EXPECT_FALSE(CompileAnswerFromProto(no_error.SerializeAsString()).has_value());
}

TEST(CompileProcessTest, WhatTakesTooLongIsEnded) {
  const absl::Status status =
      CompileInChild("never-ends", {.time = absl::Milliseconds(300)}).status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kResourceExhausted,
                              AllOf(HasSubstr("job never-ends was not planned: planning it has "
                                              "taken longer than 300ms"),
                                    HasSubstr("raise --compile-seconds"))));
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILE_TIME");
  EXPECT_TRUE(IsCompilerFailure(status));
  EXPECT_EQ(NumChildren(), 0);
}

TEST(CompileProcessTest, WhatTakesTooMuchMemoryIsEnded) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers leave no room for a limit on memory";
#endif
  const CompileLimits limits{.memory_bytes = 64 << 20};
  const absl::Status status = CompileInChild("takes-all-memory", limits).status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kResourceExhausted,
                              AllOf(HasSubstr("needs more than 64.0 MiB of memory"),
                                    HasSubstr("raise --compile-memory"))));
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILE_MEMORY");
  EXPECT_THAT(CompileInChild("any", limits), IsOk()) << "the program itself does not count";
}

TEST(CompileProcessTest, TheStackHasALimitOfItsOwn) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_STACK, &before), 0);
  const rlimit large = {.rlim_cur = 512 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_STACK, &large), 0);
  EXPECT_THAT(CompileInChild("recurses"),
              IsError(absl::StatusCode::kInternal, HasSubstr("signal 11 (Segmentation fault)")));
  ASSERT_EQ(setrlimit(RLIMIT_STACK, &before), 0);
}

TEST(CompileProcessTest, AKillIsNoFaultOfTheCompiler) {
  const absl::Status status = CompileInChild("is-killed").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kResourceExhausted,
                              AllOf(HasSubstr("was killed by signal 9 (Killed)"),
                                    HasSubstr("where memory runs out"))));
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILER_KILLED");
}

TEST(CompileProcessTest, AFileThatChangesIsNoFaultOfTheCompiler) {
  const absl::Status status = CompileInChild("loses-its-file").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kFailedPrecondition,
                              AllOf(HasSubstr("was killed by signal 7 (Bus error)"),
                                    HasSubstr("its archive or weights were changed"),
                                    HasSubstr("submit again"))));
  EXPECT_EQ(GetErrorInfo(status).reason, "FILE_CHANGED");
}

TEST(CompileProcessTest, NobodyWaitsForAChildThatCannotBeEnded) {
  const absl::Duration begin = Clock::Real().Steady();
  const absl::Status status =
      CompileInChild("cannot-be-ended", {.time = absl::Milliseconds(500)}).status();
  if (status.message() == kCannotTrace) GTEST_SKIP() << kCannotTrace;
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILE_TIME") << status;
  EXPECT_LT(Clock::Real().Steady() - begin, kHang / 2);
  EXPECT_EQ(NumChildren(), 1);
  EXPECT_TRUE(WaitFor([] { return NumChildren() == 0; })) << "it is reaped once it has ended";
}

// Runs a test of this file in a process of its own; what it has written and how it has ended.
std::string RunAlone(const std::string& test) {
  SubprocessOptions options;
  options.argv = {kThisTest, "--gtest_also_run_disabled_tests",
                  "--gtest_filter=CompileProcessTest." + test};
  options.output = SubprocessOptions::Output::kPipe;
  absl::StatusOr<Subprocess> process = Subprocess::Start(options);
  if (!process.ok()) return process.status().ToString();
  std::string output;
  char bytes[4096];
  ssize_t count;
  while ((count = read(process->output().get(), bytes, sizeof(bytes))) > 0) {
    output.append(bytes, static_cast<size_t>(count));
  }
  return output + process->Wait().ToString();
}

// Such as only root could raise; and as root this process and its children lose that right.
void SetHardLimit(int resource, rlim_t bytes) {
  prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
  const rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
  ASSERT_EQ(setrlimit(static_cast<__rlimit_resource>(resource), &limit), 0);
}

TEST(CompileProcessTest, DISABLED_LimitOnFiles) {
  signal(SIGXFSZ, SIG_IGN);
  SetHardLimit(RLIMIT_FSIZE, 1 << 20);
  EXPECT_THAT(CompileInChild(kUnprovedJob), IsOk());
  SetHardLimit(RLIMIT_FSIZE, 700);  // The request and an error fit.
  EXPECT_THAT(CompileInChild(kUnprovedJob),
              IsError(absl::StatusCode::kResourceExhausted,
                      HasSubstr("raise its `ulimit -f`, or LimitFSIZE")));
}

TEST(CompileProcessTest, ALimitOnFilesStaysAsItIs) {
  EXPECT_THAT(RunAlone("DISABLED_LimitOnFiles"), testing::EndsWith("exited with code 0"));
}

TEST(CompileProcessTest, DISABLED_LimitOnMemory) {
  SetHardLimit(RLIMIT_DATA, 512 << 20);
  EXPECT_THAT(CompileInChild("any"), IsOk());
  EXPECT_THAT(CompileInChild("takes-all-memory"),
              IsError(absl::StatusCode::kResourceExhausted,
                      HasSubstr("raise its `ulimit -d`, or LimitDATA")));
}

TEST(CompileProcessTest, ALimitOnMemoryStaysAsItIs) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers leave no room for a limit on memory";
#endif
  EXPECT_THAT(RunAlone("DISABLED_LimitOnMemory"), testing::EndsWith("exited with code 0"));
}

TEST(CompileProcessTest, TheLargestLimitOnMemoryDoesNotOverflow) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers leave no room for a limit on memory";
#endif
  const CompileLimits limits{.memory_bytes = std::numeric_limits<int64_t>::max()};
  EXPECT_THAT(CompileInChild("tells-memory-limit", limits),
              IsError(absl::StatusCode::kNotFound, absl::StrCat(limits.memory_bytes)));
}

TEST(CompileProcessTest, TheChildLeavesNoCoreAndEndsWithTheCoordinator) {
  rlimit core = {};
  ASSERT_EQ(getrlimit(RLIMIT_CORE, &core), 0);
  core.rlim_cur = core.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_CORE, &core), 0);
  EXPECT_THAT(CompileInChild("tells-limits"),
              IsError(absl::StatusCode::kNotFound, "core 0, death signal 9"));
}

TEST(CompileProcessTest, AChildOfACoordinatorThatHasEndedEnds) {
  SubprocessOptions options;
  options.argv = {kThisTest, "compile-child", "0", "1", "1"};
  options.output = SubprocessOptions::Output::kPipe;
  auto child = Subprocess::Start(options);
  ASSERT_THAT(child, IsOk());
  // At once, without a look at its request, of which it would complain.
  char byte = 0;
  EXPECT_EQ(read(child->output().get(), &byte, 1), 0);
  const ExitState exit = child->Wait();
  EXPECT_EQ(exit.code, 1) << exit.ToString();
}

TEST(CompileProcessTest, WhatKeepsItFromStartingIsNamed) {
  const TempDir dir;
  const std::string copy = dir.Join("copy");
  std::filesystem::copy_file(kThisTest, copy);
  SubprocessOptions options;
  options.argv = {copy, kWithoutExecution};
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = dir.Join("output");
  ASSERT_OK_AND_ASSIGN(Subprocess process, Subprocess::Start(options));
  EXPECT_TRUE(process.Wait().ok());
  EXPECT_THAT(ReadFile(options.output_path, 10'000).value_or(""),
              AllOf(HasSubstr("cannot start /proc/self/exe: Permission denied"),
                    HasSubstr("must be allowed to execute its program"), HasSubstr("noexec")));
}

TEST(CompileProcessTest, TheChildHasNoFilesOfThisProcess) {
  const TempDir dir;
  // As a library might: it would be inherited.
  const UniqueFd stray(open(dir.Join("stray").c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_TRUE(stray.is_open());
  // Input, output twice, request and answer.
  EXPECT_THAT(CompileInChild("lists-files"),
              IsError(absl::StatusCode::kNotFound, "/dev/null /memfd /memfd pipe pipe"));
}

TEST(CompileProcessTest, TwoCompilationsLeaveAFifthOfTheMemory) {
  EXPECT_EQ(CompileMemoryOf(1000), 400);
}

// The coordinator with such a compiler.
class CompileServerTest : public testing::Test {
 protected:
  CompileServerTest() {
    absl::StatusOr<std::unique_ptr<CoordinatorServer>> server = CoordinatorServer::Start(
        {.state_dir = dir_.path()}, InChildProcess({.time = absl::Seconds(60)}));
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
    stub_ = v1::CoordinatorService::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials()));
  }

  absl::Status Submit(const std::string& name, grpc::ClientContext& context) {
    v1::SubmitJobRequest request;
    request.set_request_id("request-" + name);
    request.set_job_yaml(YamlOf(name));
    v1::SubmitJobResponse response;
    return FromGrpcStatus(stub_->SubmitJob(&context, request, &response));
  }
  absl::Status Submit(const std::string& name) {
    grpc::ClientContext context;
    return Submit(name, context);
  }

  int NumJobs() {
    grpc::ClientContext context;
    v1::ListJobsResponse jobs;
    EXPECT_TRUE(stub_->ListJobs(&context, {}, &jobs).ok());
    return jobs.jobs_size();
  }

  TempDir dir_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::CoordinatorService::Stub> stub_;
};

TEST_F(CompileServerTest, OutlivesItsCompilers) {
  const absl::Status crash = Submit("crashes");
  EXPECT_THAT(crash, IsError(absl::StatusCode::kInternal, HasSubstr("signal 11")));
  EXPECT_EQ(GetErrorInfo(crash).reason, "COMPILER_CRASHED");
  EXPECT_THAT(Submit("is-killed"),
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("signal 9")));
  const absl::Status refusal = Submit("cannot-be-planned");
  EXPECT_THAT(refusal, IsError(absl::StatusCode::kInvalidArgument, HasSubstr("too odd")));
  EXPECT_EQ(GetErrorInfo(refusal).reason, "JOB_NOT_PLANNED");
  EXPECT_EQ(NumJobs(), 0);
  EXPECT_THAT(Submit("any"), IsOk());
  EXPECT_EQ(NumJobs(), 1);
}

// gRPC would refuse headers that long, and its own words would be all that the caller gets.
TEST_F(CompileServerTest, ALongRefusalLosesItsMiddle) {
  const absl::Status status = Submit("says-a-lot");
  EXPECT_THAT(status,
              IsError(absl::StatusCode::kNotFound,
                      AllOf(testing::StartsWith(absl::StrCat("no such op: ", kOddName, kOddName)),
                            HasSubstr(" bytes are left out ...] "),
                            testing::EndsWith(absl::StrCat(kOddName, "; rename it")))));
  EXPECT_EQ(GetErrorInfo(status).reason, "JOB_NOT_PLANNED");
  EXPECT_THAT(GetErrorInfo(status).metadata["op"], HasSubstr("left out"));
}

TEST_F(CompileServerTest, ACancelledCallEndsItsCompiler) {
  grpc::ClientContext context;
  std::thread caller([&] {
    EXPECT_THAT(Submit("never-ends", context), IsError(absl::StatusCode::kCancelled, testing::_));
  });
  EXPECT_TRUE(WaitFor([] { return NumChildren() == 1; }));
  context.TryCancel();
  caller.join();
  EXPECT_TRUE(WaitFor([] { return NumChildren() == 0; }));
  EXPECT_THAT(Submit("any"), IsOk());
}

TEST_F(CompileServerTest, WhoHasLeftKeepsNobodyFromWaiting) {
  // One more than can wait, which is told so.
  constexpr int kNumCallers = kMaxCompiles + kMaxCompileWaiters + 1;
  std::vector<grpc::ClientContext> contexts(kNumCallers);
  std::vector<std::thread> callers;
  std::atomic<int> num_refused = 0;
  for (int i = 0; i < kNumCallers; ++i) {
    callers.emplace_back([&, i] {
      const absl::Status status = Submit(absl::StrCat("never-ends-", i), contexts[i]);
      if (GetErrorInfo(status).reason == "COMPILER_BUSY") ++num_refused;
    });
    if (i + 1 == kMaxCompiles) {
      EXPECT_TRUE(WaitFor([] { return NumChildren() == kMaxCompiles; }));
    }
  }
  EXPECT_TRUE(WaitFor([&] { return num_refused == 1; }));
  for (int i = kMaxCompiles; i < kNumCallers; ++i) contexts[i].TryCancel();
  for (int i = kMaxCompiles; i < kNumCallers; ++i) callers[i].join();

  const auto is_refused = [&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
    return GetErrorInfo(Submit("any", context)).reason == "COMPILER_BUSY";
  };
  EXPECT_TRUE(WaitFor([&] { return !is_refused(); })) << "those who have left still wait";
  for (int i = 0; i < kMaxCompiles; ++i) contexts[i].TryCancel();
  for (int i = 0; i < kMaxCompiles; ++i) callers[i].join();
}

TEST_F(CompileServerTest, ItsEndEndsTheCompilers) {
  std::thread caller([&] {
    const absl::Status status = Submit("never-ends");
    EXPECT_THAT(status, IsError(absl::StatusCode::kUnavailable, HasSubstr("is shutting down")));
    // Not of the job: the client may try again.
    EXPECT_EQ(GetErrorInfo(status).reason, kShuttingDownReason);
  });
  EXPECT_TRUE(WaitFor([] { return NumChildren() == 1; }));
  server_ = nullptr;
  caller.join();
  EXPECT_EQ(NumChildren(), 0);
}

// Of a program that may not be started again.
int CompileWithoutExecution(const char* program) {
  if (chmod(program, 0600) != 0) return 2;
  std::fprintf(stderr, "%s\n", CompileInChild("any").status().ToString().c_str());
  return 0;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  if (autosp::IsCompileChild(argc, argv)) {
    return autosp::RunCompileChild(argv, autosp::OddCompiler());
  }
  if (argc == 2 && argv[1] == std::string(autosp::kWithoutExecution)) {
    return autosp::CompileWithoutExecution(argv[0]);
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
