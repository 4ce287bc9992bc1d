#include "client/message_json.h"

#include <cmath>

#include "autosp/v1/job.pb.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(MessageToJson, WritesNumbersAsNumbersAndEnumsAsWords) {
  v1::Job job;
  job.set_job_id("j1");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_generation(int64_t{1} << 60);
  job.mutable_create_time()->set_seconds(1'700'000'000);
  job.mutable_create_time()->set_nanos(5'000'000);
  (*job.mutable_plan()->mutable_predicted_peak_bytes())["device"] = 12;
  job.add_outputs()->set_kind("weights");
  job.mutable_cause()->set_kind(v1::FailureCause::KIND_RANK_LOST);
  job.mutable_cause()->add_log_lines("a");
  const nlohmann::json json = MessageToJson(job);
  EXPECT_EQ(json["job_id"], "j1");
  EXPECT_EQ(json["state"], "running");
  EXPECT_EQ(json["generation"], int64_t{1} << 60);
  EXPECT_EQ(json["create_time"], "2023-11-14T22:13:20.005Z");
  EXPECT_EQ(json["plan"]["predicted_peak_bytes"]["device"], 12);
  EXPECT_EQ(json["outputs"][0]["kind"], "weights");
  EXPECT_EQ(json["cause"]["kind"], "rank_lost");
  EXPECT_EQ(json["cause"]["log_lines"], nlohmann::json({"a"}));
}

TEST(MessageToJson, LeavesOutOnlyWhatHasPresence) {
  const nlohmann::json json = MessageToJson(v1::JobProgress());
  EXPECT_EQ(json["last_step"], 0);
  EXPECT_FALSE(json.contains("last_validation_loss"));
  EXPECT_FALSE(json.contains("last_step_time"));
  EXPECT_EQ(MessageToJson(v1::Job())["ranks"], nlohmann::json::array());
}

TEST(MessageToJson, HasWordsForWhatIsNoNumber) {
  v1::StepReport report;
  report.set_loss(std::nan(""));
  report.set_grad_norm(HUGE_VAL);
  const nlohmann::json json = MessageToJson(report);
  EXPECT_EQ(json["loss"], "nan");
  EXPECT_EQ(json["grad_norm"], "inf");
}

}  // namespace
}  // namespace autosp
