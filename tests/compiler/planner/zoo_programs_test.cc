// Properties of every program: it is its text, it is the same each time, passes are idempotent. And
// the whole program of a tiny graph, to be read. `--rewrite` writes the goldens again.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "compiler/analysis/simulate.h"
#include "compiler/passes/pass.h"
#include "compiler/planner/compile_job.h"
#include "gtest/gtest.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

bool rewrite = false;
constexpr int64_t kMaxGoldenBytes = 1 << 20;

constexpr const char* kModels[] = {"llama",          "llama_static", "llama_mask", "llama_bf16",
                                   "llama_autocast", "gpt2",         "gpt2_long",  "bert",
                                   "bert_long",      "plain",        "qwen2",      "qwen3",
                                   "mistral",        "opt",          "roberta",    "t5"};

JobSpec MakeJob(int64_t batch, int64_t seq_len) {
  JobSpec job;
  job.name = "zoo";
  job.training.seq_len = seq_len;
  job.training.global_batch_size = batch;
  job.training.steps = 3;
  for (const char* name : {"shift_labels", "targets"}) {
    job.data.inputs[name] = {.source = InputSource::kNextTokens};
  }
  return job;
}

class ZooPrograms : public testing::TestWithParam<const char*> {};

TEST_P(ZooPrograms, AreTheirTextAndTheSameEachTime) {
  const auto model = ImportZoo(GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  for (const Mesh& mesh :
       {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 2, 1, 2}, Mesh{2, 1, 1, 2}}) {
    for (int64_t seq_len : {64, 63}) {
      const auto first = CompileForMesh(*model, MakeJob(4, seq_len), mesh, nullptr);
      ASSERT_TRUE(first.ok()) << first.status();
      const auto second = CompileForMesh(*model, MakeJob(4, seq_len), mesh, nullptr);
      ASSERT_TRUE(second.ok()) << second.status();
      const std::string text = PrintProgram(first->program);
      EXPECT_EQ(PrintProgram(second->program), text);
      const auto parsed = ParseProgram(text);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(PrintProgram(*parsed), text);
      EXPECT_TRUE(SimulateSection(*parsed, "step").ok());
      EXPECT_TRUE(SimulateSection(*parsed, "eval").ok());
      const bool has_start = text.find("= start ") != std::string::npos;
      EXPECT_EQ(has_start, mesh.world_size() > 1);
    }
  }
}

TEST_P(ZooPrograms, PassesAreIdempotent) {
  const auto model = ImportZoo(GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  PassContext context;
  context.batch_size = 4;
  context.seq_len = 64;
  context.head_shards = 4;
  for (const GraphInput& input : model->graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    context.roles[input.name] = {DimRole::kBatch, DimRole::kSequence};
  }
  Graph graph = model->graph;
  for (const Pass& pass : GraphPasses()) {
    ASSERT_TRUE(pass.run(graph, context).ok()) << pass.name;
    const std::string once = PrintGraph(graph);
    const auto again = pass.run(graph, context);
    ASSERT_TRUE(again.ok()) << pass.name << again.status();
    EXPECT_FALSE(*again) << pass.name;
    EXPECT_EQ(PrintGraph(graph), once) << pass.name;
  }
}

// The kernels of GPUs are those of the one-device program to the checker.
TEST_P(ZooPrograms, AreProvedWithTheKernelsOfGpus) {
  const auto model = ImportZoo(GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  ClusterSpec cluster;
  cluster.nodes = {{.name = "n0",
                    .address = "",
                    .devices = 2,
                    .device_memory_bytes = int64_t{80} << 30,
                    .kind = DeviceKind::kH100_80gb}};
  JobSpec job = MakeJob(4, 64);
  std::erase_if(job.data.inputs, [&](const auto& input) {
    return std::ranges::none_of(model->graph.inputs,
                                [&](const GraphInput& each) { return each.name == input.first; });
  });
  const auto plan = CompileModel(*model, job, cluster);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->program_text.find("for_cpu"), std::string::npos);
  const bool has_kernel = plan->program_text.find("autosp.sdpa") != std::string::npos ||
                          plan->program_text.find("autosp.attend_block_") != std::string::npos;
  // Also of the plain model, which spells its attention out.
  EXPECT_TRUE(has_kernel);
  EXPECT_GT(plan->summary.num_checked_values, 0) << "not proved";

  // Rings of half types name a kernel, too.
  job.precision.params = ParamPrecision::kBf16;
  job.parallelism.dp = job.parallelism.ulysses = 1;
  job.parallelism.ring = 2;
  const auto ring = CompileModel(*model, job, cluster);
  ASSERT_TRUE(ring.ok()) << ring.status();
  EXPECT_GT(ring->summary.num_checked_values, 0) << "not proved";
}

INSTANTIATE_TEST_SUITE_P(Zoo, ZooPrograms, testing::ValuesIn(kModels),
                         [](const auto& info) { return std::string(info.param); });

constexpr char kTinyGraph[] = R"(graph "tiny" {
  param %w "w" : f32[10, 8]
  input %ids "input_ids" : i64[2, 6]
  input %labels "labels" : i64[2, 6]
  %x = aten.embedding.default(%w, %ids, -1, false, false) : f32[2, 6, 8]
  %v = aten.view.default(%x, [2, 6, 2, 4]) : f32[2, 6, 2, 4]
  %t = aten.transpose.int(%v, 1, 2) : f32[2, 2, 6, 4]{strides=48,4,8,1}
  %o = aten.scaled_dot_product_attention.default(%t, %t, %t, none, 0.0, true, none, false))"
                              R"( : f32[2, 2, 6, 4]{strides=48,4,8,1}
  %ot = aten.transpose.int(%o, 1, 2) : f32[2, 6, 2, 4]
  %h = aten.view.default(%ot, [12, 8]) : f32[12, 8]
  %logits = aten.linear.default(%h, %w, none) : f32[12, 10]
  %l = aten.view.default(%labels, [12]) : i64[12]
  %loss = aten.cross_entropy_loss.default(%logits, %l, none, 1, -100, 0.0) : f32[]
  return %loss
}
)";

TEST(ProgramGolden, TinyGraphOnOneAndTwoRanks) {
  ImportedModel model;
  auto graph = ParseGraph(kTinyGraph);
  ASSERT_TRUE(graph.ok()) << graph.status();
  model.graph = *std::move(graph);
  for (int64_t ulysses : {1, 2}) {
    const auto lowered = CompileForMesh(model, MakeJob(2, 6), {1, 1, 1, ulysses}, nullptr);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const std::string path =
        absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/programs/tiny_ulysses", ulysses, ".txt");
    const std::string text = PrintProgram(lowered->program);
    if (rewrite) {
      std::ofstream(path) << text;
      continue;
    }
    const auto golden = ReadFile(path, kMaxGoldenBytes);
    ASSERT_TRUE(golden.ok()) << golden.status();
    EXPECT_EQ(text, *golden) << "run this test with --rewrite if the change is wanted";
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::rewrite = std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr;
  for (int i = 1; i < argc; ++i) autosp::rewrite |= std::strcmp(argv[i], "--rewrite") == 0;
  return RUN_ALL_TESTS();
}
