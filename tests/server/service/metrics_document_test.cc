// docs/metrics.md is made from the declarations. With AUTOSP_REWRITE_GOLDENS in the environment it
// is written anew.
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/metrics.h"
#include "gtest/gtest.h"
#include "server/metrics.h"
#include "tests/common/status_matchers.h"
#include "worker/agent/metrics.h"

namespace autosp {
namespace {

std::string Document() {
  return absl::StrCat(
      "# Metrics\n\n"
      "Made from the declarations in `server/metrics.h` and `worker/agent/metrics.h`; a test holds "
      "it to them.\n"
      "Both processes serve `/metrics` where `--metrics-port` says. Durations are in seconds, "
      "sizes "
      "in bytes. What a job\nhas left behind goes 10 minutes after its end.\n\n"
      "## Coordinator\n\n",
      MetricsMarkdown(kCoordinatorMetrics), "\n## Agent\n\n",
      MetricsMarkdown(agent::kAgentMetrics));
}

TEST(Metrics, KeepTheRules) {
  EXPECT_THAT(CheckMetricDefs(kCoordinatorMetrics), IsOk());
  std::vector<const MetricDef*> all(kCoordinatorMetrics.begin(), kCoordinatorMetrics.end());
  all.insert(all.end(), agent::kAgentMetrics.begin(), agent::kAgentMetrics.end());
  EXPECT_THAT(CheckMetricDefs(all), IsOk()) << "one name, one meaning";
}

TEST(Metrics, DocumentSaysWhatIsDeclared) {
  const std::string path = std::string(AUTOSP_SOURCE_DIR) + "/docs/metrics.md";
  if (std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr) {
    std::ofstream(path) << Document();
    return;
  }
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ(text.str(), Document()) << "run with AUTOSP_REWRITE_GOLDENS=1";
}

}  // namespace
}  // namespace autosp
