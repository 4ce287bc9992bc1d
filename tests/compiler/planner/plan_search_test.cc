// The planner gives up time for memory only where it must.
#include "compiler/planner/plan_search.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"
#include "compiler/ir/graph.h"
#include "compiler/planner/compile_job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::Not;

class PlanSearchTest : public testing::Test {
 protected:
  void SetUp() override { Use("llama"); }

  void Use(const std::string& name) {
    auto model = ImportZoo(name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  absl::StatusOr<CompiledPlan> Plan(int64_t budget_bytes, const MemorySpec& memory,
                                    int64_t batch = 1, int64_t seq_len = 4096) const {
    JobSpec job;
    job.training.seq_len = seq_len;
    job.training.global_batch_size = batch;
    job.training.steps = 1;
    job.parallelism = {.ranks = ranks_,
                       .dp = 1,
                       .ulysses = ranks_ / ring_,
                       .ring = ring_,
                       .ring_exchange = ring_exchange_,
                       .zero = 0};
    job.memory = memory;
    job.memory.device_budget_bytes = budget_bytes;
    ClusterSpec cluster;
    cluster.nodes.push_back({.name = "node",
                             .address = {},
                             .devices = ranks_,
                             .device_memory_bytes = int64_t{8} << 30,
                             .kind = device_,
                             .host_memory_bytes = host_bytes_});
    return CompileModel(model_, job, cluster);
  }

  static MemorySpec Choice(Recompute recompute, Tiling tiling) {
    return {.device_budget_bytes = {}, .recompute = recompute, .tiling = tiling};
  }

  int64_t Needed(Recompute recompute, Tiling tiling, int64_t seq_len = 4096) const {
    const auto plan = Plan(int64_t{1} << 40, Choice(recompute, tiling), 1, seq_len);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan->summary.predicted_peak_bytes.at("device");
  }

  ImportedModel model_;
  int64_t ranks_ = 2;
  int64_t ring_ = 1;
  RingExchange ring_exchange_ = RingExchange::kAuto;
  std::optional<int64_t> host_bytes_;
  DeviceKind device_ = DeviceKind::kCpu;
};

// Both run the same kernels of fp32.
TEST_F(PlanSearchTest, LeavesRoomForWhatLibrariesTakeOfAGpu) {
  const auto needed = [&](DeviceKind device) {
    device_ = device;
    return Needed(Recompute::kNone, Tiling::kNone);
  };
  const int64_t on_a100 = needed(DeviceKind::kA100_80gb);
  const int64_t on_h100 = needed(DeviceKind::kH100_80gb);
  EXPECT_EQ(on_h100 - on_a100, (int64_t{32} << 20) - 8'519'680);
  EXPECT_TRUE(Plan(on_h100, Choice(Recompute::kNone, Tiling::kNone)).ok());
  EXPECT_THAT(
      std::string(Plan(on_h100 - 1, Choice(Recompute::kNone, Tiling::kNone)).status().message()),
      HasSubstr("the smallest plan needs"));
}

// Keys of all members take memory that passing them on does not.
TEST_F(PlanSearchTest, PassesKeysOnWhereGatheredOnesDoNotFit) {
  ranks_ = ring_ = 4;
  const auto needed = [&](RingExchange exchange) {
    ring_exchange_ = exchange;
    const int64_t bytes = Needed(Recompute::kNone, Tiling::kNone);
    ring_exchange_ = RingExchange::kAuto;
    return bytes;
  };
  const int64_t gathered = needed(RingExchange::kAllGather);
  const int64_t passed_on = needed(RingExchange::kSendRecv);
  ASSERT_LT(passed_on, gathered);
  for (const auto& [budget, exchange] :
       {std::pair{gathered, "all_gather"}, {gathered - 1, "send_recv"}, {passed_on, "send_recv"}}) {
    const auto plan = Plan(budget, {});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->summary.ring_exchange, exchange);
    EXPECT_EQ(plan->summary.recompute, "none");
  }
  // What the job asks for stays, and other things are given up.
  ring_exchange_ = RingExchange::kAllGather;
  const auto forced = Plan(passed_on, {});
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_EQ(forced->summary.ring_exchange, "all_gather");
  EXPECT_NE(forced->summary.tiling + forced->summary.recompute, "nonenone");
}

// The tiles of its experts need more than they save.
TEST_F(PlanSearchTest, FitsWhereMostGivenUpIsNotTheSmallest) {
  Use("mixtral");
  const int64_t needed = Needed(Recompute::kSelective, Tiling::kLoss, 64);
  ASSERT_LT(needed, Needed(Recompute::kFull, Tiling::kAll, 64));
  const auto plan = Plan(needed, {}, 1, 64);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->summary.recompute, "selective");
  EXPECT_EQ(plan->summary.tiling, "loss");
  EXPECT_THAT(std::string(Plan(needed - 1, {}, 1, 64).status().message()),
              HasSubstr("the smallest plan needs"));
}

TEST_F(PlanSearchTest, GivesUpAsLittleAsFits) {
  const struct {
    Recompute recompute;
    Tiling tiling;
  } choices[] = {{Recompute::kNone, Tiling::kNone},
                 {Recompute::kNone, Tiling::kLoss},
                 {Recompute::kSelective, Tiling::kLoss},
                 {Recompute::kSelective, Tiling::kAll},
                 {Recompute::kFull, Tiling::kAll}};
  int64_t before = int64_t{1} << 40;
  for (const auto& choice : choices) {
    const int64_t needed = Needed(choice.recompute, choice.tiling);
    const std::string where =
        absl::StrCat(ToString(choice.recompute), " ", ToString(choice.tiling), " ", needed);
    if (needed >= before) continue;
    // Anything less gives up more, or does not fit; as much is enough.
    const auto plan = Plan(needed, {});
    ASSERT_TRUE(plan.ok()) << where << plan.status();
    EXPECT_EQ(plan->summary.recompute, std::string(ToString(choice.recompute))) << where;
    EXPECT_EQ(plan->summary.tiling, std::string(ToString(choice.tiling))) << where;
    EXPECT_GT(plan->summary.num_checked_results, 20) << "not proved: " << where;
    before = needed;
  }
  EXPECT_LT(before, Needed(Recompute::kNone, Tiling::kNone) * 2 / 3);
  const auto refused = Plan(before - 1, {});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
}

// Many layers of attention that make three times what they hand on.
Graph DeepGraph(int num_layers) {
  std::string text = "graph \"deep\" {\n  param %e \"e\" : f32[10, 8]\n";
  for (int i = 0; i < num_layers; ++i) {
    absl::StrAppend(&text, "  param %w", i, " \"w", i, "\" : f32[8, 8]\n");
  }
  absl::StrAppend(
      &text,
      "  input %ids \"input_ids\" : i64[1, 512]\n  input %labels \"labels\" : i64[1, 512]"
      "\n  %h0 = aten.embedding.default(%e, %ids, -1, false, false) : f32[1, 512, 8]\n");
  for (int i = 0; i < num_layers; ++i) {
    absl::SubstituteAndAppend(
        &text,
        "  %q$0 = aten.linear.default(%h$0, %w$0, none) : f32[1, 512, 8]\n"
        "  %v$0 = aten.view.default(%q$0, [1, 512, 2, 4]) : f32[1, 512, 2, 4]\n"
        "  %t$0 = aten.transpose.int(%v$0, 1, 2) : f32[1, 2, 512, 4]{strides=4096,4,8,1}\n"
        "  %o$0 = aten.scaled_dot_product_attention.default(%t$0, %t$0, %t$0, none, 0.0, true, "
        "none, false) : f32[1, 2, 512, 4]{strides=4096,4,8,1}\n"
        "  %b$0 = aten.transpose.int(%o$0, 1, 2) : f32[1, 512, 2, 4]\n"
        "  %a$0 = aten.view.default(%b$0, [1, 512, 8]) : f32[1, 512, 8]\n"
        "  %s$0 = aten.silu.default(%a$0) : f32[1, 512, 8]\n"
        "  %h$1 = aten.add.Tensor(%h$0, %s$0) : f32[1, 512, 8]\n",
        i, i + 1);
  }
  absl::SubstituteAndAppend(
      &text,
      "  %f = aten.view.default(%h$0, [512, 8]) : f32[512, 8]\n"
      "  %logits = aten.linear.default(%f, %e, none) : f32[512, 10]\n"
      "  %l = aten.view.default(%labels, [512]) : i64[512]\n"
      "  %loss = aten.cross_entropy_loss.default(%logits, %l, none, 1, -100, 0.0) : f32[]\n"
      "  return %loss\n}\n",
      num_layers);
  auto graph = ParseGraph(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  return graph.ok() ? *std::move(graph) : Graph();
}

// The more room the host has, the less a device has to hold.
TEST_F(PlanSearchTest, OffloadsAsMuchAsTheHostHolds) {
  struct Need {
    int64_t device = 0;
    int64_t host = 0;
  };
  const auto needed = [&](Offload offload) {
    MemorySpec memory = Choice(Recompute::kFull, Tiling::kAll);
    memory.offload = offload;
    const auto plan = Plan(int64_t{1} << 40, memory, 1, 512);
    EXPECT_TRUE(plan.ok()) << plan.status();
    const auto& peaks = plan->summary.predicted_peak_bytes;
    return Need{peaks.at("device"), peaks.at("pinned_host")};
  };
  model_ = {};
  model_.graph = DeepGraph(32);
  const Need some = needed(Offload::kActivations);
  const Need all = needed(Offload::kEveryLayer);
  EXPECT_LT(all.device, some.device);
  EXPECT_GT(all.host, some.host);
  for (const bool has_room : {true, false}) {
    host_bytes_ = ranks_ * (has_room ? all.host : some.host);
    const auto roomy = Plan(some.device, {}, 1, 512);
    ASSERT_TRUE(roomy.ok()) << roomy.status();
    EXPECT_EQ(roomy->summary.offload, "activations");
    const auto tight = Plan(all.device, {}, 1, 512);
    EXPECT_EQ(tight.ok(), has_room) << tight.status();
    if (!tight.ok()) {
      EXPECT_THAT(std::string(tight.status().message()),
                  HasSubstr(" of the host for each rank, more than the "));
      continue;
    }
    EXPECT_EQ(tight->summary.offload, "every_layer");
  }
}

TEST_F(PlanSearchTest, TakesTheJobAtItsWord) {
  const int64_t none = Needed(Recompute::kNone, Tiling::kNone);
  const auto refused = Plan(none - 1, Choice(Recompute::kNone, Tiling::kNone));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  const auto full = Plan(none, Choice(Recompute::kFull, Tiling::kAuto));
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->summary.recompute, "full");
  EXPECT_EQ(full->summary.tiling, "none");
  EXPECT_THAT(full->summary.ToText(), HasSubstr("recompute    full: the backward makes all but"));
  const auto tiled = Plan(none, Choice(Recompute::kAuto, Tiling::kAll));
  ASSERT_TRUE(tiled.ok()) << tiled.status();
  EXPECT_EQ(tiled->summary.recompute, "none");
  EXPECT_THAT(
      tiled->summary.ToText(),
      HasSubstr("the head and the loss, and 4 stretches between attentions run in 4 tiles of a "
                "rank's sequence"));
}

// The answer to a job that is too long is a length that is not.
TEST_F(PlanSearchTest, SaysWhatLengthFits) {
  const int64_t budget = Needed(Recompute::kFull, Tiling::kAll) * 3 / 4;
  const auto refused = Plan(budget, {});
  ASSERT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  const std::string message(refused.status().message());
  const std::string before = "; a training.seq_len of ";
  const size_t at = message.find(before);
  ASSERT_NE(at, std::string::npos) << message;
  const int64_t length = std::stoll(message.substr(at + before.size()));
  EXPECT_GE(length, 2048);
  EXPECT_LT(length, 4096);
  EXPECT_TRUE(Plan(budget, {}, 1, length).ok());
  EXPECT_FALSE(Plan(budget, {}, 1, length * 5 / 4).ok());
}

// The work of attention grows with the square of the length, what it gives with the length.
TEST_F(PlanSearchTest, KeepsWhatAttentionGaveOnTheHostWhereThatIsFaster) {
  device_ = DeviceKind::kH100_80gb;
  model_ = {};
  model_.graph = DeepGraph(32);
  for (const int64_t seq_len : {int64_t{512}, int64_t{1} << 23}) {
    const int64_t budget = Needed(Recompute::kFull, Tiling::kAll, seq_len);
    ASSERT_LT(budget, Needed(Recompute::kSelective, Tiling::kAll, seq_len));
    host_bytes_ = {};
    const auto without = Plan(budget, {}, 1, seq_len);
    ASSERT_TRUE(without.ok()) << without.status();
    EXPECT_EQ(without->summary.recompute, "full") << seq_len;
    host_bytes_ = int64_t{1} << 40;
    const auto plan = Plan(budget, {}, 1, seq_len);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const bool is_long = seq_len > 512;
    EXPECT_EQ(plan->summary.recompute, is_long ? "selective" : "full") << seq_len;
    EXPECT_EQ(plan->summary.offload != "none", is_long) << seq_len;
    if (!is_long) continue;
    EXPECT_LT(plan->summary.flops_per_rank, without->summary.flops_per_rank);
    EXPECT_LE(plan->summary.predicted_peak_bytes.at("device"), budget);
    // What a job sets itself stays.
    const auto full = Plan(budget, Choice(Recompute::kFull, Tiling::kAuto), 1, seq_len);
    ASSERT_TRUE(full.ok()) << full.status();
    EXPECT_EQ(full->summary.recompute, "full");
    host_bytes_ = int64_t{1} << 20;
    const auto small_host = Plan(budget, {}, 1, seq_len);
    ASSERT_TRUE(small_host.ok()) << small_host.status();
    EXPECT_EQ(small_host->summary.recompute, "full");
  }
}

// A smaller micro-batch costs less than making values again.
TEST_F(PlanSearchTest, SplitsTheBatchFirst) {
  const int64_t none = Needed(Recompute::kNone, Tiling::kNone);
  const auto plan = Plan(none + none / 4, {}, /*batch=*/4);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->summary.recompute, "none");
  EXPECT_EQ(plan->summary.micro_batch_size, 1);
}

// Of the whole job, whatever the ranks do beside; and theirs, with it.
TEST_F(PlanSearchTest, ModelsOperationsAreWithoutWhatIsMadeAgain) {
  constexpr int64_t kPlenty = int64_t{1} << 40;
  const auto plain = Plan(kPlenty, Choice(Recompute::kNone, Tiling::kNone));
  const auto again = Plan(kPlenty, Choice(Recompute::kFull, Tiling::kNone));
  ASSERT_TRUE(plain.ok() && again.ok()) << plain.status() << again.status();
  EXPECT_GT(plain->summary.model_flops, 0);
  EXPECT_EQ(plain->summary.flops_per_rank * 2, plain->summary.model_flops);
  EXPECT_EQ(again->summary.model_flops, plain->summary.model_flops);
  EXPECT_GT(again->summary.flops_per_rank, plain->summary.flops_per_rank);
  EXPECT_THAT(plain->summary.ToText(), HasSubstr(" per rank a step, "));
  EXPECT_THAT(plain->summary.ToText(), Not(HasSubstr("more than its part of the model's")));
  EXPECT_THAT(again->summary.ToText(), HasSubstr("more than its part of the model's"));
  // Nobody knows what a core can do.
  EXPECT_THAT(plain->summary.ToText(), Not(HasSubstr("at the device's peak")));
  EXPECT_EQ(plain->summary.ToJson()["peak_flops_per_second"], 0);
}

}  // namespace
}  // namespace autosp
