#include "worker/agent/status_to_proto.h"

#include <google/protobuf/util/json_util.h>

#include "common/errors.h"
#include "proto/rank_state_to_proto.h"
#include "proto/verification_to_proto.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {
namespace {

v1::AttemptStatus::Phase PhaseToProto(AttemptPhase phase) {
  switch (phase) {
    // Devices are reserved, which is what the coordinator needs to know; whether the files are good
    // is what Prepare answers.
    case AttemptPhase::kPreparing:
    case AttemptPhase::kPrepared:
      return v1::AttemptStatus::PHASE_PREPARED;
    case AttemptPhase::kRunning:
    case AttemptPhase::kStopping:
      return v1::AttemptStatus::PHASE_RUNNING;
    case AttemptPhase::kEnded:
      return v1::AttemptStatus::PHASE_ENDED;
  }
  return v1::AttemptStatus::PHASE_UNSPECIFIED;
}

void FailureToProto(const RankFailureInfo& failure, v1::RankFailure& proto) {
  proto.set_status_code(static_cast<int>(failure.code));
  proto.set_message(failure.message);
  proto.set_instruction(failure.instruction);
  proto.set_step(failure.step);
  proto.set_is_peer_lost(failure.is_peer_lost);
}

}  // namespace

v1::AttemptRef RefToProto(const AttemptKey& key) {
  v1::AttemptRef ref;
  ref.set_job_id(key.job_id.value());
  ref.set_generation(key.generation.value());
  return ref;
}

v1::RankStatus RankToProto(const RankRecord& rank, const std::vector<std::string>& log_lines) {
  v1::RankStatus proto;
  proto.set_rank(static_cast<int32_t>(rank.slot.rank.value()));
  proto.set_state(RankStateToProto(rank.state));
  proto.set_pid(rank.pid);
  proto.set_last_step(rank.last_step);
  if (rank.exit.has_value() || rank.failure.has_value()) {
    v1::RankExit& exit = *proto.mutable_exit();
    exit.set_exit_code(rank.exit.has_value() ? rank.exit->exit_code : -1);
    exit.set_signal_number(rank.exit.has_value() ? rank.exit->signal_number : 0);
    if (rank.failure.has_value()) FailureToProto(*rank.failure, *exit.mutable_failure());
  }
  // The log of a rank that has ended is complete; before that it is no more than a glimpse.
  if (!log_lines.empty()) {
    auto& lines =
        rank.is_settled ? *proto.mutable_exit()->mutable_log_lines() : *proto.mutable_log_lines();
    lines.Add(log_lines.begin(), log_lines.end());
  }
  for (const OutputFileInfo& output : rank.result.outputs) {
    v1::OutputFile& file = *proto.add_outputs();
    file.set_kind(output.kind);
    file.set_path(output.path);
    file.set_sha256(output.sha256);
    file.set_size_bytes(output.size_bytes);
  }
  if (rank.result.verification) {
    *proto.mutable_verification() = VerificationToProto(*rank.result.verification);
  }
  return proto;
}

v1::AttemptStatus AttemptToProto(const Attempt& attempt) {
  v1::AttemptStatus proto;
  *proto.mutable_attempt() = RefToProto(attempt.key);
  proto.set_phase(PhaseToProto(attempt.phase));
  proto.set_end_reason(attempt.end_reason);
  return proto;
}

v1::RankSpec RankSpecToProto(const AttemptOrder& order, const RankSlot& slot,
                             const RankPlaces& places) {
  v1::RankSpec spec;
  *spec.mutable_attempt() = RefToProto(order.key());
  spec.set_rank(static_cast<int32_t>(slot.rank.value()));
  spec.set_local_rank(slot.local_rank);
  spec.set_world_size(static_cast<int32_t>(order.world_size));
  spec.set_local_world_size(static_cast<int32_t>(order.reservation.slots.size()));
  spec.mutable_mesh()->set_dp_size(static_cast<int32_t>(order.dp_size));
  spec.mutable_mesh()->set_ulysses_size(static_cast<int32_t>(order.ulysses_size));
  spec.mutable_mesh()->set_ring_size(static_cast<int32_t>(order.ring_size));
  spec.set_node_id(places.node_id);
  spec.set_device_kind(order.device == NodeDevice::kCuda ? v1::DEVICE_KIND_CUDA
                                                         : v1::DEVICE_KIND_CPU);
  spec.set_device_index(slot.device_index);
  spec.set_device_budget_bytes(order.device_budget_bytes);
  spec.set_program_path(places.program_path);
  spec.set_program_digest(order.program_digest);
  spec.set_job_yaml_path(places.job_yaml_path);
  spec.set_output_directory(order.output_directory);
  spec.set_rendezvous_directory(places.rendezvous_directory);
  spec.set_shm_prefix(places.shm_prefix);
  spec.set_rendezvous_timeout_ms(absl::ToInt64Milliseconds(kRendezvousTimeout));
  spec.set_agent_socket_path(places.agent_socket_path);
  spec.set_num_threads(places.num_threads);
  spec.set_peers_path(places.peers_path);
  if (order.verification) {
    spec.mutable_verification()->set_one_device_path(places.verification.one_device);
    spec.mutable_verification()->set_exact_path(places.verification.exact);
    spec.mutable_verification()->set_exported_path(places.verification.exported);
  }
  spec.set_is_first_training(order.is_first_training);
  spec.mutable_node_of_rank()->Add(order.node_of_rank.begin(), order.node_of_rank.end());
  return spec;
}

v1::RankPeers PeersToProto(const PeersOrder& peers) {
  v1::RankPeers proto;
  proto.mutable_addresses()->Add(peers.addresses.begin(), peers.addresses.end());
  proto.set_secret(peers.secret);
  return proto;
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (status.ok()) return json;
  return Internal("cannot write a message as JSON: ", status.ToString());
}

}  // namespace autosp::agent
