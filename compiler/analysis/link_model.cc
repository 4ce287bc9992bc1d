#include "compiler/analysis/link_model.h"

#include <algorithm>

namespace autosp {
namespace {

// Of a call until its first byte: a launch and a handshake.
constexpr double kIntraLatencySeconds = 8e-6;
constexpr double kInterLatencySeconds = 20e-6;
constexpr double kAttentionEfficiency = 0.5;

// Of a core of a CPU, about.
constexpr double kCoreFlops = 1e11;

}  // namespace

LinkModel::LinkModel(const ClusterSpec& cluster, const Mesh& mesh)
    : mesh_(mesh), links_(cluster.links) {
  if (!cluster.nodes.empty()) kind_ = cluster.nodes.front().kind;
  const auto world_size = static_cast<size_t>(mesh.world_size());
  for (size_t node = 0; node < cluster.nodes.size(); ++node) {
    for (int64_t i = 0; i < cluster.nodes[node].devices; ++i) {
      if (node_of_rank_.size() < world_size) node_of_rank_.push_back(static_cast<int32_t>(node));
    }
  }
  node_of_rank_.resize(world_size, static_cast<int32_t>(cluster.nodes.size()));
}

const LinkModel::Reach& LinkModel::ReachOf(const AxisList& axes) const {
  const auto [found, is_new] = reaches_.try_emplace(axes);
  Reach& reach = found->second;
  if (!is_new) return reach;
  for (int64_t rank = 0; rank < mesh_.world_size(); ++rank) {
    // Each group once, by its first member.
    if (CoordinateOf(mesh_, rank).index(axes, mesh_) != 0) continue;
    const std::vector<int64_t> group = GroupOf(mesh_, axes, rank);
    if (group.size() < 2) break;
    std::map<int32_t, int64_t> members;
    for (size_t i = 0; i < group.size(); ++i) {
      ++members[node_of_rank_[group[i]]];
      const int64_t next = group[(i + 1) % group.size()];
      reach.is_far_hop |= node_of_rank_[group[i]] != node_of_rank_[next];
    }
    const auto size = static_cast<double>(group.size());
    for (const auto& [node, count] : members) {
      const double remote = (size - static_cast<double>(count)) / (size - 1);
      reach.remote_part = std::max(reach.remote_part, remote);
    }
  }
  return reach;
}

double LinkModel::Seconds(CollectiveKind kind, const AxisList& axes, double bytes) const {
  const Reach& reach = ReachOf(axes);
  const bool is_hop = kind == CollectiveKind::kSendRecv;
  const double remote = is_hop ? (reach.is_far_hop ? 1.0 : 0.0) : reach.remote_part;
  const double latency = remote > 0 ? kInterLatencySeconds : kIntraLatencySeconds;
  return latency + bytes * remote / (links_.inter_node_gb_per_s * 1e9) +
         bytes * (1 - remote) / (links_.intra_node_gb_per_s * 1e9);
}

double LinkModel::AttentionSeconds(double flops, bool is_f32) const {
  // On GPUs fp32 is TF32, at half the rate.
  const double slowdown = is_f32 && kind_ != DeviceKind::kCpu ? 2.0 : 1.0;
  return flops * slowdown / (PeakFlops(kind_).value_or(kCoreFlops) * kAttentionEfficiency);
}

}  // namespace autosp
