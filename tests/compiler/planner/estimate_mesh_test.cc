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
  const JobSpec job = JobOf(2, 64);
  const auto prepared = PrepareJob(*model, job);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  for (const Mesh& mesh : {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 1, 2, 1},
                           Mesh{1, 1, 4, 1}, Mesh{1, 1, 2, 2}, Mesh{1, 2, 2, 2}}) {
    const auto lowered = CompileForMesh(*model, job, mesh, nullptr);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const auto prediction = SimulateSection(lowered->program, "step");
    ASSERT_TRUE(prediction.ok()) << prediction.status();
    int64_t moved = 0;
    for (const CollectiveTotals& row : prediction->collectives) {
      const bool is_attention = row.kind == "all_to_all" || row.kind == "send_recv";
      if (is_attention) moved += row.bytes_received_per_rank;
    }
    EXPECT_EQ(EstimateMesh(prepared->graph, job, Gpus(1), mesh).received_bytes,
              static_cast<double>(moved))
        << "dp " << mesh.dp << " ring " << mesh.ring << " ulysses " << mesh.ulysses;
  }
}

// For one layer at a million tokens: what each way costs, and that no way beats the best mix.
TEST(EstimateMeshTest, MillionTokens) {
  constexpr int64_t kTokens = 1 << 20;
  const Graph graph = LlamaAttention(kTokens);
  const JobSpec job = JobOf(1, kTokens);
  std::printf("  P  ulysses x ring   MiB per rank and layer   ms that it waits\n");
  for (int64_t ranks : {8, 16, 32, 64}) {
    double best = -1;
    double of_ring = 0;
    double of_ulysses = -1;
    for (int64_t ulysses = 1; ulysses <= std::min<int64_t>(ranks, 32); ulysses *= 2) {
      const Mesh mesh{.accum = 1, .dp = 1, .ring = ranks / ulysses, .ulysses = ulysses};
      const MeshEstimate cost = EstimateMesh(graph, job, Gpus(ranks / 8), mesh);
      std::printf("%3ld  %7ld x %-4ld %22.0f %20.2f\n", static_cast<long>(ranks),
                  static_cast<long>(ulysses), static_cast<long>(mesh.ring),
                  cost.received_bytes / (1 << 20), cost.seconds * 1e3);
      if (best < 0 || cost.seconds < best) best = cost.seconds;
      if (ulysses == 1) of_ring = cost.seconds;
      if (ulysses == ranks) of_ulysses = cost.seconds;
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
