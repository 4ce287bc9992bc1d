#include "server/coordinator/job_state.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

TEST(JobState, MovesAlongTheTable) {
  for (const JobEdge& edge : JobEdges()) {
    EXPECT_THAT(NextState(edge.from, edge.trigger), IsOkAndHolds(edge.to));
  }
}

TEST(JobState, RefusesEverythingElse) {
  int num_refused = 0;
  for (JobState from : kAllJobStates) {
    for (JobTrigger trigger : kAllJobTriggers) {
      const bool is_listed = std::ranges::any_of(JobEdges(), [&](const JobEdge& edge) {
        return edge.from == from && edge.trigger == trigger;
      });
      if (is_listed) continue;
      ++num_refused;
      EXPECT_THAT(NextState(from, trigger), IsError(absl::StatusCode::kFailedPrecondition,
                                                    HasSubstr("is not allowed in state")));
    }
  }
  EXPECT_EQ(num_refused + std::ssize(JobEdges()),
            std::ssize(kAllJobStates) * std::ssize(kAllJobTriggers));
}

TEST(JobState, ListsEachPairOnce) {
  std::set<std::pair<JobState, JobTrigger>> pairs;
  for (const JobEdge& edge : JobEdges()) {
    EXPECT_TRUE(pairs.emplace(edge.from, edge.trigger).second) << ToString(edge.trigger);
  }
}

TEST(JobState, NeverLeavesATerminalState) {
  for (const JobEdge& edge : JobEdges()) EXPECT_FALSE(IsTerminal(edge.from));
}

TEST(JobState, CanBeCancelledUntilItStops) {
  for (JobState state : kAllJobStates) {
    const bool can = NextState(state, JobTrigger::kCancelRequested).ok();
    EXPECT_EQ(can, !IsTerminal(state) && state != JobState::kStopping) << ToString(state);
  }
}

TEST(JobState, EndsOnlyOnceNothingOfTheAttemptIsLeft) {
  for (const JobEdge& edge : JobEdges()) {
    if (!IsTerminal(edge.to)) continue;
    EXPECT_TRUE(edge.from == JobState::kStopping || edge.from == JobState::kQueued);
  }
}

TEST(JobState, NamesReadBack) {
  for (JobState state : kAllJobStates) {
    EXPECT_THAT(ParseJobState(ToString(state)), IsOkAndHolds(state));
  }
  EXPECT_THAT(ParseJobState("dreaming"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("'dreaming'")));
}

// docs/architecture-jobs.md shows the table as a picture. With AUTOSP_REWRITE_GOLDENS in the
// environment the picture is replaced.
TEST(JobState, DocumentShowsTheTable) {
  const std::string path = std::string(AUTOSP_SOURCE_DIR) + "/docs/architecture-jobs.md";
  std::ifstream in(path);
  ASSERT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  const std::string document = text.str();
  const std::string open = "```mermaid\n";
  const size_t begin = document.find(open);
  ASSERT_NE(begin, std::string::npos);
  const size_t start = begin + open.size();
  const size_t end = document.find("```", start);
  ASSERT_NE(end, std::string::npos);
  if (std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr) {
    std::ofstream(path) << document.substr(0, start) << JobStateDiagram() << document.substr(end);
    return;
  }
  EXPECT_EQ(document.substr(start, end - start), JobStateDiagram())
      << "run with AUTOSP_REWRITE_GOLDENS=1";
}

}  // namespace
}  // namespace autosp
