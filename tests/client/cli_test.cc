// The commands, with a fake coordinator on a real port and a fake compiler.
#include "client/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "client/commands/command.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_coordinator.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kJob[] = R"(version: 1
kind: Job
model: {archive: m.pt2}
data: {format: text, files: [a.txt]}
training: {seq_len: 4, global_batch_size: 2, steps: 3}
output: {dir: out}
)";

class CliTest : public testing::Test {
 protected:
  CliTest() {
    EXPECT_THAT(WriteFileAtomically(dir_.Join("job.yaml"), kJob), IsOk());
    EXPECT_THAT(WriteFileAtomically(dir_.Join("m.pt2"), "archive"), IsOk());
    EXPECT_THAT(WriteFileAtomically(dir_.Join("a.txt"), "some text"), IsOk());
  }

  ExitCode Run(std::vector<std::string> args) {
    out_.str("");
    err_.str("");
    const CliEnvironment environment{.out = out_,
                                     .err = err_,
                                     .out_fd = out_fd_,
                                     .program_folder = dir_.path(),
                                     .compile = compile_};
    out_.clear(fails_to_write_ ? std::ios::badbit : std::ios::goodbit);
    return RunCli(args, environment);
  }

  // With the fake as its coordinator.
  ExitCode Ask(std::vector<std::string> args) {
    args.insert(args.end(), {"--server", server_.address()});
    return Run(std::move(args));
  }

  std::string job_path() const { return dir_.Join("job.yaml"); }

  TempDir dir_;
  FakeCoordinator server_;
  std::ostringstream out_;
  std::ostringstream err_;
  bool fails_to_write_ = false;  // out_ does
  int out_fd_ = -1;
  CompileFn compile_ = [](const JobSpec& job, const ClusterSpec& cluster) {
    CompiledPlan plan;
    plan.program_text = "program of " + job.name;
    plan.digest = "d1";
    plan.summary.model_name = job.name;
    plan.summary.world_size = cluster.num_devices();
    return plan;
  };
};

TEST_F(CliTest, HelpListsCommandsAndExitCodes) {
  EXPECT_EQ(Run({"--help"}), ExitCode::kOk);
  for (const char* word :
       {"submit", "run", "plan", "export", "list", "status", "watch", "logs", "cancel", "nodes",
        "doctor", "version", "AUTOSP_SERVER", "127.0.0.1:7070"}) {
    EXPECT_THAT(out_.str(), HasSubstr(word));
  }
  for (const ExitCodeInfo& info : kExitCodes) {
    EXPECT_THAT(out_.str(), HasSubstr(std::string(info.meaning)));
  }
}

// docs/cli.md has the same table.
TEST_F(CliTest, TheDocumentListsTheExitCodesToo) {
  ASSERT_OK_AND_ASSIGN(const std::string doc,
                       ReadFile(std::string(AUTOSP_SOURCE_DIR) + "/docs/cli.md", 1 << 20));
  for (const ExitCodeInfo& info : kExitCodes) {
    EXPECT_THAT(
        doc, HasSubstr(absl::StrCat("| ", static_cast<int>(info.code), " | ", info.meaning, " |")));
  }
}

TEST_F(CliTest, WrongUsageIsBadInput) {
  EXPECT_EQ(Run({}), ExitCode::kBadInput);
  EXPECT_EQ(Run({"frobnicate"}), ExitCode::kBadInput);
  EXPECT_EQ(Run({"status"}), ExitCode::kBadInput);
  EXPECT_EQ(Run({"list", "--output", "xml"}), ExitCode::kBadInput);
  EXPECT_EQ(Run({"list", "--state", "done"}), ExitCode::kBadInput);
  EXPECT_THAT(err_.str(), HasSubstr("done is no state"));
  EXPECT_THAT(err_.str(), HasSubstr("cancelled, verifying"));
  EXPECT_EQ(Run({"logs", "job-1", "--rank", "-2"}), ExitCode::kBadInput);
}

TEST_F(CliTest, VersionNeedsNoServer) {
  EXPECT_EQ(Run({"version"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(), absl::StrCat("autosp-cli ", kVersion, "\n"));
}

TEST_F(CliTest, OutputThatIsLostIsAFailure) {
  fails_to_write_ = true;
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"version"}, {"plan", job_path()}, {"--help"}}) {
    EXPECT_EQ(Run(args), ExitCode::kFailed) << args[0];
    EXPECT_EQ(err_.str(), "autosp-cli: the output cannot be written; is the disk full?\n");
  }
  EXPECT_EQ(Run({"frobnicate"}), ExitCode::kBadInput) << "the first failure counts";
}

// As in autosp-cli list | head -1.
TEST_F(CliTest, AReaderThatHasSeenEnoughIsNoFailure) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  UniqueFd reader(fds[0]);
  const UniqueFd writer(fds[1]);
  fails_to_write_ = true;
  out_fd_ = writer.get();
  EXPECT_EQ(Run({"version"}), ExitCode::kFailed) << "it is still there";
  reader.Reset();
  EXPECT_EQ(Run({"version"}), ExitCode::kOk);
  EXPECT_EQ(err_.str(), "");
}

TEST_F(CliTest, PlanWorksOffline) {
  const std::string program = dir_.Join("program.txt");
  EXPECT_EQ(Run({"plan", job_path(), "--program", program, "--output", "json"}), ExitCode::kOk);
  EXPECT_EQ(nlohmann::json::parse(out_.str())["plan"]["model_name"], "m");
  EXPECT_THAT(ReadFile(program, 1000), IsOkAndHolds("program of m"));
  EXPECT_EQ(Run({"plan", job_path(), "--set", "name=other"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("other"));
}

TEST_F(CliTest, PlanOfAnImpossibleJobIsBadInput) {
  compile_ = [](const JobSpec&, const ClusterSpec&) -> absl::StatusOr<CompiledPlan> {
    return Unimplemented("op aten.foo has no rule");
  };
  EXPECT_EQ(Run({"plan", job_path()}), ExitCode::kBadInput);
  EXPECT_EQ(err_.str(), "autosp-cli: op aten.foo has no rule\n");
}

TEST_F(CliTest, AMissingOrWrongJobFileIsBadInput) {
  for (const std::string command : {"plan", "submit", "run"}) {
    EXPECT_EQ(Run({command, dir_.Join("none.yaml")}), ExitCode::kBadInput);
    EXPECT_THAT(err_.str(), HasSubstr("none.yaml: No such file or directory"));
    EXPECT_EQ(Run({command, job_path(), "--set", "training.steps=x"}), ExitCode::kBadInput);
    EXPECT_THAT(err_.str(), StartsWith("autosp-cli: --set training.steps: training.steps: is 'x'"));
  }
}

TEST_F(CliTest, SubmitSendsTheResolvedJobAndEveryFile) {
  EXPECT_EQ(Ask({"submit", job_path(), "--set", "training.steps=7"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(), "submitted job job-1 (llama)\n  autosp-cli watch job-1\n");
  EXPECT_EQ(err_.str(), "warning: op aten.foo has no rule and is gathered\n");
  const std::vector<v1::SubmitJobRequest> submissions = server_.Get().submissions;
  ASSERT_EQ(submissions.size(), 1u);
  const v1::SubmitJobRequest& request = submissions[0];
  EXPECT_THAT(request.job_yaml(), HasSubstr("steps: 7\n"));
  EXPECT_THAT(request.job_yaml(), HasSubstr(absl::StrCat("archive: [", dir_.Join("m.pt2"), "]")));
  ASSERT_EQ(request.files_size(), 2);
  EXPECT_EQ(request.files(0).role(), v1::FileRef::ROLE_ARCHIVE);
  EXPECT_EQ(request.files(0).uri(), absl::StrCat("file://", dir_.Join("m.pt2")));
  EXPECT_EQ(request.files(1).role(), v1::FileRef::ROLE_TRAINING_DATA);
  EXPECT_EQ(request.files(1).sha256(), Sha256Hex("some text"));
  EXPECT_EQ(request.files(1).size_bytes(), 9);
}

TEST_F(CliTest, AnAbsentServerIsUnreachable) {
  server_.Stop();
  EXPECT_EQ(Ask({"list"}), ExitCode::kUnreachable);
  EXPECT_THAT(err_.str(),
              StartsWith(absl::StrCat("autosp-cli: no coordinator at ", server_.address())));
}

TEST_F(CliTest, AnUnknownJobIsNotFound) {
  EXPECT_EQ(Ask({"status", "nope"}), ExitCode::kNotFound);
  EXPECT_EQ(err_.str(), "autosp-cli: job nope does not exist\n  see autosp-cli list\n");
  EXPECT_EQ(Ask({"status", "no\x1b[2Jpe"}), ExitCode::kNotFound);
  EXPECT_THAT(err_.str(), HasSubstr("job no\\x1b[2Jpe does not exist"));
  EXPECT_EQ(Ask({"status", "nope", "--output", "json"}), ExitCode::kNotFound);
  const nlohmann::json error = nlohmann::json::parse(err_.str())["error"];
  EXPECT_EQ(error["code"], "NOT_FOUND");
  EXPECT_EQ(error["reason"], "JOB_NOT_FOUND");
}

TEST_F(CliTest, ListFiltersByState) {
  server_.Change([](auto& answers) { answers.jobs["job-1"].set_job_id("job-1"); });
  EXPECT_EQ(Ask({"list", "--state", "running", "--state", "queued", "--output", "json"}),
            ExitCode::kOk);
  EXPECT_EQ(nlohmann::json::parse(out_.str())["jobs"][0]["job_id"], "job-1");
  const v1::ListJobsRequest request = server_.Get().list_request;
  ASSERT_EQ(request.states_size(), 2);
  EXPECT_EQ(request.states(0), v1::JOB_STATE_RUNNING);
}

TEST_F(CliTest, NodesAreATable) {
  v1::Node node;
  node.set_node_id("local");
  node.set_state(v1::Node::STATE_READY);
  server_.Change([&node](auto& answers) { answers.nodes = {node}; });
  EXPECT_EQ(Ask({"nodes"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("\nlocal  ready"));
}

TEST_F(CliTest, CancelPassesTheReasonOn) {
  EXPECT_EQ(Ask({"cancel", "job-1", "--reason", "wrong data"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(), "job job-1 is stopping\n");
  const std::vector<v1::CancelJobRequest> cancellations = server_.Get().cancellations;
  ASSERT_EQ(cancellations.size(), 1u);
  EXPECT_EQ(cancellations[0].reason(), "wrong data");
  EXPECT_FALSE(cancellations[0].request_id().empty());
}

TEST_F(CliTest, LogsAreOfTheRankThatFailed) {
  server_.Change([](auto& answers) { answers.jobs["job-1"].mutable_cause()->set_rank(3); });
  EXPECT_EQ(Ask({"logs", "job-1", "--tail", "5"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(), "line 1\nline 2\n");
  EXPECT_EQ(server_.Get().logs_request.rank(), 3);
  EXPECT_EQ(server_.Get().logs_request.tail_lines(), 5);
  EXPECT_EQ(Ask({"logs", "job-1", "--rank", "1", "--follow"}), ExitCode::kOk);
  EXPECT_EQ(server_.Get().logs_request.rank(), 1);
  EXPECT_TRUE(server_.Get().logs_request.follow());
}

class WatchTest : public CliTest {
 protected:
  WatchTest() {
    server_.Change([](auto& answers) {
      v1::Job& job = answers.jobs["job-1"];
      job.set_job_id("job-1");
      job.set_name("llama");
      job.set_world_size(2);
      job.mutable_progress()->set_num_steps(2);
      job.mutable_progress()->set_last_step(2);
      answers.events = {StateEvent(1, v1::JOB_STATE_RUNNING, "both ranks run"),
                        StepEvent(2, 1, 5.0), StepEvent(3, 2, 4.0),
                        StateEvent(4, v1::JOB_STATE_SUCCEEDED, "")};
    });
    SetState(v1::JOB_STATE_SUCCEEDED);
  }

  void SetState(v1::JobState state) {
    server_.Change([state](auto& answers) { answers.jobs["job-1"].set_state(state); });
  }
};

TEST_F(WatchTest, ShowsStepsAndTheClosingSummary) {
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kOk);
  EXPECT_EQ(out_.str(),
            "running: both ranks run\n"
            "step 1/2  loss 5.0000  100 tokens/s  1s left\n"
            "step 2/2  loss 4.0000  100 tokens/s\n"
            "succeeded\n"
            "\n"
            "job job-1 (llama) succeeded after step 2/2\n"
            "  loss          5.0000 (step 1) to 4.0000 (step 2)\n"
            "  throughput    100 tokens/s over 2 ranks, 200 tokens\n");
}

// A rank, or what is in a job file, would steer the terminal of whoever looks at the job.
TEST_F(WatchTest, ControlCharactersAreSpelledOut) {
  server_.Change([](auto& answers) {
    answers.events = {StateEvent(1, v1::JOB_STATE_RUNNING, "rank 0\x1b[2J says")};
    answers.jobs["job-1"].set_name("ll\x1b]0;ama");
    answers.nodes.emplace_back().set_node_id("no\x1b[1Ade");
  });
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("running: rank 0\\x1b[2J says\n"),
                                HasSubstr("(ll\\x1b]0;ama)"), Not(HasSubstr("\x1b"))));
  EXPECT_EQ(Ask({"nodes"}), ExitCode::kOk);
  EXPECT_THAT(out_.str(), HasSubstr("no\\x1b[1Ade"));
}

TEST_F(WatchTest, WritesALinePerEventForPrograms) {
  EXPECT_EQ(Ask({"watch", "job-1", "--output", "json"}), ExitCode::kOk);
  std::istringstream lines(out_.str());
  std::vector<nlohmann::json> parsed;
  for (std::string line; std::getline(lines, line);) parsed.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(parsed.size(), 5u);
  EXPECT_EQ(parsed[1]["step_finished"]["report"]["loss"], 5.0);
  EXPECT_EQ(parsed[4]["job"]["state"], "succeeded");
}

TEST_F(WatchTest, TellsTheShellHowTheJobEnded) {
  SetState(v1::JOB_STATE_FAILED);
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kFailed);
  SetState(v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kCancelled);
  EXPECT_EQ(Ask({"watch", "nope"}), ExitCode::kNotFound);
}

TEST_F(WatchTest, AnInterruptIsHeardBeforeTheFirstAnswer) {
  signal(SIGINT, SIG_DFL);
  server_.Change([](auto& answers) { answers.hangs = true; });
  std::thread interrupter([this] {
    while (server_.Get().num_hanging == 0) absl::SleepFor(absl::Milliseconds(5));
    kill(getpid(), SIGINT);
  });
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kInterrupted);
  interrupter.join();
}

// Without its end the test would hang, as the events do.
TEST_F(WatchTest, EndsWithItsOutput) {
  server_.Change([](auto& answers) { answers.hangs_after_events = true; });
  fails_to_write_ = true;
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kFailed);
  EXPECT_EQ(Ask({"logs", "job-1", "--follow"}), ExitCode::kFailed);
}

TEST_F(WatchTest, AnInterruptLeavesTheJobAlone) {
  signal(SIGINT, SIG_DFL);  // Ignored where the tests run in the background of a script.
  server_.Change([](auto& answers) { answers.hangs_after_events = true; });
  std::thread interrupter([] {
    absl::SleepFor(absl::Milliseconds(300));
    kill(getpid(), SIGINT);
  });
  EXPECT_EQ(Ask({"watch", "job-1"}), ExitCode::kInterrupted);
  interrupter.join();
  EXPECT_TRUE(server_.Get().cancellations.empty());
}

// The folder of the binaries is empty here.
TEST_F(CliTest, RunSaysWhichBinaryIsMissing) {
  EXPECT_EQ(Run({"run", job_path()}), ExitCode::kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("autosp-coordinator"));
}

}  // namespace
}  // namespace autosp
