// Compilers that crash, never end or take all memory, in a child process: this program itself, as
// the coordinator is its own.
#include "server/service/compile_process.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "server/service/compile_proto.h"
#include "server/service/coordinator_server.h"
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

// The name of the job says what becomes of its compiler.
absl::StatusOr<CompiledPlan> OddCompile(const JobSpec& job, const ClusterSpec& cluster) {
  if (job.name == "crashes") raise(SIGSEGV);
  if (job.name == "is-killed") raise(SIGKILL);
  if (job.name == "exits") std::_Exit(3);
  if (job.name == "exits-as-if-well") std::_Exit(0);
  if (job.name == "aborts") {
    for (int i = 0; i < 1000; ++i) std::fprintf(stderr, "line %d of a long report\n", i);
    std::fprintf(stderr, "the last words \xff\n");
    std::abort();
  }
  while (job.name == "never-ends") pause();
  if (job.name == "recurses" && Recurse(128 << 20) == 0) std::abort();
  std::vector<std::string> blocks;
  while (job.name == "takes-all-memory") blocks.emplace_back(1 << 20, 'x');
  if (job.name == "lists-files") return NotFound(ListOpenFiles());
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
  const rlimit large = {.rlim_cur = 512 << 20, .rlim_max = RLIM_INFINITY};
  ASSERT_EQ(setrlimit(RLIMIT_STACK, &large), 0);
  EXPECT_THAT(CompileInChild("recurses"),
              IsError(absl::StatusCode::kInternal, HasSubstr("signal 11 (Segmentation fault)")));
}

TEST(CompileProcessTest, AKillIsNoFaultOfTheCompiler) {
  const absl::Status status = CompileInChild("is-killed").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kResourceExhausted,
                              AllOf(HasSubstr("was killed by signal 9 (Killed)"),
                                    HasSubstr("where memory runs out"))));
  EXPECT_EQ(GetErrorInfo(status).reason, "COMPILER_KILLED");
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

TEST_F(CompileServerTest, ItsEndEndsTheCompilers) {
  std::thread caller([&] {
    EXPECT_THAT(Submit("never-ends"),
                IsError(absl::StatusCode::kUnavailable, HasSubstr("is shutting down")));
  });
  EXPECT_TRUE(WaitFor([] { return NumChildren() == 1; }));
  server_ = nullptr;
  caller.join();
  EXPECT_EQ(NumChildren(), 0);
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  // Those that crash on purpose leave no core.
  const rlimit no_core = {.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (autosp::IsCompileChild(argc, argv)) {
    return autosp::RunCompileChild(argv, autosp::OddCompiler());
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
