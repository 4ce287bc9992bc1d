// How long exchanges take on the links of a cluster: alpha-beta, a latency for each call and a
// bandwidth for its bytes.
//
// Ranks fill the nodes in order, so neighbours on the last mesh axes share a node where they can.
// Of what a rank receives, the part from other nodes comes over its inter-node link and the rest
// over its intra-node link, one after the other; the rank with the most from afar counts.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "compiler/config/cluster_spec.h"
#include "compiler/program/collective_bytes.h"
#include "compiler/program/mesh.h"

namespace autosp {

class LinkModel {
 public:
  LinkModel(const ClusterSpec& cluster, const Mesh& mesh);

  // Of one call by a group along `axes` in which each rank receives `bytes`.
  double Seconds(CollectiveKind kind, const AxisList& axes, double bytes) const;

  // Of so many floating point operations in attention, at half of the device's dense peak; bf16
  // unless `is_f32`.
  double AttentionSeconds(double flops, bool is_f32) const;

  // Whether an exchange runs beside computing. On CPU devices both use the same cores.
  bool overlaps() const { return kind_ != DeviceKind::kCpu; }

 private:
  struct Reach {
    double remote_part = 0;   // of what a rank receives from all others of its group
    bool is_far_hop = false;  // a neighbour around the group is on another node
  };
  const Reach& ReachOf(const AxisList& axes) const;

  const Mesh mesh_;
  LinkSpec links_;
  DeviceKind kind_ = DeviceKind::kCpu;
  std::vector<int32_t> node_of_rank_;
  mutable std::map<AxisList, Reach> reaches_;
};

}  // namespace autosp
