// The parts of an agent that stand alone: its queue, logs, files, validation and metrics.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/metrics_exporter.h"
#include "common/subprocess.h"
#include "tests/worker/agent/agent_process.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/agent_server.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/backoff.h"
#include "worker/agent/event_loop.h"
#include "worker/agent/leftovers.h"
#include "worker/agent/log_pump.h"
#include "worker/agent/log_reader.h"
#include "worker/agent/metrics.h"
#include "worker/agent/order_from_proto.h"
#include "worker/agent/process_identity.h"
#include "worker/agent/rank_listeners.h"
#include "worker/agent/rank_log.h"
#include "worker/agent/report_queue.h"
#include "worker/agent/status_to_proto.h"
#include "worker/agent/step_metrics.h"

namespace autosp::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/agent-parts-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(absl::string_view name) const { return absl::StrCat(folder_, "/", name); }
  std::string Read(absl::string_view name) const {
    return ReadFile(Path(name), 1 << 24).value_or("");
  }
  void Write(absl::string_view name, absl::string_view data) const {
    ASSERT_TRUE(WriteFileAtomically(Path(name), data).ok());
  }

  std::string folder_;
};

// ReportQueue.

v1::AttemptRankReport StepReport(int64_t step) {
  v1::AttemptRankReport report;
  report.mutable_step()->set_step(step);
  return report;
}

v1::AttemptRankReport StateReport(v1::RankState state) {
  v1::AttemptRankReport report;
  report.mutable_status()->set_state(state);
  return report;
}

std::vector<int64_t> Steps(const std::vector<v1::AttemptRankReport>& reports) {
  std::vector<int64_t> steps;
  for (const auto& report : reports) steps.push_back(report.has_step() ? report.step().step() : -1);
  return steps;
}

TEST(ReportQueueTest, GivesTheSameReportsUntilTheyArrive) {
  ReportQueue queue(10);
  for (const int step : {1, 2, 3}) EXPECT_TRUE(queue.Push(StepReport(step)));
  EXPECT_THAT(Steps(queue.Peek(2, absl::ZeroDuration())), ElementsAre(1, 2));
  EXPECT_THAT(Steps(queue.Peek(2, absl::ZeroDuration())), ElementsAre(1, 2));
  queue.Ack();
  EXPECT_FALSE(queue.IsEmpty());
  EXPECT_THAT(Steps(queue.Peek(2, absl::ZeroDuration())), ElementsAre(3));
  queue.Ack();
  EXPECT_TRUE(queue.IsEmpty());
  EXPECT_THAT(queue.Peek(2, absl::ZeroDuration()), IsEmpty());
}

TEST(ReportQueueTest, KeepsTheNewestStepsAndEveryState) {
  ReportQueue queue(2);
  EXPECT_TRUE(queue.Push(StepReport(1)));
  EXPECT_TRUE(queue.Push(StateReport(v1::RANK_STATE_RUNNING)));
  EXPECT_TRUE(queue.Push(StepReport(2)));
  EXPECT_FALSE(queue.Push(StepReport(3)));
  EXPECT_TRUE(queue.Push(StateReport(v1::RANK_STATE_LOST)));
  EXPECT_FALSE(queue.Push(StepReport(4)));
  EXPECT_THAT(Steps(queue.Peek(10, absl::ZeroDuration())), ElementsAre(-1, 3, -1, 4));
}

TEST(ReportQueueTest, KnowsWhoseReportsWait) {
  v1::AttemptRef first, second, other_job;
  first.set_job_id("j1");
  first.set_generation(1);
  second.set_job_id("j1");
  second.set_generation(2);
  other_job.set_job_id("j2");
  other_job.set_generation(1);
  ReportQueue queue(10);
  EXPECT_FALSE(queue.HasReportOf(first));
  v1::AttemptRankReport report = StepReport(1);
  *report.mutable_attempt() = first;
  queue.Push(report);
  *report.mutable_attempt() = other_job;
  queue.Push(report);
  queue.Peek(1, absl::ZeroDuration());
  EXPECT_TRUE(queue.HasReportOf(first)) << "in flight";
  EXPECT_TRUE(queue.HasReportOf(other_job)) << "queued";
  EXPECT_FALSE(queue.HasReportOf(second));
  queue.Ack();
  EXPECT_FALSE(queue.HasReportOf(first));
  EXPECT_TRUE(queue.HasReportOf(other_job));
}

TEST(ReportQueueTest, WakesUpForAReportAndForTheEnd) {
  ReportQueue queue(2);
  std::thread producer([&] { queue.Push(StepReport(1)); });
  EXPECT_THAT(Steps(queue.Peek(10, absl::Seconds(30))), ElementsAre(1));
  producer.join();
  queue.Ack();
  std::thread closer([&] { queue.Close(); });
  EXPECT_THAT(queue.Peek(10, absl::Seconds(30)), IsEmpty());
  closer.join();
}

TEST(BackoffTest, GrowsToItsLimitAndStartsAnew) {
  Backoff backoff(absl::Milliseconds(100), absl::Milliseconds(300));
  EXPECT_EQ(backoff.Next(1.0), absl::Milliseconds(100));
  EXPECT_EQ(backoff.Next(0.0), absl::Milliseconds(100)) << "half of 200";
  EXPECT_EQ(backoff.Next(1.0), absl::Milliseconds(300));
  EXPECT_EQ(backoff.Next(1.0), absl::Milliseconds(300));
  backoff.Reset();
  EXPECT_EQ(backoff.Next(1.0), absl::Milliseconds(100));
}

TEST(EventLoopTest, RunsWhatWasPostedInOrderAndRefusesTheRest) {
  EventLoop loop;
  std::vector<int> order;
  EXPECT_TRUE(loop.Post([&] { order.push_back(1); }));
  EXPECT_TRUE(loop.Post([&] { order.push_back(2); }));
  std::thread runner([&] { loop.Run(absl::Milliseconds(1), [] {}); });
  EXPECT_EQ(
      loop.Call([&]() -> absl::StatusOr<int> { return static_cast<int>(order.size()); }).value(),
      2);
  loop.Stop();
  runner.join();
  EXPECT_FALSE(loop.Post([&] { order.push_back(3); }));
  EXPECT_EQ(loop.Call([]() -> absl::Status { return absl::OkStatus(); }).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_THAT(order, ElementsAre(1, 2));
}

// RankLog, LogPump, ReadRankLog.

class RankLogTest : public FolderTest {};

TEST_F(RankLogTest, KeepsTheLastLines) {
  RankLog log(Path("log"), 1 << 20);
  log.Append("one\ntw");
  log.Append("o\nthree");
  EXPECT_THAT(log.Tail(10), ElementsAre("one", "two", "three"));
  EXPECT_THAT(log.Tail(2), ElementsAre("two", "three"));
  EXPECT_EQ(Read("log"), "one\ntwo\nthree");
}

TEST_F(RankLogTest, BoundsLinesAndTheirNumber) {
  RankLog log(Path("log"), 1 << 20);
  for (int i = 0; i < 100; ++i) log.Append(absl::StrCat(i, "\n"));
  log.Append(std::string(100'000, 'x'));
  const auto tail = log.Tail(1000);
  ASSERT_EQ(tail.size(), kNumTailLines + 1);
  EXPECT_EQ(tail.front(), "80");
  EXPECT_EQ(tail.back().size(), kMaxTailLineBytes);
}

TEST_F(RankLogTest, RotatesWhenFull) {
  RankLog log(Path("log"), 10);
  for (const char* part : {"aaaaaa\n", "bbbbbb\n", "cccccc\n"}) log.Append(part);
  EXPECT_EQ(Read("log"), "cccccc\n");
  EXPECT_EQ(Read("log.1"), "bbbbbb\n") << "two files are all that is kept";
}

TEST_F(RankLogTest, ADiskThatTakesNothingLosesOnlyTheFile) {
  RankLog log(Path("missing/log"), 10);
  log.Append("still here\n");
  EXPECT_THAT(log.Tail(1), ElementsAre("still here"));
}

// The agent's loop reads the tail, and renews and enforces the lease.
TEST_F(RankLogTest, ADiskThatStallsDoesNotHoldUpTheTail) {
  // Opening a pipe waits until somebody reads it, as a disk that has stalled waits.
  ASSERT_EQ(mkfifo(Path("log").c_str(), 0600), 0);
  auto log = std::make_shared<RankLog>(Path("log"), 1 << 20);
  std::thread writer([log] { log->Append("last words\n"); });
  auto tail = std::async(std::launch::async, [log] {
    while (log->Tail(1).empty()) std::this_thread::yield();
    return log->Tail(1);
  });
  const bool has_come = tail.wait_for(std::chrono::seconds(5)) == std::future_status::ready;
  const UniqueFd reader(open(Path("log").c_str(), O_RDONLY | O_NONBLOCK));
  writer.join();
  EXPECT_TRUE(has_come);
  EXPECT_THAT(tail.get(), ElementsAre("last words"));
}

TEST(ToPrintableTest, LeavesOnlyWhatProtobufCarries) {
  EXPECT_EQ(ToPrintable("caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\tok"),
            "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\tok");
  EXPECT_EQ(ToPrintable("\x1B[31mred\x7F"), "?[31mred?");
  EXPECT_EQ(ToPrintable("a\xC3"), "a?") << "cut in the middle of a character";
  EXPECT_EQ(ToPrintable("\xC0\xAF\xED\xA0\x80\xF5\x80"), "???????")
      << "overlong, surrogate, too large";
}

TEST_F(RankLogTest, APumpReadsAPipeToItsEnd) {
  auto pump = LogPump::Start();
  ASSERT_TRUE(pump.ok()) << pump.status();
  SubprocessOptions options;
  options.argv = {"/bin/sh", "-c", "echo out; echo err >&2; seq 1 50000"};
  options.output = SubprocessOptions::Output::kPipe;
  auto process = Subprocess::Start(options);
  ASSERT_TRUE(process.ok()) << process.status();
  auto log = std::make_shared<RankLog>(Path("log"), 1 << 20);
  std::promise<void> closed;
  (*pump)->Add(UniqueFd(dup(process->output().get())), log, [&] { closed.set_value(); });
  ASSERT_EQ(closed.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_THAT(Read("log"), ::testing::StartsWith("out\nerr\n1\n2\n"));
  EXPECT_THAT(log->Tail(1), ElementsAre("50000"));
}

class LogReaderTest : public FolderTest {
 protected:
  std::string ReadLog(const LogReadOptions& options) {
    std::string text;
    const absl::Status status = ReadRankLog(Path("log"), options, [&](absl::string_view data) {
      absl::StrAppend(&text, data);
      return true;
    });
    EXPECT_TRUE(status.ok()) << status;
    return text;
  }
  std::string Tail(int64_t lines) {
    LogReadOptions options;
    options.tail_lines = lines;
    return ReadLog(options);
  }
};

TEST_F(LogReaderTest, ReadsBothFilesInOrder) {
  Write("log.1", "1\n2\n");
  Write("log", "3\n4\n");
  EXPECT_EQ(ReadLog({}), "1\n2\n3\n4\n");
  EXPECT_EQ(Tail(1), "4\n");
  EXPECT_EQ(Tail(2), "3\n4\n");
  EXPECT_EQ(Tail(3), "2\n3\n4\n");
  EXPECT_EQ(Tail(9), "1\n2\n3\n4\n");
}

TEST_F(LogReaderTest, CountsAnUnfinishedLine) {
  Write("log", "1\n2\n3");
  EXPECT_EQ(Tail(1), "3");
  EXPECT_EQ(Tail(2), "2\n3");
}

TEST_F(LogReaderTest, FindsTheTailOfALargeFile) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) absl::StrAppend(&text, i, "\n");
  Write("log", text);
  EXPECT_EQ(Tail(2), "99998\n99999\n");
  EXPECT_EQ(Tail(50'000).substr(0, 6), "50000\n");
}

TEST_F(LogReaderTest, SaysWhereItLooked) {
  EXPECT_EQ(ReadRankLog(Path("log"), {}, [](absl::string_view) { return true; }).message(),
            absl::StrCat("there is no log at ", Path("log"), " on this node"));
}

TEST_F(LogReaderTest, FollowsAcrossARotation) {
  RankLog log(Path("log"), 40);
  log.Append("line 0\n");
  int next = 1;
  LogReadOptions options;
  // Stands for the rank: writes a line whenever the reader has caught up.
  options.is_growing = [&] {
    if (next > 20) return false;
    log.Append(absl::StrCat("line ", next++, "\n"));
    return true;
  };
  std::string expected;
  for (int i = 0; i <= 20; ++i) absl::StrAppend(&expected, "line ", i, "\n");
  EXPECT_EQ(ReadLog(options), expected);
}

// Files, processes and what is left of them.

TEST(ProcessIdentityTest, KnowsAProcessFromItsSuccessor) {
  const auto self = IdentifyProcess(getpid());
  ASSERT_TRUE(self.ok()) << self.status();
  EXPECT_TRUE(IsAlive(*self));
  EXPECT_EQ(ProcessIdentity::FromText(self->ToText()).value(), *self);
  ProcessIdentity other = *self;
  ++other.start_ticks;
  EXPECT_FALSE(IsAlive(other)) << "the same number, started at another time";
  other = *self;
  other.boot_id = "another boot";
  EXPECT_FALSE(IsAlive(other));
  for (const char* text : {"", "12 13", "x 13 boot", "1 13 boot", "-5 13 boot"}) {
    EXPECT_FALSE(ProcessIdentity::FromText(text).ok()) << text;
  }
}

class LeftoversTest : public FolderTest {
 protected:
  AttemptKey key_ = {JobId("job-left"), Generation(3)};
};

TEST_F(LeftoversTest, KillsARankOfAnEarlierLife) {
  const AttemptFiles files(folder_);
  ASSERT_TRUE(MakeDirectories(files.Folder(key_)).ok());
  ASSERT_TRUE(WriteFileAtomically(files.LivePath(key_), "").ok());
  SubprocessOptions options;
  options.argv = {"/bin/sleep", "1000"};
  auto rank = Subprocess::Start(options);
  ASSERT_TRUE(rank.ok());
  ASSERT_TRUE(WritePidFile(files.PidPath(key_, Rank(0)), rank->pid()).ok());
  // Somebody else has the number of this one's process by now.
  ProcessIdentity stranger = *IdentifyProcess(getpid());
  ++stranger.start_ticks;
  ASSERT_TRUE(WriteFileAtomically(files.PidPath(key_, Rank(1)), stranger.ToText()).ok());

  // Its parent, this test, reaps it meanwhile.
  std::thread reaper([&] { rank->Wait(); });
  EXPECT_TRUE(CleanUpEarlierLife(files).ok());
  reaper.join();
  EXPECT_EQ(rank->Poll()->code, SIGKILL);
  EXPECT_FALSE(FileExists(files.LivePath(key_)));
  EXPECT_FALSE(FileExists(files.PidPath(key_, Rank(0))));
}

// Rank 0 was killed while it wrote the model.
TEST_F(LeftoversTest, RemovesTheModelThatWasHalfWritten) {
  const AttemptFiles files(folder_);
  const auto make = [&](absl::string_view name) {
    ASSERT_TRUE(MakeDirectories(Path(absl::StrCat("out/", name, "/folder"))).ok());
  };
  for (const char* name :
       {".model.job-left-2.partial", ".model.job-left-3.partial", ".model.job-left-4.partial",
        ".model.job-left-30.partial", ".model.other-3.partial"}) {
    make(name);
  }
  ASSERT_TRUE(MakeDirectories(files.Folder(key_)).ok());
  Write("out/model.safetensors", "of an earlier job");
  CleanUpAttemptFiles(files, key_);
  EXPECT_TRUE(FileExists(Path("out/.model.job-left-3.partial"))) << "rank 0 was elsewhere";
  const std::string spec = absl::StrCat("{\"output_directory\": \"", Path("out"), "\"}");
  ASSERT_TRUE(WriteFileAtomically(files.SpecPath(key_, Rank(0)), spec).ok());
  CleanUpAttemptFiles(files, key_);
  EXPECT_THAT(*ListFolder(Path("out")),
              ElementsAre(".model.job-left-30.partial", ".model.job-left-4.partial",
                          ".model.other-3.partial", "model.safetensors"));
}

TEST_F(LeftoversTest, LeavesEndedAttemptsAlone) {
  const AttemptFiles files(folder_);
  ASSERT_TRUE(MakeDirectories(files.Folder(key_)).ok());
  ASSERT_TRUE(WriteFileAtomically(files.LogPath(key_, Rank(0)), "log\n").ok());
  ASSERT_TRUE(WritePidFile(files.PidPath(key_, Rank(0)), getpid()).ok());
  EXPECT_TRUE(CleanUpEarlierLife(files).ok()) << "and this test still runs";
  EXPECT_TRUE(FileExists(files.LogPath(key_, Rank(0))));
}

// The agent was killed while it wrote them.
TEST_F(LeftoversTest, RemovesFilesThatHadNoNameYet) {
  const AttemptFiles files(folder_);
  ASSERT_TRUE(MakeDirectories(files.Folder(key_)).ok());
  for (const char* name : {"live.tmp.Xy12ab", "rank0.json.tmp.toKl5J", "rank0.log"}) {
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(files.Folder(key_), "/", name), "x").ok());
  }
  EXPECT_TRUE(CleanUpEarlierLife(files).ok());
  EXPECT_THAT(*ListFolder(files.Folder(key_)), ElementsAre("rank0.log"));
}

TEST_F(LeftoversTest, KeepsTheNewestFolders) {
  const AttemptFiles files(folder_);
  const auto start = std::filesystem::file_time_type::clock::now();
  for (size_t i = 1; i <= kMaxKeptAttempts + 3; ++i) {
    const AttemptKey key = {JobId(absl::StrCat("job-", i)), Generation(1)};
    ASSERT_TRUE(MakeDirectories(files.Folder(key)).ok());
    if (i == 1) {
      ASSERT_TRUE(WriteFileAtomically(files.LivePath(key), "").ok());
    }
    std::filesystem::last_write_time(files.Folder(key), start + std::chrono::seconds(i));
  }
  PruneAttemptFolders(files);
  const auto exists = [&](int i) {
    return FileExists(files.Folder({JobId(absl::StrCat("job-", i)), Generation(1)}));
  };
  EXPECT_TRUE(exists(1)) << "the oldest, but it is live";
  EXPECT_FALSE(exists(2));
  EXPECT_FALSE(exists(3));
  EXPECT_TRUE(exists(4));
  EXPECT_FALSE(FileExists(files.JobsFolder() + "/job-2"));
}

// Ranks on several nodes.

TEST(PeersOrderTest, NeedsASecretAndWholeAddresses) {
  v1::CommitRequest request;
  EXPECT_THAT(PeersFromProto(request)->addresses, IsEmpty()) << "all ranks are on one node";
  request.add_rank_addresses("a:7000");
  request.add_rank_addresses("b:7000");
  EXPECT_THAT(std::string(PeersFromProto(request).status().message()), HasSubstr("secret"));
  request.set_secret("s");
  EXPECT_THAT(PeersFromProto(request)->addresses, ElementsAre("a:7000", "b:7000"));
  request.set_rank_addresses(1, "b");
  EXPECT_THAT(std::string(PeersFromProto(request).status().message()), HasSubstr("\"b\""));
}

TEST(PeersOrderTest, OrdersKnowWhetherTheySpanNodes) {
  v1::PrepareRequest request = MakePrepare("/data", "job-a", 2, "");
  EXPECT_FALSE(OrderFromProto(request)->SpansNodes());
  request.mutable_attempt()->clear_node_of_rank();
  EXPECT_FALSE(OrderFromProto(request)->SpansNodes());
  request.mutable_attempt()->add_node_of_rank(request.node_id());
  request.mutable_attempt()->add_node_of_rank("another");
  EXPECT_TRUE(OrderFromProto(request)->SpansNodes());
}

TEST(PeersOrderTest, TheFileIsForItsOwnerAlone) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/peers.json");
  ASSERT_TRUE(WritePeersFile(path, "{}").ok());
  EXPECT_EQ(std::filesystem::status(path).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(RankListenersTest, AddressesStayAndSocketsAreGivenAwayOnce) {
  RankListeners listeners({.host = "127.0.0.1", .advertised_host = "node-0", .ports = {}});
  const AttemptKey key = {JobId("job-a"), Generation(1)};
  const std::vector<RankSlot> slots = {{.rank = Rank(2)}, {.rank = Rank(3)}};
  const auto first = listeners.Open(key, slots);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_EQ(first->size(), 2u);
  EXPECT_EQ((*first)[0].first, Rank(2));
  EXPECT_THAT((*first)[0].second, testing::StartsWith("node-0:"));
  EXPECT_NE((*first)[0].second, (*first)[1].second);
  EXPECT_EQ(listeners.Take(key, Rank(2)).size(), 1u);
  EXPECT_THAT(listeners.Take(key, Rank(2)), IsEmpty());
  EXPECT_THAT(listeners.Take(key, Rank(4)), IsEmpty());
  EXPECT_EQ(*listeners.Open(key, slots), *first) << "a repeated prepare answers the same";
  listeners.Close(key);
  EXPECT_THAT(listeners.Take(key, Rank(3)), IsEmpty());
}

TEST(ListenAddressTest, LoopbackIsForTheOwnMachine) {
  EXPECT_TRUE(OnlyThisMachineReaches("127.0.1.1", "198.51.100.1"));
  EXPECT_TRUE(OnlyThisMachineReaches("::1", "198.51.100.1"));
  EXPECT_FALSE(OnlyThisMachineReaches("127.0.0.1", "127.0.0.1"));
  EXPECT_FALSE(OnlyThisMachineReaches("198.51.100.2", "198.51.100.1"));
  EXPECT_FALSE(OnlyThisMachineReaches("", "198.51.100.1")) << "all addresses";
  EXPECT_FALSE(OnlyThisMachineReaches("0.0.0.0", "198.51.100.1")) << "all addresses";
  EXPECT_FALSE(OnlyThisMachineReaches("no such host", "198.51.100.1"));
  EXPECT_FALSE(OnlyThisMachineReaches("127.0.0.1", "no such host"));
}

TEST(RankListenersTest, APortRangeMayBeTooSmall) {
  const auto taken = ListenTcp("127.0.0.1", {});
  ASSERT_TRUE(taken.ok());
  RankListeners listeners({.host = "127.0.0.1",
                           .advertised_host = "127.0.0.1",
                           .ports = {.first = taken->port, .last = taken->port}});
  const auto opened = listeners.Open({JobId("job-a"), Generation(1)}, {{.rank = Rank(0)}});
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("--rank-ports"));
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr(absl::StrCat(taken->port)));
}

// Metrics.

TEST(AgentMetricsTest, AreDeclaredByTheRules) {
  const absl::Status status = CheckMetricDefs(kAgentMetrics);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(AgentMetricsTest, CountersExistBeforeTheirFirstEvent) {
  MetricRegistry registry(kAgentMetrics);
  DeclareCounters(registry);
  const std::string text = registry.Render();
  for (const char* series :
       {"autosp_agent_rank_ends_total{state=\"failed\"}",
        "autosp_agent_rank_ends_total{state=\"lost\"}",
        "autosp_agent_heartbeats_total{result=\"failed\"}", "autosp_agent_lease_losses_total",
        "autosp_agent_reports_dropped_total"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat(series, " 0\n")));
  }
}

TEST(AgentMetricsTest, RecordsAStep) {
  MetricRegistry registry(kAgentMetrics);
  v1::StepReport step;
  step.set_step(7);
  step.set_loss(2.5);
  step.set_tokens(100);
  step.set_step_seconds(0.2);
  v1::MemoryUse& memory = *step.add_memory();
  memory.set_account("device");
  memory.set_peak_bytes(4096);
  v1::CollectiveUse& use = *step.add_collectives();
  use.set_kind("all_to_all");
  use.set_phase("forward");
  use.set_bytes_received(512);
  use.set_seconds(-1);  // A rank's clock is not to crash the agent.
  for (int i = 0; i < 2; ++i) {
    RecordStep(JobId("job-a"), Rank(1), step, absl::FromUnixSeconds(1000), registry);
  }
  const std::string text = registry.Render();
  EXPECT_THAT(text, HasSubstr("autosp_rank_last_step{job_id=\"job-a\",rank=\"1\"} 7"));
  EXPECT_THAT(text, HasSubstr("autosp_rank_loss{job_id=\"job-a\",rank=\"1\"} 2.5"));
  EXPECT_THAT(text, HasSubstr("autosp_rank_tokens_total{job_id=\"job-a\",rank=\"1\"} 200"));
  EXPECT_THAT(text, HasSubstr("autosp_rank_memory_peak_bytes{account=\"device\""));
  EXPECT_THAT(text, HasSubstr("} 1024")) << "bytes of both steps";
  EXPECT_THAT(text, Not(HasSubstr("autosp_rank_grad_norm{"))) << "the rank did not say";
  registry.RemoveSeries("job_id", "job-a");
  EXPECT_THAT(registry.Render(), Not(HasSubstr("job-a")));
}

}  // namespace
}  // namespace autosp::agent
