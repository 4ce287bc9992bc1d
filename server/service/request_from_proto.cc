#include "server/service/request_from_proto.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "server/service/limits.h"

namespace autosp {
namespace {

constexpr absl::string_view kFileScheme = "file:///";

// Every refusal of this file: what is wrong, and with which field.
template <typename... Parts>
absl::Status Refuse(absl::string_view field, const Parts&... parts) {
  return WithErrorInfo(InvalidArgument(field, ": ", parts...),
                       {.reason = "INVALID_REQUEST", .subject = std::string(field)});
}

template <typename Id>
absl::StatusOr<Id> ParseId(absl::string_view field, const std::string& text) {
  absl::StatusOr<Id> id = Id::Parse(text);
  if (!id.ok()) return Refuse(field, id.status().message());
  return id;
}

absl::Status CheckFile(int index, const v1::FileRef& file) {
  const std::string field = absl::StrCat("files[", index, "]");
  if (!v1::FileRef::Role_IsValid(file.role()) || file.role() == v1::FileRef::ROLE_UNSPECIFIED) {
    return Refuse(field, "role ", static_cast<int>(file.role()), " is unknown");
  }
  if (!absl::StartsWith(file.uri(), kFileScheme) || file.uri().size() > kMaxUriBytes) {
    return Refuse(field, "uri '", absl::CHexEscape(file.uri().substr(0, 100)),
                  "' is not file:///absolute/path of at most ", kMaxUriBytes, " bytes");
  }
  if (!IsSha256Hex(file.sha256())) return Refuse(field, "sha256 is not 64 lower case hex digits");
  if (file.size_bytes() < 0) return Refuse(field, "size_bytes ", file.size_bytes(), " is negative");
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PageSize(int32_t page_size) {
  if (page_size < 0) return Refuse("page_size", page_size, " is negative; 0 means the default");
  if (page_size == 0) return kDefaultPageSize;
  return std::min(page_size, kMaxPageSize);
}

absl::StatusOr<std::string> LastOfPage(absl::string_view kind, absl::string_view token) {
  if (token.empty()) return "";
  std::string text;
  absl::string_view last;
  if (token.size() <= 200 && absl::WebSafeBase64Unescape(token, &text)) {
    last = text;
    if (absl::ConsumePrefix(&last, absl::StrCat(kind, ":"))) return std::string(last);
  }
  return Refuse("page_token", "it is not one that this call has given; begin with an empty one");
}

absl::StatusOr<JobState> JobStateFromProto(int state) {
  switch (state) {
    case v1::JOB_STATE_QUEUED:
      return JobState::kQueued;
    case v1::JOB_STATE_VERIFYING:
      return JobState::kVerifying;
    case v1::JOB_STATE_STARTING:
      return JobState::kStarting;
    case v1::JOB_STATE_RUNNING:
      return JobState::kRunning;
    case v1::JOB_STATE_STOPPING:
      return JobState::kStopping;
    case v1::JOB_STATE_SUCCEEDED:
      return JobState::kSucceeded;
    case v1::JOB_STATE_FAILED:
      return JobState::kFailed;
    case v1::JOB_STATE_CANCELLED:
      return JobState::kCancelled;
    default:
      return Refuse("states", state, " is no job state");
  }
}

}  // namespace

std::string PageToken(absl::string_view kind, absl::string_view last) {
  return absl::WebSafeBase64Escape(absl::StrCat(kind, ":", last));
}

absl::StatusOr<Submission> SubmissionFromProto(const v1::SubmitJobRequest& request) {
  Submission submission;
  ASSIGN_OR_RETURN(submission.request_id, ParseId<RequestId>("request_id", request.request_id()));
  if (request.job_yaml().empty()) return Refuse("job_yaml", "it is empty");
  if (request.job_yaml().size() > kMaxJobYamlBytes) {
    return Refuse("job_yaml", request.job_yaml().size(), " bytes are above the limit of ",
                  kMaxJobYamlBytes);
  }
  if (request.files_size() > kMaxFiles) {
    return Refuse("files", request.files_size(), " are above the limit of ", kMaxFiles);
  }
  v1::SubmitJobRequest files;
  for (int i = 0; i < request.files_size(); ++i) {
    RETURN_IF_ERROR(CheckFile(i, request.files(i)));
    *files.add_files() = request.files(i);
  }
  submission.job_yaml = request.job_yaml();
  submission.files = files.SerializeAsString();
  // The digest of the job file has a fixed length, so that no two pairs make the same text.
  submission.digest = Sha256Hex(absl::StrCat(Sha256Hex(submission.job_yaml), submission.files));
  return submission;
}

absl::StatusOr<JobId> JobIdFromProto(const std::string& text) {
  return ParseId<JobId>("job_id", text);
}

absl::StatusOr<Cancellation> CancellationFromProto(const v1::CancelJobRequest& request) {
  Cancellation cancellation;
  // Cancelling twice is cancelling once, so the id of the request is only checked.
  RETURN_IF_ERROR(ParseId<RequestId>("request_id", request.request_id()).status());
  ASSIGN_OR_RETURN(cancellation.job, JobIdFromProto(request.job_id()));
  if (request.reason().size() > kMaxReasonBytes) {
    return Refuse("reason", request.reason().size(), " bytes are above the limit of ",
                  kMaxReasonBytes);
  }
  cancellation.reason = request.reason();
  return cancellation;
}

absl::StatusOr<JobPage> JobPageFromProto(const v1::ListJobsRequest& request) {
  JobPage page;
  ASSIGN_OR_RETURN(page.limit, PageSize(request.page_size()));
  ASSIGN_OR_RETURN(const std::string after, LastOfPage("jobs", request.page_token()));
  if (!after.empty()) {
    ASSIGN_OR_RETURN(page.after, ParseId<JobId>("page_token", after));
  }
  if (request.states_size() > static_cast<int>(kAllJobStates.size())) {
    return Refuse("states", request.states_size(), " are more than there are");
  }
  for (int state : request.states()) {
    ASSIGN_OR_RETURN(const JobState parsed, JobStateFromProto(state));
    page.states.push_back(parsed);
  }
  return page;
}

absl::StatusOr<NodePage> NodePageFromProto(const v1::ListNodesRequest& request) {
  NodePage page;
  ASSIGN_OR_RETURN(page.limit, PageSize(request.page_size()));
  ASSIGN_OR_RETURN(page.after, LastOfPage("nodes", request.page_token()));
  return page;
}

absl::StatusOr<LogQuery> LogQueryFromProto(const v1::GetLogsRequest& request) {
  LogQuery query;
  ASSIGN_OR_RETURN(query.job, JobIdFromProto(request.job_id()));
  if (request.rank() < 0) return Refuse("rank", request.rank(), " is negative");
  if (request.generation() < 0) return Refuse("generation", request.generation(), " is negative");
  if (request.tail_lines() < 0) return Refuse("tail_lines", request.tail_lines(), " is negative");
  query.rank = Rank(request.rank());
  query.generation = request.generation();
  query.tail_lines = request.tail_lines();
  query.follow = request.follow();
  return query;
}

}  // namespace autosp
