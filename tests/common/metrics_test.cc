#include "common/metrics.h"

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr MetricDef kGood = {
    .name = "autosp_job_transitions_total",
    .kind = MetricKind::kCounter,
    .labels = {"from", "to"},
    .help = "Job state changes.",
};
constexpr MetricDef kTiming = {
    .name = "autosp_step_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"job_id"},
    .help = "Wall time of one step.",
    .buckets = kStepSecondsBuckets,
};
constexpr std::array kBoth = {&kGood, &kTiming};

MetricDef Changed(MetricDef def, void (*change)(MetricDef&)) {
  change(def);
  return def;
}

void ExpectRefused(const MetricDef& def, const std::string& message) {
  EXPECT_THAT(CheckMetricDefs({&def}),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(MetricDefTest, KnowsItsLabels) {
  EXPECT_THAT(kGood.label_names(), testing::ElementsAre("from", "to"));
  EXPECT_TRUE(MetricDef{}.label_names().empty());
}

TEST(CheckMetricDefsTest, TakesAGoodList) { EXPECT_THAT(CheckMetricDefs(kBoth), IsOk()); }

TEST(CheckMetricDefsTest, RefusesABadDeclaration) {
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.name = "jobs_total"; }), "prefix autosp_");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.name = "autosp_Jobs_total"; }), "snake case");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.name = "autosp_jobs"; }), "_total");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.kind = MetricKind::kGauge; }), "_total");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.labels[0] = "From"; }), "\"From\"");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.help = "changes"; }), "full stop");
  ExpectRefused(Changed(kGood, [](MetricDef& d) { d.buckets = kRpcSecondsBuckets; }), "counter");
  ExpectRefused(Changed(kTiming, [](MetricDef& d) { d.buckets = {}; }), "without buckets");
  static constexpr std::array kFalling = {1.0, 1.0};
  ExpectRefused(Changed(kTiming, [](MetricDef& d) { d.buckets = kFalling; }), "ascend");
}

TEST(CheckMetricDefsTest, RefusesANameTwice) {
  EXPECT_THAT(CheckMetricDefs({&kGood, &kTiming, &kGood}),
              IsError(absl::StatusCode::kAlreadyExists, HasSubstr(std::string(kGood.name))));
}

TEST(MetricsMarkdownTest, ListsInOrder) {
  EXPECT_EQ(MetricsMarkdown(kBoth),
            "| name | kind | labels | meaning |\n"
            "|---|---|---|---|\n"
            "| `autosp_job_transitions_total` | counter | from, to | Job state changes. |\n"
            "| `autosp_step_duration_seconds` | histogram | job_id | Wall time of one step. |\n");
}

}  // namespace
}  // namespace autosp
