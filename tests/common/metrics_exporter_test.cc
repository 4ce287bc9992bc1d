#include "common/metrics_exporter.h"

#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/tcp.h"
#include "tests/common/http_get.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr MetricDef kTransitions = {
    .name = "autosp_job_transitions_total",
    .kind = MetricKind::kCounter,
    .labels = {"from", "to"},
    .help = "Job state changes.",
};
constexpr MetricDef kLoss = {
    .name = "autosp_loss",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Mean loss of the last step.",
};
constexpr MetricDef kStepDuration = {
    .name = "autosp_step_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"job_id"},
    .help = "Wall time of one step.",
    .buckets = kStepSecondsBuckets,
};
constexpr std::array kAll = {&kTransitions, &kLoss, &kStepDuration};

TEST(MetricRegistryTest, RendersEveryKind) {
  MetricRegistry registry(kAll);
  registry.Increment(kTransitions, {"queued", "running"});
  registry.Increment(kTransitions, {"queued", "running"}, 2);
  registry.Set(kLoss, {"job-a"}, 2.5);
  registry.Set(kLoss, {"job-a"}, 1.5);
  registry.Observe(kStepDuration, {"job-a"}, 0.07);
  registry.Observe(kStepDuration, {"job-a"}, 1000);
  EXPECT_THAT(
      registry.Render(),
      AllOf(HasSubstr("# HELP autosp_loss Mean loss of the last step."),
            HasSubstr("autosp_job_transitions_total{from=\"queued\",to=\"running\"} 3\n"),
            HasSubstr("autosp_loss{job_id=\"job-a\"} 1.5\n"),
            HasSubstr("autosp_step_duration_seconds_bucket{job_id=\"job-a\",le=\"0.05\"} 0\n"),
            HasSubstr("autosp_step_duration_seconds_bucket{job_id=\"job-a\",le=\"300\"} 1\n"),
            HasSubstr("autosp_step_duration_seconds_count{job_id=\"job-a\"} 2\n")));
}

TEST(MetricRegistryTest, DeclaresSeriesBeforeTheirFirstEvent) {
  MetricRegistry registry(kAll);
  registry.Declare(kTransitions, {"queued", "running"});
  registry.Declare(kStepDuration, {"job-a"});
  EXPECT_THAT(registry.Render(),
              AllOf(HasSubstr("autosp_job_transitions_total{from=\"queued\",to=\"running\"} 0\n"),
                    HasSubstr("autosp_step_duration_seconds_count{job_id=\"job-a\"} 0\n")));
  registry.Increment(kTransitions, {"queued", "running"});
  registry.Declare(kTransitions, {"queued", "running"});  // Keeps what was counted.
  EXPECT_THAT(registry.Render(), HasSubstr("{from=\"queued\",to=\"running\"} 1\n"));
}

TEST(MetricRegistryTest, RemovesTheSeriesOfOneJobOnly) {
  MetricRegistry registry(kAll);
  registry.Set(kLoss, {"job-a"}, 1);
  registry.Set(kLoss, {"job-b"}, 2);
  registry.Observe(kStepDuration, {"job-a"}, 1);
  registry.Increment(kTransitions, {"job-a", "job-a"});
  registry.RemoveSeries("job_id", "job-a");
  EXPECT_THAT(registry.Render(),
              AllOf(HasSubstr("autosp_loss{job_id=\"job-b\"} 2"),
                    Not(HasSubstr("job_id=\"job-a\"")), HasSubstr("from=\"job-a\"")));
  registry.Set(kLoss, {"job-a"}, 7);  // It may come back, from zero.
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_loss{job_id=\"job-a\"} 7"));
}

TEST(MetricRegistryTest, IsSafeBetweenThreads) {
  MetricRegistry registry(kAll);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 1000; ++j) {
        registry.Increment(kTransitions, {"a", "b"});
        registry.Set(kLoss, {absl::StrCat("job-", i)}, j);
        if (j % 100 == 0) registry.RemoveSeries("job_id", absl::StrCat("job-", i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(registry.Render(), HasSubstr("{from=\"a\",to=\"b\"} 4000\n"));
}

TEST(MetricRegistryDeathTest, MisuseIsABug) {
  MetricRegistry registry(kAll);
  static constexpr MetricDef kOther = kLoss;
  EXPECT_DEATH(registry.Set(kOther, {"job-a"}, 1), "not in this registry's list");
  EXPECT_DEATH(registry.Set(kTransitions, {"a", "b"}, 1), "is a counter");
  EXPECT_DEATH(registry.Set(kLoss, {}, 1), "has 1 labels, not 0");
  EXPECT_DEATH(registry.Declare(kLoss, {}), "has 1 labels, not 0");
  EXPECT_DEATH(registry.Increment(kTransitions, {"a", "b"}, -1), "would go down");
}

TEST(MetricsServerTest, AnswersScrapes) {
  MetricRegistry registry(kAll);
  ASSERT_OK_AND_ASSIGN(const auto server, MetricsServer::Start(registry, "127.0.0.1:0"));
  registry.Set(kLoss, {"job-a"}, 0.25);
  EXPECT_THAT(HttpGet(server->port(), "/metrics"),
              AllOf(HasSubstr("200 OK"), HasSubstr("autosp_loss{job_id=\"job-a\"} 0.25")));
  EXPECT_THAT(HttpGet(server->port(), "/other"), HasSubstr("404"));
}

TEST(MetricsServerTest, RefreshesBeforeItAnswersUntilTheRegistryGoes) {
  auto registry = std::make_unique<MetricRegistry>(kAll);
  int num_refreshes = 0;
  registry->BeforeAnswers([&] { registry->Set(kLoss, {"job-a"}, ++num_refreshes); });
  const auto server = MetricsServer::Start(*registry, "127.0.0.1:0");
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(registry->Render(), HasSubstr("autosp_loss{job_id=\"job-a\"} 1\n"));
  EXPECT_THAT(HttpGet((*server)->port(), "/metrics"),
              HasSubstr("autosp_loss{job_id=\"job-a\"} 2\n"));
  registry.reset();
  EXPECT_THAT(HttpGet((*server)->port(), "/metrics"),
              HasSubstr("autosp_loss{job_id=\"job-a\"} 2\n"));
  EXPECT_EQ(num_refreshes, 2);
}

TEST(MetricsServerTest, AnswersBesideConnectionsThatSayNothing) {
  MetricRegistry registry(kAll);
  ASSERT_OK_AND_ASSIGN(const auto server, MetricsServer::Start(registry, "127.0.0.1:0"));
  const HostPort address{.host = "127.0.0.1", .port = server->port()};
  ASSERT_OK_AND_ASSIGN(const UniqueFd first, BeginConnectTcp(address));
  ASSERT_OK_AND_ASSIGN(const UniqueFd second, BeginConnectTcp(address));
  absl::SleepFor(absl::Milliseconds(100));  // The server takes them up.
  const absl::Duration before = Clock::Real().Steady();
  EXPECT_THAT(HttpGet(server->port(), "/metrics"), HasSubstr("200 OK"));
  EXPECT_LT(Clock::Real().Steady() - before, absl::Seconds(5));
}

TEST(MetricsServerTest, StopsAtOnce) {
  MetricRegistry registry(kAll);
  ASSERT_OK_AND_ASSIGN(auto server, MetricsServer::Start(registry, "127.0.0.1:0"));
  const absl::Duration before = Clock::Real().Steady();
  server.reset();
  EXPECT_LT(Clock::Real().Steady() - before, absl::Seconds(1));
}

TEST(MetricsServerTest, SaysThatThePortIsTaken) {
  MetricRegistry registry(kAll);
  ASSERT_OK_AND_ASSIGN(const auto server, MetricsServer::Start(registry, "127.0.0.1:0"));
  const std::string address = absl::StrCat("127.0.0.1:", server->port());
  EXPECT_THAT(MetricsServer::Start(registry, address),
              IsError(absl::StatusCode::kUnavailable, HasSubstr(address)));
}

}  // namespace
}  // namespace autosp
