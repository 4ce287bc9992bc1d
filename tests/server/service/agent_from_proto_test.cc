#include "server/service/agent_from_proto.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/rank_state_to_proto.h"
#include "server/service/limits.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::AttemptStatus GoodAttempt() {
  v1::AttemptStatus attempt;
  attempt.mutable_attempt()->set_job_id("job-1");
  attempt.mutable_attempt()->set_generation(2);
  attempt.set_phase(v1::AttemptStatus::PHASE_RUNNING);
  v1::RankStatus* rank = attempt.add_ranks();
  rank->set_rank(1);
  rank->set_state(v1::RANK_STATE_LOST);
  rank->set_pid(77);
  rank->set_last_step(5);
  rank->mutable_exit()->set_signal_number(9);
  return attempt;
}

v1::RegisterAgentRequest GoodRegistration() {
  v1::RegisterAgentRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  request.set_agent_address("127.0.0.1:7000");
  request.set_device_kind(v1::DEVICE_KIND_CPU);
  request.set_num_devices(2);
  request.set_agent_start_ms(123);
  *request.add_attempts() = GoodAttempt();
  return request;
}

TEST(AgentRegisteredFromProto, TakesAGoodOne) {
  ASSERT_OK_AND_ASSIGN(const AgentRegistered event, AgentRegisteredFromProto(GoodRegistration()));
  EXPECT_EQ(event.info.node, NodeId("node-0"));
  EXPECT_EQ(event.info.device_kind, "cpu");
  EXPECT_EQ(event.info.start_ms, 123);
  ASSERT_THAT(event.attempts, SizeIs(1));
  EXPECT_EQ(event.attempts[0].attempt.generation, Generation(2));
  ASSERT_THAT(event.attempts[0].ranks, SizeIs(1));
  EXPECT_EQ(event.attempts[0].ranks[0].state, RankState::kLost);
  EXPECT_EQ(event.attempts[0].ranks[0].exit->signal_number, 9);
}

TEST(AgentRegisteredFromProto, NamesTheFieldThatIsWrong) {
  using Change = std::function<void(v1::RegisterAgentRequest&)>;
  const std::vector<std::pair<std::string, Change>> cases = {
      {"node_id", [](auto& r) { r.set_node_id(""); }},
      {"node_id", [](auto& r) { r.set_node_id("a/b"); }},
      {"agent_instance_id", [](auto& r) { r.clear_agent_instance_id(); }},
      {"agent_address", [](auto& r) { r.set_agent_address(std::string(1000, 'x')); }},
      {"device_kind", [](auto& r) { r.clear_device_kind(); }},
      {"num_devices", [](auto& r) { r.set_num_devices(0); }},
      {"num_devices", [](auto& r) { r.set_num_devices(kMaxDevices + 1); }},
      {"attempt.generation",
       [](auto& r) { r.mutable_attempts(0)->mutable_attempt()->set_generation(0); }},
      {"attempt.job_id", [](auto& r) { r.mutable_attempts(0)->mutable_attempt()->clear_job_id(); }},
      {"attempt.phase", [](auto& r) { r.mutable_attempts(0)->clear_phase(); }},
      {"rank", [](auto& r) { r.mutable_attempts(0)->mutable_ranks(0)->set_rank(-1); }},
      {"rank.state", [](auto& r) { r.mutable_attempts(0)->mutable_ranks(0)->clear_state(); }},
  };
  for (const auto& [field, change] : cases) {
    v1::RegisterAgentRequest request = GoodRegistration();
    change(request);
    EXPECT_THAT(AgentRegisteredFromProto(request), IsError(kInvalid, HasSubstr(field + ":")));
  }
}

PrepareRanks PrepareOfRanks2And3() {
  return {.node = NodeId("b"),
          .ranks = {{.rank = Rank(2)}, {.rank = Rank(3)}},
          .node_of_rank = {NodeId("a"), NodeId("a"), NodeId("b"), NodeId("b")}};
}

v1::PrepareResponse AnswerWith(const std::vector<std::pair<int, std::string>>& addresses) {
  v1::PrepareResponse response;
  for (const auto& [rank, address] : addresses) {
    response.add_rank_addresses()->set_rank(rank);
    response.mutable_rank_addresses()->rbegin()->set_address(address);
  }
  return response;
}

TEST(RankAddressesFromProto, TakesAnAddressForEachRank) {
  ASSERT_OK_AND_ASSIGN(
      const std::vector<RankAddress> addresses,
      RankAddressesFromProto(AnswerWith({{3, "b:7"}, {2, "[::1]:8"}}), PrepareOfRanks2And3()));
  EXPECT_THAT(addresses, ElementsAre(RankAddress{.rank = Rank(3), .address = "b:7"},
                                     RankAddress{.rank = Rank(2), .address = "[::1]:8"}));
}

TEST(RankAddressesFromProto, RefusesOthers) {
  const std::vector<std::pair<std::vector<std::pair<int, std::string>>, std::string>> cases = {
      {{}, "where rank 2 listens"},
      {{{2, "b:7"}}, "where rank 3 listens"},
      {{{2, "b:7"}, {2, "b:8"}, {3, "b:9"}}, "where rank 2 listens"},
      {{{2, "b:7"}, {3, "b:8"}, {1, "b:9"}}, "rank 1 is not of node b"},
      {{{2, "b:7"}, {3, "b"}}, "the address of rank 3"},
      {{{2, "b:7"}, {3, std::string(300, 'b') + ":1"}}, "the address of rank 3"},
  };
  for (const auto& [addresses, error] : cases) {
    EXPECT_THAT(RankAddressesFromProto(AnswerWith(addresses), PrepareOfRanks2And3()),
                IsError(kInvalid, HasSubstr(error)));
  }
}

TEST(RankStateToProto, HasAnInverse) {
  int num_states = 0;
  for (int number = v1::RankState_MIN; number <= v1::RankState_MAX; ++number) {
    const auto proto = static_cast<v1::RankState>(number);
    const std::optional<RankState> state = RankStateFromProto(proto);
    EXPECT_EQ(state.has_value(), proto != v1::RANK_STATE_UNSPECIFIED) << number;
    if (!state) continue;
    ++num_states;
    EXPECT_EQ(RankStateToProto(*state), proto);
  }
  EXPECT_EQ(num_states, static_cast<int>(RankState::kStopped) + 1);
  EXPECT_EQ(RankStateFromProto(static_cast<v1::RankState>(99)), std::nullopt);
}

TEST(AgentHeartbeatFromProto, CutsLogsInsteadOfRefusingThem) {
  v1::HeartbeatRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  *request.add_attempts() = GoodAttempt();
  v1::RankExit* exit = request.mutable_attempts(0)->mutable_ranks(0)->mutable_exit();
  for (int i = 0; i < 100; ++i) exit->add_log_lines(std::string(i, 'x'));
  // A character of two bytes across the limit is left out whole.
  *exit->mutable_log_lines(99) = std::string(kMaxLogLineBytes - 1, 'x') + "\xc3\xa9 and more";
  ASSERT_OK_AND_ASSIGN(const AgentHeartbeat event, AgentHeartbeatFromProto(request));
  const std::vector<std::string>& lines = event.attempts[0].ranks[0].exit->log_lines;
  ASSERT_THAT(lines, SizeIs(kMaxLogLines));
  EXPECT_EQ(lines.back(), std::string(kMaxLogLineBytes - 1, 'x'));
  EXPECT_THAT(lines.front(), SizeIs(80));
}

TEST(AgentHeartbeatFromProto, SaysWhyRanksWereStopped) {
  v1::HeartbeatRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  for (const v1::RankState state : {v1::RANK_STATE_STOPPED, v1::RANK_STATE_LOST}) {
    v1::AttemptStatus& attempt = *request.add_attempts() = GoodAttempt();
    attempt.set_end_reason(std::string(kMaxReasonBytes + 1, 'x'));
    attempt.mutable_ranks(0)->set_state(state);
    attempt.mutable_ranks(0)->add_log_lines("step 3");
  }
  ASSERT_OK_AND_ASSIGN(const AgentHeartbeat event, AgentHeartbeatFromProto(request));
  const std::string reason(kMaxReasonBytes, 'x');
  EXPECT_EQ(event.attempts[0].end_reason, reason);
  EXPECT_EQ(event.attempts[0].ranks[0].stop_reason, reason);
  EXPECT_EQ(event.attempts[1].ranks[0].stop_reason, "") << "a lost rank was not stopped";
  EXPECT_THAT(event.attempts[0].ranks[0].log_lines, ElementsAre("step 3"));
}

TEST(AgentHeartbeatFromProto, BoundsWhatAVerificationSays) {
  v1::HeartbeatRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  *request.add_attempts() = GoodAttempt();
  ASSERT_OK_AND_ASSIGN(AgentHeartbeat event, AgentHeartbeatFromProto(request));
  EXPECT_EQ(event.attempts[0].ranks[0].verification, std::nullopt);
  v1::VerificationResult& result =
      *request.mutable_attempts(0)->mutable_ranks(0)->mutable_verification();
  result.set_worst(std::string(kMaxReasonBytes + 1, 'x'));
  result.set_num_gradients(-1);
  result.set_seconds(-2);
  result.set_error(0.5);
  ASSERT_OK_AND_ASSIGN(event, AgentHeartbeatFromProto(request));
  EXPECT_EQ(*event.attempts[0].ranks[0].verification,
            (VerificationResult{.worst = std::string(kMaxReasonBytes, 'x'), .error = 0.5}));
}

struct ClockCase {
  const char* what;
  int64_t sent_us;
  int64_t round_trip_us;
  int64_t now_us;
  int64_t ahead_us;
};

// The message was on its way for half of the round trip, give or take that half.
TEST(ClockFromProto, IsTheDifferenceWithinARoundTrip) {
  const ClockCase kCases[] = {
      {"the same", 10'000'000, 200, 10'000'100, 0},
      {"ahead", 13'000'000, 200, 10'000'100, 3'000'000},
      {"behind", 7'000'000, 200, 10'000'100, -3'000'000},
  };
  for (const ClockCase& c : kCases) {
    v1::HeartbeatRequest request;
    request.set_sent_time_us(c.sent_us);
    request.set_last_round_trip_us(c.round_trip_us);
    const auto clock = ClockFromProto(request, absl::FromUnixMicros(c.now_us));
    ASSERT_TRUE(clock.has_value()) << c.what;
    EXPECT_EQ(clock->ahead, absl::Microseconds(c.ahead_us)) << c.what;
    EXPECT_EQ(clock->uncertainty, absl::Microseconds(100)) << c.what;
  }
}

TEST(ClockFromProto, IsNotKnownFromHalfOfIt) {
  v1::HeartbeatRequest request;
  EXPECT_EQ(ClockFromProto(request, absl::Now()), std::nullopt);
  request.set_sent_time_us(10'000'000);
  EXPECT_EQ(ClockFromProto(request, absl::Now()), std::nullopt) << "the first heartbeat";
  request.set_last_round_trip_us(-5);
  EXPECT_EQ(ClockFromProto(request, absl::Now()), std::nullopt);
}

TEST(RanksReportedFromProto, TakesStepsAndStates) {
  v1::ReportRanksRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  v1::AttemptRankReport* report = request.add_reports();
  *report->mutable_attempt() = GoodAttempt().attempt();
  report->set_rank(3);
  report->mutable_step()->set_step(7);
  report->mutable_step()->set_loss(1.5);
  report->mutable_step()->set_tokens(-4);
  v1::AttemptRankReport* second = request.add_reports();
  *second = *report;
  *second->mutable_status() = GoodAttempt().ranks(0);
  ASSERT_OK_AND_ASSIGN(const RanksReported event, RanksReportedFromProto(request));
  ASSERT_THAT(event.reports, SizeIs(2));
  const auto& step = std::get<StepReport>(event.reports[0].report);
  EXPECT_EQ(step.step, 7);
  EXPECT_EQ(step.tokens, 0);
  EXPECT_FALSE(step.grad_norm.has_value());
  EXPECT_EQ(std::get<RankStatus>(event.reports[1].report).rank, Rank(3));
}

TEST(RanksReportedFromProto, TakesCheckpointsWithinBounds) {
  v1::ReportRanksRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  v1::AttemptRankReport* report = request.add_reports();
  *report->mutable_attempt() = GoodAttempt().attempt();
  v1::CheckpointReport& checkpoint = *report->mutable_checkpoint();
  checkpoint.set_event(v1::CheckpointReport::EVENT_NOT_WRITTEN);
  checkpoint.set_step(40);
  checkpoint.set_path(std::string(kMaxUriBytes + 1, 'p'));
  checkpoint.set_message(std::string(kMaxRankMessageBytes + 1, 'm'));
  checkpoint.set_size_bytes(-1);
  checkpoint.set_seconds(-1);
  ASSERT_OK_AND_ASSIGN(const RanksReported event, RanksReportedFromProto(request));
  EXPECT_EQ(std::get<CheckpointNote>(event.reports[0].report),
            (CheckpointNote{.event = CheckpointNote::Event::kNotWritten,
                            .step = 40,
                            .path = std::string(kMaxUriBytes, 'p'),
                            .message = std::string(kMaxRankMessageBytes, 'm')}));
  checkpoint.set_step(-1);
  EXPECT_THAT(RanksReportedFromProto(request), IsError(kInvalid, HasSubstr("checkpoint.step")));
  checkpoint.set_step(kMaxStep + 1);
  EXPECT_THAT(RanksReportedFromProto(request), IsError(kInvalid, HasSubstr("checkpoint.step")));
  checkpoint.set_step(1);
  checkpoint.clear_event();
  EXPECT_THAT(RanksReportedFromProto(request), IsError(kInvalid, HasSubstr("checkpoint.event")));
}

TEST(RanksReportedFromProto, RefusesEmptyReportsAndStepZero) {
  v1::ReportRanksRequest request;
  request.set_node_id("node-0");
  request.set_agent_instance_id("agent-1");
  v1::AttemptRankReport* report = request.add_reports();
  *report->mutable_attempt() = GoodAttempt().attempt();
  EXPECT_THAT(RanksReportedFromProto(request), IsError(kInvalid, HasSubstr("report")));
  report->mutable_step()->set_step(0);
  EXPECT_THAT(RanksReportedFromProto(request), IsError(kInvalid, HasSubstr("step")));
}

}  // namespace
}  // namespace autosp
