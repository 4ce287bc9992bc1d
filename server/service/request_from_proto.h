// What users send, checked. The only place that looks at it before it is typed.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "autosp/v1/coordinator.pb.h"
#include "common/ids.h"
#include "server/store/job_store.h"

namespace autosp {

struct Submission {
  RequestId request_id;
  std::string job_yaml;
  std::string files;   // serialized files of the request, for JobInputs
  std::string digest;  // of job_yaml and files
};
absl::StatusOr<Submission> SubmissionFromProto(const v1::SubmitJobRequest& request);

absl::StatusOr<JobId> JobIdFromProto(const std::string& text);

struct Cancellation {
  JobId job;
  std::string reason;
};
absl::StatusOr<Cancellation> CancellationFromProto(const v1::CancelJobRequest& request);

absl::StatusOr<JobPage> JobPageFromProto(const v1::ListJobsRequest& request);

struct NodePage {
  int64_t limit = 0;
  std::string after;  // the last node of the page before
};
absl::StatusOr<NodePage> NodePageFromProto(const v1::ListNodesRequest& request);

struct LogQuery {
  JobId job;
  Rank rank;
  int64_t generation = 0;
  int64_t tail_lines = 0;
  bool follow = false;
};
absl::StatusOr<LogQuery> LogQueryFromProto(const v1::GetLogsRequest& request);

// Page tokens say of what kind they are, so that one of another list is found out.
std::string PageToken(absl::string_view kind, absl::string_view last);

}  // namespace autosp
