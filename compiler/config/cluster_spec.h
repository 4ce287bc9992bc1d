// The machines that a plan is made for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace autosp {

enum class DeviceKind { kCpu, kA100_40gb, kA100_80gb, kH100_80gb, kH200_141gb };

struct NodeSpec {
  std::string name;
  std::string address;  // host:port of the node's agent; may be empty
  int64_t devices = 1;
  int64_t device_memory_bytes = 0;  // of one device
  DeviceKind kind = DeviceKind::kCpu;
  // Of the machine, for all its devices; unset: not known.
  std::optional<int64_t> host_memory_bytes = std::nullopt;

  bool operator==(const NodeSpec&) const = default;
};

// Per direction and device, in 1e9 bytes per second.
struct LinkSpec {
  double intra_node_gb_per_s = 10.0;
  double inter_node_gb_per_s = 1.0;

  bool operator==(const LinkSpec&) const = default;
};

struct ClusterSpec {
  std::vector<NodeSpec> nodes;
  LinkSpec links;

  int64_t num_devices() const;
  // Whether the devices are GPUs. A job runs on devices of one kind.
  DeviceKind kind() const { return nodes.empty() ? DeviceKind::kCpu : nodes.front().kind; }
  bool has_gpus() const { return kind() != DeviceKind::kCpu; }

  bool operator==(const ClusterSpec&) const = default;
};

// This machine: one node of CPU devices, one per hardware thread that this process may use; each
// has an equal part of the memory that the machine (or its control group) has.
ClusterSpec LocalCluster();

absl::string_view ToString(DeviceKind value);

// Dense bf16 operations per second of one device, from the vendors' data sheets; unset for CPUs,
// which differ too much.
std::optional<double> PeakFlops(DeviceKind kind);
bool IsHopper(DeviceKind kind);
// What libraries keep of a device's memory while a rank runs: cuBLAS's workspace, which libtorch
// takes from its allocator at the first matrix product.
int64_t LibraryBytes(DeviceKind kind);

}  // namespace autosp
