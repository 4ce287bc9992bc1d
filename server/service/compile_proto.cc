#include "server/service/compile_proto.h"

#include "common/error_info.h"
#include "common/errors.h"

namespace autosp {
namespace {

v1::CompileError ErrorToProto(const absl::Status& status) {
  const ErrorInfo info = GetErrorInfo(status);
  v1::CompileError proto;
  proto.set_code(static_cast<int32_t>(status.code()));
  proto.set_message(std::string(status.message()));
  proto.set_reason(info.reason);
  proto.set_subject(info.subject);
  proto.set_remedy(info.remedy);
  proto.mutable_metadata()->insert(info.metadata.begin(), info.metadata.end());
  return proto;
}

absl::Status ErrorFromProto(const v1::CompileError& proto) {
  const absl::Status status(static_cast<absl::StatusCode>(proto.code()), proto.message());
  return WithErrorInfo(status, {.reason = proto.reason(),
                                .subject = proto.subject(),
                                .remedy = proto.remedy(),
                                .metadata = {proto.metadata().begin(), proto.metadata().end()}});
}

}  // namespace

v1::CompileRequest CompileRequestToProto(const JobToCompile& job, int64_t memory_limit_bytes) {
  v1::CompileRequest proto;
  proto.set_job_yaml(job.job_yaml);
  for (const NodeSpec& node : job.cluster.nodes) {
    v1::CompileNode& out = *proto.add_nodes();
    out.set_name(node.name);
    out.set_address(node.address);
    out.set_num_devices(node.devices);
    out.set_device_memory_bytes(node.device_memory_bytes);
    out.set_kind(static_cast<int32_t>(node.kind));
    if (node.host_memory_bytes) out.set_host_memory_bytes(*node.host_memory_bytes);
  }
  proto.set_intra_node_gb_per_s(job.cluster.links.intra_node_gb_per_s);
  proto.set_inter_node_gb_per_s(job.cluster.links.inter_node_gb_per_s);
  proto.set_memory_limit_bytes(memory_limit_bytes);
  return proto;
}

JobToCompile CompileRequestFromProto(const v1::CompileRequest& proto) {
  JobToCompile job;
  job.job_yaml = proto.job_yaml();
  for (const v1::CompileNode& node : proto.nodes()) {
    NodeSpec& out = job.cluster.nodes.emplace_back();
    out.name = node.name();
    out.address = node.address();
    out.devices = node.num_devices();
    out.device_memory_bytes = node.device_memory_bytes();
    out.kind = static_cast<DeviceKind>(node.kind());
    if (node.has_host_memory_bytes()) out.host_memory_bytes = node.host_memory_bytes();
  }
  job.cluster.links = {.intra_node_gb_per_s = proto.intra_node_gb_per_s(),
                       .inter_node_gb_per_s = proto.inter_node_gb_per_s()};
  return job;
}

v1::CompileAnswer CompileAnswerToProto(const absl::StatusOr<CompiledJob>& compiled) {
  v1::CompileAnswer proto;
  if (!compiled.ok()) {
    *proto.mutable_error() = ErrorToProto(compiled.status());
    return proto;
  }
  proto.set_program_text(compiled->program_text);
  proto.set_plan_digest(compiled->plan_digest);
  proto.set_plan_summary(compiled->summary.SerializeAsString());
  proto.set_plan_text(compiled->plan_text);
  if (compiled->verification) {
    proto.set_verification(compiled->verification->attempt);
    proto.set_verification_digest(compiled->verification->digest);
  }
  return proto;
}

std::optional<absl::StatusOr<CompiledJob>> CompileAnswerFromProto(const std::string& bytes) {
  v1::CompileAnswer proto;
  if (!proto.ParseFromString(bytes)) return std::nullopt;
  if (proto.has_error()) {
    if (proto.error().code() == 0) return std::nullopt;
    return ErrorFromProto(proto.error());
  }
  if (proto.program_text().empty()) return std::nullopt;
  CompiledJob compiled{.program_text = std::move(*proto.mutable_program_text()),
                       .plan_digest = proto.plan_digest(),
                       .summary = {},
                       .plan_text = std::move(*proto.mutable_plan_text()),
                       .verification = {}};
  if (!compiled.summary.ParseFromString(proto.plan_summary())) {
    // A name in the archive that is no text is the only way to this.
    return InvalidArgument(
        "the plan has text that is not UTF-8; export the model with names in UTF-8");
  }
  if (!proto.verification().empty()) {
    compiled.verification = {.attempt = std::move(*proto.mutable_verification()),
                             .digest = proto.verification_digest()};
  }
  return compiled;
}

}  // namespace autosp
