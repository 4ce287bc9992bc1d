#include "worker/rank/rank_config_from_proto.h"

#include <google/protobuf/util/json_util.h>

#include "autosp/v1/rank.pb.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr int64_t kMaxSpecBytes = 1 << 20;
constexpr int64_t kMaxPeersBytes = 16 << 20;
constexpr int64_t kMaxWorldSize = 1 << 16;

// Fields of a newer agent that this rank does not know are no reason to stop.
absl::Status ReadJson(const std::string& path, int64_t max_bytes,
                      google::protobuf::Message& message) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path, max_bytes));
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &message, options);
  return parsed.ok() ? absl::OkStatus() : InvalidArgument(path, ": ", parsed.ToString());
}

absl::Status ReadPeers(const v1::RankSpec& spec, RankConfig& config) {
  if (spec.peers_path().empty()) return absl::OkStatus();
  v1::RankPeers peers;
  RETURN_IF_ERROR(ReadJson(spec.peers_path(), kMaxPeersBytes, peers));
  if (peers.addresses_size() != spec.world_size() ||
      spec.node_of_rank_size() != spec.world_size()) {
    return InvalidArgument(spec.peers_path(), ": ", peers.addresses_size(), " addresses on ",
                           spec.node_of_rank_size(), " nodes are not those of ", spec.world_size(),
                           " ranks");
  }
  config.rank_addresses = {peers.addresses().begin(), peers.addresses().end()};
  config.secret = peers.secret();
  return absl::OkStatus();
}

absl::Status Check(const v1::RankSpec& spec) {
  if (spec.world_size() < 1 || spec.world_size() > kMaxWorldSize) {
    return InvalidArgument("world_size: ", spec.world_size(), " is not in 1 to ", kMaxWorldSize);
  }
  if (spec.rank() < 0 || spec.rank() >= spec.world_size()) {
    return InvalidArgument("rank: ", spec.rank(), " is not one of ", spec.world_size());
  }
  const v1::MeshShape& mesh = spec.mesh();
  if (mesh.dp_size() < 1 || mesh.ulysses_size() < 1 || mesh.ring_size() < 1 ||
      int64_t{mesh.dp_size()} * mesh.ulysses_size() * mesh.ring_size() != spec.world_size()) {
    return InvalidArgument("mesh: dp ", mesh.dp_size(), " x ulysses ", mesh.ulysses_size(),
                           " x ring ", mesh.ring_size(), " is not world_size ", spec.world_size());
  }
  if (spec.device_kind() == v1::DEVICE_KIND_CUDA && spec.device_index() < 0) {
    return InvalidArgument("device_index: ", spec.device_index(), " is no GPU");
  }
  if (spec.program_path().empty()) return InvalidArgument("program_path: is missing");
  if (spec.job_yaml_path().empty()) return InvalidArgument("job_yaml_path: is missing");
  if (spec.output_directory().empty()) return InvalidArgument("output_directory: is missing");
  if (spec.has_verification() && spec.verification().one_device_path().empty()) {
    return InvalidArgument("verification.one_device_path: is missing");
  }
  if (spec.world_size() > 1 && spec.shm_prefix().empty()) {
    return InvalidArgument("shm_prefix: is missing");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RankConfig> ReadRankSpec(const std::string& path) {
  v1::RankSpec spec;
  RETURN_IF_ERROR(WithContext(ReadJson(path, kMaxSpecBytes, spec), "rank spec"));
  RETURN_IF_ERROR(WithContext(Check(spec), "rank spec ", path));
  RankConfig config;
  config.job_id = spec.attempt().job_id();
  config.generation = spec.attempt().generation();
  config.is_restart = config.generation > 1 && !spec.is_first_training();
  config.rank = spec.rank();
  config.world_size = spec.world_size();
  config.local_world_size = spec.local_world_size() > 0 ? spec.local_world_size() : 1;
  config.mesh.dp = spec.mesh().dp_size();
  config.mesh.ulysses = spec.mesh().ulysses_size();
  config.mesh.ring = spec.mesh().ring_size();
  if (spec.device_kind() == v1::DEVICE_KIND_CUDA) config.gpu = spec.device_index();
  config.device_budget_bytes = spec.device_budget_bytes();
  config.program_path = spec.program_path();
  config.program_digest = spec.program_digest();
  config.job_yaml_path = spec.job_yaml_path();
  config.output_directory = spec.output_directory();
  config.shm_prefix = spec.shm_prefix();
  if (spec.rendezvous_timeout_ms() > 0) {
    config.rendezvous_timeout = absl::Milliseconds(spec.rendezvous_timeout_ms());
  }
  if (spec.has_verification()) {
    config.verification = {.one_device_path = spec.verification().one_device_path(),
                           .exact_path = spec.verification().exact_path(),
                           .exported_path = spec.verification().exported_path()};
  }
  config.agent_socket_path = spec.agent_socket_path();
  config.num_threads = spec.num_threads();
  config.node_of_rank = {spec.node_of_rank().begin(), spec.node_of_rank().end()};
  RETURN_IF_ERROR(WithContext(ReadPeers(spec, config), "rank spec ", path));
  return config;
}

}  // namespace autosp
