#include <sched.h>

#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_yaml.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

constexpr char kTwoNodes[] = R"(version: 1
kind: Cluster
nodes:
  - name: node-0
    address: 10.0.0.1:7071
    kind: a100-80gb
    devices: 8
    device_memory: 80GiB
  - {name: node-1, devices: 4, device_memory: 512MiB}
links:
  intra_node_gb_per_s: 300
  inter_node_gb_per_s: 25
)";

TEST(ParseClusterYaml, ReadsNodesAndLinks) {
  ASSERT_OK_AND_ASSIGN(const ClusterSpec cluster, ParseClusterYaml(kTwoNodes, "cluster.yaml"));
  ClusterSpec expected;
  expected.nodes = {
      {"node-0", "10.0.0.1:7071", 8, int64_t{80} << 30, DeviceKind::kA100_80gb},
      {"node-1", "", 4, int64_t{512} << 20, DeviceKind::kCpu},
  };
  expected.links = {300.0, 25.0};
  EXPECT_EQ(cluster, expected);
  EXPECT_EQ(cluster.num_devices(), 12);
}

TEST(CanonicalClusterYaml, ParsesBackToTheSameCluster) {
  ASSERT_OK_AND_ASSIGN(const ClusterSpec cluster, ParseClusterYaml(kTwoNodes, "cluster.yaml"));
  const std::string canonical = CanonicalClusterYaml(cluster);
  ASSERT_OK_AND_ASSIGN(const ClusterSpec back, ParseClusterYaml(canonical, "canonical"));
  EXPECT_EQ(back, cluster) << canonical;
  EXPECT_EQ(CanonicalClusterYaml(back), canonical);
}

struct BadCluster {
  std::string nodes;
  std::string message;
};

class ClusterRefused : public testing::TestWithParam<BadCluster> {};

TEST_P(ClusterRefused, WithTheExactMessage) {
  const std::string text = "version: 1\nkind: Cluster\n" + GetParam().nodes;
  EXPECT_THAT(ParseClusterYaml(text, "c.yaml"),
              IsError(absl::StatusCode::kInvalidArgument, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, ClusterRefused,
    testing::Values(
        BadCluster{"", "c.yaml:1:1: nodes: is missing; expected list of maps, at least one"},
        BadCluster{"nodes: []",
                   "c.yaml:3:8: nodes: is an empty list; expected a list of maps, at least one"},
        BadCluster{"nodes: [{name: a, devices: 0, device_memory: 1GiB}]",
                   "c.yaml:3:28: nodes[0].devices: 0 is out of range; expected integer from 1 to "
                   "1024"},
        BadCluster{"nodes: [{name: a, device: 1, device_memory: 1GiB}]",
                   "c.yaml:3:19: nodes[0].device: unknown key; did you mean nodes[0].devices?\n"
                   "c.yaml:3:9: nodes[0].devices: is missing; expected integer from 1 to 1024"},
        BadCluster{"nodes: [{name: a, devices: 1, device_memory: 0}]",
                   "c.yaml:3:46: nodes[0].device_memory: is '0'; expected size, as in 4GiB or "
                   "512MiB"},
        BadCluster{"nodes: [{name: a, devices: 1, device_memory: 1GiB, kind: a100}]",
                   "c.yaml:3:58: nodes[0].kind: is 'a100'; expected one of cpu, a100-40gb, "
                   "a100-80gb, h100-80gb, h200-141gb"},
        BadCluster{"nodes: [a]",
                   "c.yaml:3:9: nodes[0]: is 'a'; expected a map\n"
                   "c.yaml:3:9: nodes[0].name: is missing; expected name\n"
                   "c.yaml:3:9: nodes[0].devices: is missing; expected integer from "
                   "1 to 1024\n"
                   "c.yaml:3:9: nodes[0].device_memory: is missing; expected size, "
                   "as in 4GiB or 512MiB"},
        BadCluster{"nodes: [{name: a, devices: 1, device_memory: 1GiB}, {name: a, devices: 1, "
                   "device_memory: 1GiB}]",
                   "c.yaml:3:60: nodes[1].name: a is the name of an earlier node; names are "
                   "unique"}));

TEST(LocalCluster, IsThisMachine) {
  const ClusterSpec cluster = LocalCluster();
  ASSERT_EQ(cluster.nodes.size(), 1u);
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  EXPECT_EQ(cluster.nodes[0].devices, CPU_COUNT(&allowed));
  EXPECT_EQ(cluster.nodes[0].kind, DeviceKind::kCpu);
  EXPECT_GT(cluster.nodes[0].device_memory_bytes, int64_t{16} << 20);
}

}  // namespace
}  // namespace autosp
