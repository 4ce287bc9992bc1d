#include "proto/grpc_status.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "autosp/v1/common.pb.h"
#include "common/error_info.h"

namespace autosp {
namespace {

// The message is sent twice; of the details four bytes are sent for three.
constexpr size_t kMaxMessageBytes = 2000;
constexpr size_t kMaxInfoBytes = 250;  // of each text

// What a byte takes in the header of the message, where others than these are written as %FF.
size_t HeaderBytes(char byte) { return byte >= ' ' && byte <= '~' && byte != '%' ? 1 : 3; }

bool IsInsideOfCharacter(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// How many of the bytes of `text` take `max_bytes` in a header, and are whole characters.
template <typename Bytes>
size_t CountThatFit(const Bytes& text, size_t max_bytes) {
  size_t taken = 0;
  size_t count = 0;
  for (const char byte : text) {
    taken += HeaderBytes(byte);
    if (taken > max_bytes) break;
    ++count;
  }
  return count;
}

// The end stays: it is where messages say what to do.
std::string Shortened(absl::string_view text, size_t max_bytes) {
  if (CountThatFit(text, max_bytes) == text.size()) return std::string(text);
  const size_t half = max_bytes / 2;
  size_t begin = CountThatFit(text, half);
  size_t end = text.size() - CountThatFit(std::string(text.rbegin(), text.rend()), half);
  while (begin > 0 && IsInsideOfCharacter(text[begin])) --begin;
  while (end < text.size() && IsInsideOfCharacter(text[end])) ++end;
  return absl::StrCat(text.substr(0, begin), " [... ", end - begin, " bytes are left out ...] ",
                      text.substr(end));
}

ErrorInfo Shortened(ErrorInfo info) {
  info.subject = Shortened(info.subject, kMaxInfoBytes);
  info.remedy = Shortened(info.remedy, kMaxInfoBytes);
  for (auto& [key, value] : info.metadata) value = Shortened(value, kMaxInfoBytes);
  return info;
}

v1::ErrorInfo ErrorInfoToProto(const absl::Status& status) {
  const ErrorInfo info = Shortened(GetErrorInfo(status));
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
  const std::string message = Shortened(status.message(), kMaxMessageBytes);
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  details.add_details()->PackFrom(ErrorInfoToProto(status));
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
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
