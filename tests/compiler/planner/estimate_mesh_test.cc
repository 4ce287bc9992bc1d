// Estimates of meshes: equal to what the compiler's program moves, and the ground on which it
// chooses between ulysses, ring and both.
#include "compiler/planner/estimate_mesh.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/analysis/simulate.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/ir/graph.h"
#include "compiler/planner/compile_job.h"
#include "gtest/gtest.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

ClusterSpec Gpus(int64_t num_nodes) {
  ClusterSpec cluster;
  for (int64_t i = 0; i < num_nodes; ++i) {
    cluster.nodes.push_back({.name = absl::StrCat("node-", i),
                             .address = "",
                             .devices = 8,
                             .device_memory_bytes = int64_t{80} << 30,
                             .kind = DeviceKind::kA100_80gb});
  }
  cluster.links = {.intra_node_gb_per_s = 300, .inter_node_gb_per_s = 25};
  return cluster;
}

JobSpec JobOf(int64_t batch, int64_t seq_len) {
  JobSpec job;
  job.training.global_batch_size = batch;
  job.training.seq_len = seq_len;
  return job;
}

// One causal attention of a Llama-3-8B layer: 32 heads, 8 key heads, head_dim 128, in bf16.
Graph LlamaAttention(int64_t seq_len) {
  const std::string query = absl::StrCat("bf16[1, 32, ", seq_len, ", 128]");
  const std::string key = absl::StrCat("bf16[1, 8, ", seq_len, ", 128]");
  const absl::StatusOr<Graph> graph = ParseGraph(absl::StrCat(
      "graph \"attention\" {\n  input %q \"q\" : ", query, "\n  input %k \"k\" : ", key,
      "\n  %o = aten.scaled_dot_product_attention.default(%q, %k, %k, none, 0.0, true, none, "
      "true) : ",
      query, "\n  return %o\n}\n"));
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *graph;
}

TEST(EstimateMeshTest, BytesAreThoseOfTheProgram) {
  const auto model = ImportZoo("llama");
  ASSERT_TRUE(model.ok()) << model.status();
  JobSpec job = JobOf(2, 64);
  const auto prepared = PrepareJob(*model, job);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  for (const RingExchange exchange : {RingExchange::kSendRecv, RingExchange::kAllGather}) {
    job.parallelism.ring_exchange = exchange;
    for (const Mesh& mesh : {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 1, 2, 1},
                             Mesh{1, 1, 4, 1}, Mesh{1, 1, 2, 2}, Mesh{1, 2, 2, 2}}) {
      const auto lowered = CompileForMesh(*model, job, mesh, nullptr);
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      const auto prediction = SimulateSection(lowered->program, "step");
      ASSERT_TRUE(prediction.ok()) << prediction.status();
      int64_t moved = 0;
      for (const CollectiveTotals& row : prediction->collectives) {
        // Gradients of parameters are summed by all_reduce, over all ranks.
        if (row.kind != "all_reduce") moved += row.bytes_received_per_rank;
      }
      EXPECT_EQ(EstimateMesh(prepared->graph, job, Gpus(1), mesh).received_bytes,
                static_cast<double>(moved))
          << ToString(exchange) << " dp " << mesh.dp << " ring " << mesh.ring << " ulysses "
          << mesh.ulysses;
    }
  }
}

// What hides nothing gathers: it moves the gradients once less. On GPUs a hop hides behind the
// attention of the hop before, if the links are fast and blocks large.
TEST(EstimateMeshTest, ARingGathersKeysWhereHopsHideNothing) {
  constexpr int64_t kTokens = 1 << 20;
  const Mesh mesh{.accum = 1, .dp = 1, .ring = 8, .ulysses = 1};
  const Graph graph = LlamaAttention(kTokens);
  JobSpec job = JobOf(1, kTokens);
  EXPECT_EQ(EstimateMesh(graph, job, Gpus(1), mesh).ring_exchange, RingExchange::kSendRecv);
  ClusterSpec cpus = Gpus(1);
  cpus.nodes[0].kind = DeviceKind::kCpu;
  const MeshEstimate gathered = EstimateMesh(graph, job, cpus, mesh);
  EXPECT_EQ(gathered.ring_exchange, RingExchange::kAllGather);
  // Short sequences on slow links: the work of a hop is less than its travel.
  ClusterSpec slow = Gpus(8);
  slow.links.inter_node_gb_per_s = 1;
  for (NodeSpec& node : slow.nodes) node.devices = 1;
  EXPECT_EQ(EstimateMesh(LlamaAttention(1 << 14), JobOf(1, 1 << 14), slow, mesh).ring_exchange,
            RingExchange::kAllGather);
  // What a job asks for is what it gets.
  job.parallelism.ring_exchange = RingExchange::kSendRecv;
  const MeshEstimate passed_on = EstimateMesh(graph, job, cpus, mesh);
  EXPECT_EQ(passed_on.ring_exchange, RingExchange::kSendRecv);
  EXPECT_LT(gathered.seconds, passed_on.seconds);
  // Bytes of a million tokens over 8 members: 8 key heads of 128 in bf16, and fp32 gradients.
  const double hop_bytes = 2.0 * kTokens / 8 * 8 * 128 * 2;
  EXPECT_EQ(gathered.received_bytes, 7 * (2 * hop_bytes + 2 * hop_bytes));
  EXPECT_EQ(passed_on.received_bytes, 7 * 2 * hop_bytes + 8 * 2 * hop_bytes);
}

// For one layer at a million tokens: what each way costs, and that no way beats the best mix. The
// table stands in docs/planning.md.
TEST(EstimateMeshTest, MillionTokens) {
  constexpr int64_t kTokens = 1 << 20;
  const Graph graph = LlamaAttention(kTokens);
  const auto estimate = [&](const Mesh& mesh, RingExchange exchange) {
    JobSpec job = JobOf(1, kTokens);
    job.parallelism.ring_exchange = exchange;
    return EstimateMesh(graph, job, Gpus(mesh.world_size() / 8), mesh);
  };
  std::printf("| P | ulysses x ring | MiB, send_recv | ms | MiB, all_gather | ms |\n");
  for (int64_t ranks : {8, 16, 32, 64}) {
    double best = -1;
    double of_ring = 0;
    double of_ulysses = -1;
    for (int64_t ulysses = 1; ulysses <= std::min<int64_t>(ranks, 32); ulysses *= 2) {
      const Mesh mesh{.accum = 1, .dp = 1, .ring = ranks / ulysses, .ulysses = ulysses};
      const MeshEstimate hops = estimate(mesh, RingExchange::kSendRecv);
      const MeshEstimate gathered = estimate(mesh, RingExchange::kAllGather);
      const double seconds = estimate(mesh, RingExchange::kAuto).seconds;
      EXPECT_EQ(seconds, std::min(hops.seconds, gathered.seconds));
      std::printf("| %ld | %ld x %ld | %.0f | %.1f | %.0f | %.1f |\n", static_cast<long>(ranks),
                  static_cast<long>(ulysses), static_cast<long>(mesh.ring),
                  hops.received_bytes / (1 << 20), hops.seconds * 1e3,
                  gathered.received_bytes / (1 << 20), gathered.seconds * 1e3);
      if (best < 0 || seconds < best) best = seconds;
      if (ulysses == 1) of_ring = seconds;
      if (ulysses == ranks) of_ulysses = seconds;
    }
    EXPECT_LE(best, of_ring);
    // 64 ranks are more than there are heads: only a ring reaches them.
    EXPECT_EQ(of_ulysses < 0, ranks == 64);
    if (of_ulysses >= 0) {
      EXPECT_LE(best, of_ulysses);
    }
  }
}

// Between nodes a hop that attention hides beats an exchange with all.
TEST(EstimateMeshTest, LinksDecide) {
  constexpr int64_t kTokens = 1 << 20;
  const Graph graph = LlamaAttention(kTokens);
  const JobSpec job = JobOf(1, kTokens);
  const auto seconds = [&](int64_t ring, int64_t ulysses) {
    return EstimateMesh(graph, job, Gpus(2),
                        {.accum = 1, .dp = 1, .ring = ring, .ulysses = ulysses})
        .seconds;
  };
  EXPECT_LT(seconds(2, 8), seconds(1, 16));
  EXPECT_LT(seconds(2, 8), seconds(16, 1));
}

TEST(EstimateMeshTest, OneRankWaitsForNothing) {
  const MeshEstimate cost = EstimateMesh(LlamaAttention(1024), JobOf(1, 1024), Gpus(1), Mesh{});
  EXPECT_EQ(cost.received_bytes, 0);
  EXPECT_EQ(cost.seconds, 0);
}

}  // namespace
}  // namespace autosp
