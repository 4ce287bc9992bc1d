#include "server/service/prepare_to_proto.h"

#include "absl/strings/str_cat.h"
#include "autosp/v1/coordinator.pb.h"
#include "common/errors.h"
#include "common/secret.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "server/service/agent_from_proto.h"
#include "server/service/limits.h"

namespace autosp {

namespace {

// One rank, for all of the plan's.
absl::Status ReplaceByVerification(const Job& job, const JobInputs& inputs,
                                   v1::AttemptSpec& attempt) {
  v1::AttemptSpec verification;
  if (!verification.ParseFromString(inputs.verification) || !verification.has_verification()) {
    return DataLoss("job ", job.id, ": what verifies it cannot be read");
  }
  attempt.MergeFrom(verification);
  attempt.set_world_size(1);
  attempt.mutable_mesh()->set_dp_size(1);
  attempt.mutable_mesh()->set_ulysses_size(1);
  attempt.mutable_mesh()->set_ring_size(1);
  return absl::OkStatus();
}

}  // namespace

v1::AttemptSpec VerificationOrderToProto(const Verification& verification) {
  v1::AttemptSpec proto;
  proto.set_job_yaml(CanonicalJobYaml(verification.job));
  proto.set_program_text(verification.plan);
  proto.set_program_digest(Sha256Hex(verification.plan));
  v1::VerificationPrograms& programs = *proto.mutable_verification();
  programs.set_one_device_text(verification.one_device);
  programs.set_exact_text(verification.exact);
  programs.set_exported_text(verification.exported);
  programs.set_needed_bytes(verification.needed_bytes);
  return proto;
}

absl::StatusOr<v1::PrepareRequest> PrepareToProto(const PrepareRanks& command, const Job& job,
                                                  const JobInputs& inputs) {
  v1::SubmitJobRequest files;
  v1::PlanSummary plan;
  if (!files.ParseFromString(inputs.files) || !plan.ParseFromString(inputs.plan_summary)) {
    return DataLoss("job ", job.id, ": its stored inputs cannot be read");
  }
  v1::PrepareRequest request;
  request.set_node_id(command.node.value());
  // The commit follows when the slowest node has prepared.
  request.set_commit_timeout_ms(absl::ToInt64Milliseconds(2 * kPrepareDeadline));
  for (const RankAssignment& rank : command.ranks) {
    v1::RankAssignment* out = request.add_ranks();
    out->set_rank(static_cast<int32_t>(rank.rank.value()));
    out->set_local_rank(static_cast<int32_t>(rank.local_rank));
    out->set_device_index(static_cast<int32_t>(rank.device_index));
  }
  v1::AttemptSpec& attempt = *request.mutable_attempt();
  *attempt.mutable_attempt() = AttemptToProto(command.attempt);
  attempt.set_job_name(job.request->name);
  attempt.set_world_size(static_cast<int32_t>(job.request->world_size));
  *attempt.mutable_mesh() = plan.mesh();
  attempt.set_job_yaml(inputs.job_yaml);
  attempt.set_program_text(inputs.program_text);
  attempt.set_program_digest(job.request->plan_digest);
  *attempt.mutable_files() = files.files();
  attempt.set_output_directory(job.request->output_directory);
  attempt.set_device_budget_bytes(inputs.device_budget_bytes);
  attempt.set_device_kind(job.request->device_kind == "cuda" ? v1::DEVICE_KIND_CUDA
                                                             : v1::DEVICE_KIND_CPU);
  attempt.set_rendezvous_id(absl::StrCat("autosp-", job.id, "-", command.attempt.generation));
  for (const NodeId& node : command.node_of_rank) attempt.add_node_of_rank(node.value());
  attempt.set_is_first_training(command.is_first_training);
  if (command.kind == AttemptKind::kVerification) {
    RETURN_IF_ERROR(ReplaceByVerification(job, inputs, attempt));
  }
  return request;
}

v1::CommitRequest CommitToProto(const CommandAttempt& command, const Job& job) {
  v1::CommitRequest request;
  request.set_node_id(command.node.value());
  *request.mutable_attempt() = AttemptToProto(command.attempt);
  if (command.rank_addresses.empty()) return request;
  request.mutable_rank_addresses()->Add(command.rank_addresses.begin(),
                                        command.rank_addresses.end());
  // Another one for each attempt: ranks of an older one cannot pass for its own.
  request.set_secret(
      HmacSha256Hex(job.request->secret, absl::StrCat(job.id, "/", command.attempt.generation)));
  return request;
}

}  // namespace autosp
