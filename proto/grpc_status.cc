#include "proto/grpc_status.h"

#include <string>

#include "autosp/v1/common.pb.h"
#include "common/error_info.h"

namespace autosp {
namespace {

v1::ErrorInfo ErrorInfoToProto(const absl::Status& status) {
  const ErrorInfo info = GetErrorInfo(status);
  v1::ErrorInfo proto;
  proto.set_reason(info.reason.empty() ? absl::StatusCodeToString(status.code()) : info.reason);
  proto.set_subject(info.subject);
  proto.set_remedy(info.remedy);
  proto.mutable_metadata()->insert(info.metadata.begin(), info.metadata.end());
  return proto;
}

ErrorInfo ErrorInfoFromProto(const v1::ErrorInfo& proto) {
  return {.reason = proto.reason(),
          .subject = proto.subject(),
          .remedy = proto.remedy(),
          .metadata = {proto.metadata().begin(), proto.metadata().end()}};
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  details.add_details()->PackFrom(ErrorInfoToProto(status));
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::StatusDetails details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : details.details()) {
    v1::ErrorInfo info;
    if (detail.UnpackTo(&info)) return WithErrorInfo(result, ErrorInfoFromProto(info));
  }
  return result;
}

}  // namespace autosp
