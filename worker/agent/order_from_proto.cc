#include "worker/agent/order_from_proto.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "common/tcp.h"
#include "proto/verification_to_proto.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {
namespace {

absl::StatusOr<FileRole> RoleFromProto(v1::FileRef::Role role) {
  switch (role) {
    case v1::FileRef::ROLE_ARCHIVE:
      return FileRole::kArchive;
    case v1::FileRef::ROLE_WEIGHTS:
      return FileRole::kWeights;
    case v1::FileRef::ROLE_TRAINING_DATA:
      return FileRole::kTrainingData;
    case v1::FileRef::ROLE_VALIDATION_DATA:
      return FileRole::kValidationData;
    default:
      return InvalidArgument("role ", static_cast<int>(role), " is not known");
  }
}

absl::StatusOr<InputFile> FileFromProto(const v1::FileRef& ref) {
  absl::string_view path = ref.uri();
  if (!absl::ConsumePrefix(&path, "file://") || !absl::StartsWith(path, "/")) {
    return InvalidArgument("uri \"", ref.uri(), "\" is not of the form file:///absolute/path");
  }
  if (ref.size_bytes() < 0) return InvalidArgument(path, ": size_bytes is negative");
  ASSIGN_OR_RETURN(const FileRole role, RoleFromProto(ref.role()), path);
  return InputFile{.role = role, .path = std::string(path), .size_bytes = ref.size_bytes()};
}

absl::StatusOr<NodeDevice> DeviceFromProto(v1::DeviceKind kind) {
  if (kind == v1::DEVICE_KIND_CPU) return NodeDevice::kCpu;
  if (kind == v1::DEVICE_KIND_CUDA) return NodeDevice::kCuda;
  return InvalidArgument("device_kind is not set");
}

absl::Status CheckMesh(const v1::AttemptSpec& spec) {
  const v1::MeshShape& mesh = spec.mesh();
  if (spec.world_size() < 1 || spec.world_size() > kMaxWorldSize) {
    return InvalidArgument("world_size (", spec.world_size(), ") is not from 1 to ", kMaxWorldSize);
  }
  if (mesh.dp_size() < 1 || mesh.ulysses_size() < 1 || mesh.ring_size() < 1) {
    return InvalidArgument("a mesh axis has no size");
  }
  const int64_t product = int64_t{mesh.dp_size()} * mesh.ulysses_size() * mesh.ring_size();
  if (product == spec.world_size()) return absl::OkStatus();
  return InvalidArgument("dp_size * ulysses_size * ring_size (", product, ") is not world_size (",
                         spec.world_size(), ")");
}

absl::Status CheckProgram(const v1::AttemptSpec& spec) {
  const std::string digest = Sha256Hex(spec.program_text());
  if (digest == spec.program_digest()) return absl::OkStatus();
  return DataLoss("the program has digest ", digest, ", not ", spec.program_digest(),
                  " as announced; send it again");
}

absl::StatusOr<std::vector<RankSlot>> SlotsFromProto(const v1::PrepareRequest& request) {
  if (request.ranks_size() > kMaxDevices) {
    return InvalidArgument(request.ranks_size(), " ranks for one node; at most ", kMaxDevices);
  }
  std::vector<RankSlot> slots;
  std::set<int> local_ranks;
  for (const v1::RankAssignment& assigned : request.ranks()) {
    if (assigned.rank() < 0 || assigned.rank() >= request.attempt().world_size()) {
      return InvalidArgument("rank ", assigned.rank(), " is not below world_size (",
                             request.attempt().world_size(), ")");
    }
    if (assigned.local_rank() < 0 || assigned.local_rank() >= request.ranks_size() ||
        !local_ranks.insert(assigned.local_rank()).second) {
      return InvalidArgument("local_rank ", assigned.local_rank(), " of rank ", assigned.rank(),
                             " is not one of 0 to ", request.ranks_size() - 1, ", each used once");
    }
    slots.push_back({.rank = Rank(assigned.rank()),
                     .local_rank = assigned.local_rank(),
                     .device_index = assigned.device_index()});
  }
  return slots;
}

absl::StatusOr<Reservation> ReservationFromProto(const v1::PrepareRequest& request) {
  Reservation reservation;
  ASSIGN_OR_RETURN(reservation.key, KeyFromProto(request.attempt().attempt()));
  ASSIGN_OR_RETURN(reservation.slots, SlotsFromProto(request));
  reservation.commit_timeout = absl::Milliseconds(request.commit_timeout_ms());
  if (reservation.commit_timeout <= absl::ZeroDuration() ||
      reservation.commit_timeout > kMaxCommitTimeout) {
    return InvalidArgument("commit_timeout_ms (", request.commit_timeout_ms(),
                           ") is not from 1 ms to ", absl::FormatDuration(kMaxCommitTimeout));
  }
  return reservation;
}

absl::Status CheckPlaces(const v1::AttemptSpec& spec) {
  if (!absl::StartsWith(spec.output_directory(), "/")) {
    return InvalidArgument("output_directory \"", spec.output_directory(),
                           "\" is not an absolute path");
  }
  if (spec.device_budget_bytes() < 0) return InvalidArgument("device_budget_bytes is negative");
  if (spec.node_of_rank_size() != 0 && spec.node_of_rank_size() != spec.world_size()) {
    return InvalidArgument("node_of_rank names ", spec.node_of_rank_size(),
                           " nodes; world_size is ", spec.world_size());
  }
  // It becomes the name of a folder.
  return CheckId("rendezvous_id", spec.rendezvous_id());
}

absl::StatusOr<std::optional<VerificationOrder>> VerificationFromSpec(const v1::AttemptSpec& spec) {
  if (!spec.has_verification()) return std::nullopt;
  const v1::VerificationPrograms& programs = spec.verification();
  if (spec.world_size() != 1) {
    return InvalidArgument("world_size (", spec.world_size(),
                           ") is not 1, and a verification runs as one rank");
  }
  if (programs.one_device_text().empty()) {
    return InvalidArgument("verification.one_device_text is missing");
  }
  if (programs.needed_bytes() < 0) {
    return InvalidArgument("verification.needed_bytes is negative");
  }
  return VerificationOrder{.one_device_text = programs.one_device_text(),
                           .exact_text = programs.exact_text(),
                           .exported_text = programs.exported_text(),
                           .needed_bytes = programs.needed_bytes()};
}

}  // namespace

bool AttemptOrder::SpansNodes() const {
  return std::any_of(node_of_rank.begin(), node_of_rank.end(),
                     [this](const std::string& node) { return node != node_id.value(); });
}

absl::StatusOr<AttemptKey> KeyFromProto(const v1::AttemptRef& ref) {
  AttemptKey key;
  ASSIGN_OR_RETURN(key.job_id, JobId::Parse(ref.job_id()));
  if (ref.generation() < 1) {
    return InvalidArgument("generation (", ref.generation(), ") of job ", ref.job_id(),
                           " is not set; generations start at 1");
  }
  key.generation = Generation(ref.generation());
  return key;
}

absl::StatusOr<AttemptOrder> OrderFromProto(const v1::PrepareRequest& request) {
  const v1::AttemptSpec& spec = request.attempt();
  AttemptOrder order;
  ASSIGN_OR_RETURN(order.node_id, NodeId::Parse(request.node_id()));
  RETURN_IF_ERROR(CheckMesh(spec));
  ASSIGN_OR_RETURN(order.reservation, ReservationFromProto(request));
  RETURN_IF_ERROR(CheckProgram(spec));
  RETURN_IF_ERROR(CheckPlaces(spec));
  for (const v1::FileRef& ref : spec.files()) {
    ASSIGN_OR_RETURN(InputFile file, FileFromProto(ref));
    order.files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(order.device, DeviceFromProto(spec.device_kind()));
  order.world_size = spec.world_size();
  order.dp_size = spec.mesh().dp_size();
  order.ulysses_size = spec.mesh().ulysses_size();
  order.ring_size = spec.mesh().ring_size();
  order.job_yaml = spec.job_yaml();
  order.program_text = spec.program_text();
  order.program_digest = spec.program_digest();
  ASSIGN_OR_RETURN(order.verification, VerificationFromSpec(spec));
  order.reservation.is_verification = order.verification.has_value();
  order.output_directory = spec.output_directory();
  order.device_budget_bytes = spec.device_budget_bytes();
  order.rendezvous_id = spec.rendezvous_id();
  order.is_first_training = spec.is_first_training();
  order.node_of_rank = {spec.node_of_rank().begin(), spec.node_of_rank().end()};
  return order;
}

absl::StatusOr<PeersOrder> PeersFromProto(const v1::CommitRequest& request) {
  if (request.rank_addresses_size() > kMaxWorldSize) {
    return InvalidArgument(request.rank_addresses_size(), " rank_addresses; at most ",
                           kMaxWorldSize);
  }
  PeersOrder peers{.addresses = {}, .secret = request.secret()};
  for (const std::string& address : request.rank_addresses()) {
    RETURN_IF_ERROR(ParseHostPort(address).status());
    peers.addresses.push_back(address);
  }
  if (!peers.addresses.empty() && peers.secret.empty()) {
    return InvalidArgument("rank_addresses come without the attempt's secret");
  }
  return peers;
}

absl::StatusOr<absl::Duration> GraceFromProto(int64_t grace_ms) {
  const absl::Duration grace = absl::Milliseconds(grace_ms);
  if (grace >= absl::ZeroDuration() && grace <= kMaxStopGrace) return grace;
  return InvalidArgument("grace_ms (", grace_ms, ") is not from 0 to ",
                         absl::FormatDuration(kMaxStopGrace));
}

RankFailureInfo FailureFromProto(const v1::RankFailure& failure) {
  return {.code = static_cast<absl::StatusCode>(failure.status_code()),
          .message = failure.message(),
          .instruction = failure.instruction(),
          .step = failure.step(),
          .is_peer_lost = failure.is_peer_lost()};
}

RankResult ResultFromProto(const v1::RankFinished& finished) {
  RankResult result;
  for (const v1::OutputFile& file : finished.outputs()) {
    result.outputs.push_back({.kind = file.kind(),
                              .path = file.path(),
                              .sha256 = file.sha256(),
                              .size_bytes = file.size_bytes()});
  }
  if (finished.has_verification()) {
    result.verification = VerificationFromProto(finished.verification());
  }
  return result;
}

}  // namespace autosp::agent
