#include "server/service/request_from_proto.h"

#include <functional>

#include "common/error_info.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/service/limits.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::SubmitJobRequest GoodSubmission() {
  v1::SubmitJobRequest request;
  request.set_request_id("request-1");
  request.set_job_yaml("version: 1");
  v1::FileRef* file = request.add_files();
  file->set_role(v1::FileRef::ROLE_ARCHIVE);
  file->set_uri("file:///m/model.pt2");
  file->set_sha256(std::string(64, 'a'));
  file->set_size_bytes(10);
  return request;
}

TEST(SubmissionFromProto, TakesAGoodOne) {
  ASSERT_OK_AND_ASSIGN(const Submission submission, SubmissionFromProto(GoodSubmission()));
  EXPECT_EQ(submission.request_id, RequestId("request-1"));
  v1::SubmitJobRequest files;
  ASSERT_TRUE(files.ParseFromString(submission.files));
  EXPECT_EQ(files.files_size(), 1);
  EXPECT_EQ(files.job_yaml(), "");
}

TEST(SubmissionFromProto, NamesTheFieldThatIsWrong) {
  using Change = std::function<void(v1::SubmitJobRequest&)>;
  const std::vector<std::pair<std::string, Change>> cases = {
      {"request_id", [](auto& r) { r.clear_request_id(); }},
      {"request_id", [](auto& r) { r.set_request_id("../x"); }},
      {"request_id", [](auto& r) { r.set_request_id(std::string(100, 'x')); }},
      {"job_yaml", [](auto& r) { r.clear_job_yaml(); }},
      {"job_yaml", [](auto& r) { r.set_job_yaml(std::string(kMaxJobYamlBytes + 1, ' ')); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->clear_role(); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->set_role(v1::FileRef::Role(99)); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->set_uri("/m/model.pt2"); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->set_uri("http://host/m"); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->set_sha256("AA"); }},
      {"files[0]", [](auto& r) { r.mutable_files(0)->set_size_bytes(-1); }},
  };
  for (const auto& [field, change] : cases) {
    v1::SubmitJobRequest request = GoodSubmission();
    change(request);
    const absl::Status status = SubmissionFromProto(request).status();
    EXPECT_THAT(status, IsError(kInvalid, HasSubstr(field + ":")));
    EXPECT_EQ(GetErrorInfo(status).subject, field);
    EXPECT_EQ(GetErrorInfo(status).reason, "INVALID_REQUEST");
  }
}

TEST(CancellationFromProto, ChecksIdsAndReason) {
  v1::CancelJobRequest request;
  request.set_request_id("r");
  request.set_job_id("job-1");
  request.set_reason("done");
  ASSERT_OK_AND_ASSIGN(const Cancellation cancellation, CancellationFromProto(request));
  EXPECT_EQ(cancellation.job, JobId("job-1"));
  EXPECT_EQ(cancellation.reason, "done");
  request.set_reason(std::string(kMaxReasonBytes + 1, 'x'));
  EXPECT_THAT(CancellationFromProto(request), IsError(kInvalid, HasSubstr("reason")));
  request.clear_job_id();
  EXPECT_THAT(CancellationFromProto(request), IsError(kInvalid, HasSubstr("job_id")));
}

TEST(JobPageFromProto, BoundsThePageAndReadsItsOwnTokens) {
  v1::ListJobsRequest request;
  ASSERT_OK_AND_ASSIGN(JobPage page, JobPageFromProto(request));
  EXPECT_EQ(page.limit, kDefaultPageSize);
  request.set_page_size(1'000'000);
  request.set_page_token(PageToken("jobs", "job-1"));
  request.add_states(v1::JOB_STATE_FAILED);
  ASSERT_OK_AND_ASSIGN(page, JobPageFromProto(request));
  EXPECT_EQ(page.limit, kMaxPageSize);
  EXPECT_EQ(page.after, JobId("job-1"));
  EXPECT_THAT(page.states, ElementsAre(JobState::kFailed));
}

TEST(JobPageFromProto, RefusesForeignTokensAndStates) {
  for (const std::string& token : {PageToken("nodes", "n1"), std::string("???"),
                                   std::string(300, 'a'), PageToken("jobs", "../../x")}) {
    v1::ListJobsRequest request;
    request.set_page_token(token);
    EXPECT_THAT(JobPageFromProto(request), IsError(kInvalid, HasSubstr("page_token")));
  }
  v1::ListJobsRequest request;
  request.add_states(v1::JOB_STATE_UNSPECIFIED);
  EXPECT_THAT(JobPageFromProto(request), IsError(kInvalid, HasSubstr("states")));
  request.clear_states();
  request.set_page_size(-1);
  EXPECT_THAT(JobPageFromProto(request), IsError(kInvalid, HasSubstr("page_size")));
}

TEST(LogQueryFromProto, RefusesWhatIsNegative) {
  v1::GetLogsRequest request;
  request.set_job_id("job-1");
  EXPECT_THAT(LogQueryFromProto(request), IsOk());
  request.set_rank(-1);
  EXPECT_THAT(LogQueryFromProto(request), IsError(kInvalid, HasSubstr("rank")));
  request.set_rank(0);
  request.set_tail_lines(-5);
  EXPECT_THAT(LogQueryFromProto(request), IsError(kInvalid, HasSubstr("tail_lines")));
}

}  // namespace
}  // namespace autosp
