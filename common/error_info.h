// What a program can read from an error, beside the sentence for people: a reason that is a
// constant, the subject, the remedy. It travels inside absl::Status as payloads and over gRPC as
// autosp.v1.ErrorInfo (proto/grpc_status.h).
//
//   return WithErrorInfo(NotFound("job ", id, " does not exist"), {.reason = "JOB_NOT_FOUND"});

#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace autosp {

struct ErrorInfo {
  std::string reason = {};   // upper snake case: "JOB_NOT_FOUND"
  std::string subject = {};  // as the user wrote it: "training.seq_len"
  std::string remedy = {};   // a sentence; may be empty
  std::map<std::string, std::string> metadata = {};

  bool operator==(const ErrorInfo&) const = default;
};

inline constexpr absl::string_view kErrorReasonUrl = "autosp/reason";
inline constexpr absl::string_view kErrorSubjectUrl = "autosp/subject";
inline constexpr absl::string_view kErrorRemedyUrl = "autosp/remedy";
inline constexpr absl::string_view kErrorMetadataUrlPrefix = "autosp/metadata/";

// Leaves an ok status alone.
inline absl::Status WithErrorInfo(absl::Status status, const ErrorInfo& info) {
  status.SetPayload(kErrorReasonUrl, absl::Cord(info.reason));
  status.SetPayload(kErrorSubjectUrl, absl::Cord(info.subject));
  status.SetPayload(kErrorRemedyUrl, absl::Cord(info.remedy));
  for (const auto& [key, value] : info.metadata) {
    status.SetPayload(absl::StrCat(kErrorMetadataUrlPrefix, key), absl::Cord(value));
  }
  return status;
}

// Without WithErrorInfo every field is empty.
inline ErrorInfo GetErrorInfo(const absl::Status& status) {
  ErrorInfo info;
  status.ForEachPayload([&info](absl::string_view url, const absl::Cord& payload) {
    if (url == kErrorReasonUrl) info.reason = std::string(payload);
    if (url == kErrorSubjectUrl) info.subject = std::string(payload);
    if (url == kErrorRemedyUrl) info.remedy = std::string(payload);
    if (absl::ConsumePrefix(&url, kErrorMetadataUrlPrefix)) {
      info.metadata[std::string(url)] = std::string(payload);
    }
  });
  return info;
}

}  // namespace autosp
