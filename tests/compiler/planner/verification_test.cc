// Which programs a job is verified with.
#include "compiler/planner/verification.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/planner/prepared_job.h"
#include "compiler/program/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

JobSpec MakeJob(int64_t seq_len, int64_t batch, std::optional<int64_t> micro_batch = {}) {
  JobSpec job;
  job.name = "job";
  job.model = ZooSpec("llama");
  job.data.files = {"text"};
  job.training.seq_len = seq_len;
  job.training.global_batch_size = batch;
  job.training.micro_batch_size = micro_batch;
  job.training.steps = 10;
  job.training.clip_grad_norm = 0.5;
  job.output.dir = "out";
  return job;
}

ClusterSpec Machine(int64_t devices) {
  ClusterSpec cluster;
  cluster.nodes.push_back({.name = "local",
                           .address = "",
                           .devices = devices,
                           .device_memory_bytes = int64_t{16} << 30});
  return cluster;
}

class VerificationTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new ImportedModel(*ImportZoo("llama")); }
  static absl::StatusOr<Verification> Make(const JobSpec& job, const VerificationRequest& request) {
    return MakeVerification(*model_, job, Machine(1), request);
  }

  static const ImportedModel* model_;
};
const ImportedModel* VerificationTest::model_ = nullptr;

struct SizeCase {
  const char* what;
  JobSpec job;
  VerificationRequest request;
  // Expected.
  int64_t seq_len;
  int64_t batch;
  int64_t accum;
};

TEST_F(VerificationTest, SizesAreSmallAndLikeTheJobs) {
  const Mesh ulysses2{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
  const Mesh ring4{.accum = 1, .dp = 1, .ring = 4, .ulysses = 1};
  const Mesh dp2{.accum = 1, .dp = 2, .ring = 1, .ulysses = 1};
  const SizeCase kCases[] = {
      {"short", MakeJob(1 << 13, 64), {{}, {}, ulysses2}, 64, 2, 1},
      {"at most the job's", MakeJob(48, 1), {{}, {}, ulysses2}, 48, 1, 1},
      {"blocks for each member", MakeJob(1 << 13, 1), {{}, {}, ring4}, 128, 1, 1},
      {"a remainder stays, to be padded", MakeJob(1001, 2), {{}, {}, ring4}, 129, 2, 1},
      {"sequences for each place of dp", MakeJob(256, 64), {{}, {}, dp2}, 32, 4, 1},
      {"two micro-steps of many", MakeJob(256, 64, 1), {{}, {}, dp2}, 32, 4, 2},
      {"one of one", MakeJob(256, 64, 32), {{}, {}, dp2}, 32, 4, 1},
      {"as asked for", MakeJob(256, 64), {40, 6, dp2}, 40, 6, 1},
  };
  for (const SizeCase& c : kCases) {
    SCOPED_TRACE(c.what);
    ASSERT_OK_AND_ASSIGN(const Verification made, Make(c.job, c.request));
    EXPECT_EQ(made.job.training.seq_len, c.seq_len);
    EXPECT_EQ(made.job.training.global_batch_size, c.batch);
    EXPECT_EQ(made.mesh.accum, c.accum);
    EXPECT_EQ(made.mesh.world_size(), c.request.mesh->world_size());
  }
}

TEST_F(VerificationTest, TheLengthIsOneThatTheModelWasExportedFor) {
  ImportedModel long_model = *model_;
  long_model.symbol_ranges.at("s38").min = 129;
  const auto make = [&](int64_t job_len, std::optional<int64_t> seq_len) {
    const Mesh ulysses2{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
    return MakeVerification(long_model, MakeJob(job_len, 1), Machine(1), {seq_len, {}, ulysses2});
  };
  ASSERT_OK_AND_ASSIGN(const Verification made, make(513, {}));
  EXPECT_EQ(made.job.training.seq_len, 129);
  ASSERT_OK_AND_ASSIGN(const Verification even, make(512, {}));
  EXPECT_EQ(even.job.training.seq_len, 132);
  EXPECT_THAT(make(512, 64),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("below 129, the least")));
}

TEST_F(VerificationTest, TheSizesAreOnesThatExportTookForGranted) {
  const TensorType& ids = model_->graph.type(model_->graph.inputs.back().value);
  ASSERT_EQ(ids.sizes.size(), 2u);
  const auto size_of = [&ids](const auto&, int64_t dim) {
    return std::optional<SymInt>(ids.sizes[static_cast<size_t>(dim)]);
  };
  // The rest of batch + length by 7, which it had at export.
  const std::string guard = absl::StrCat("((L['x'].size()[0] + L['x'].size()[1]) % 7) == ",
                                         (ids.sizes[0].value + ids.sizes[1].value) % 7);
  ImportedModel model = *model_;
  model.guards.push_back(SizeGuard::Parse(guard, size_of));
  const auto make = [&](int64_t seq_len, int64_t batch, std::optional<int64_t> short_len) {
    const Mesh ring2{.accum = 1, .dp = 1, .ring = 2, .ulysses = 1};
    return MakeVerification(model, MakeJob(seq_len, batch), Machine(1), {short_len, {}, ring2});
  };
  const int64_t rest = (ids.sizes[0].value + ids.sizes[1].value - 4) % 7;
  ASSERT_OK_AND_ASSIGN(const Verification longer, make(700 + rest, 4, {}));
  const TrainingSpec& sizes = longer.job.training;
  EXPECT_EQ((sizes.seq_len + sizes.global_batch_size) % 7, (rest + 4) % 7);
  EXPECT_LT(sizes.seq_len, 100);
  ASSERT_OK_AND_ASSIGN(const Verification larger, make(700 + rest, 4, 70 + rest));
  EXPECT_EQ(larger.job.training.global_batch_size, 4);
  EXPECT_THAT(make(701 + rest, 4, {}),
              IsError(absl::StatusCode::kInvalidArgument,
                      AllOf(HasSubstr("x.shape[0] is 4, x.shape[1] is 70"),
                            HasSubstr("exported with ((x.shape[0] + x.shape[1]) % 7) == "))));
}

// As an archive of a later torch may have them.
TEST_F(VerificationTest, WhatIsNotUnderstoodOfSizesIsRefused) {
  ImportedModel model = *model_;
  model.guards.push_back(SizeGuard::Parse(
      "frob(2) == 0", [](const auto&, int64_t) { return std::optional<SymInt>(); }));
  EXPECT_THAT(PrepareJob(model, MakeJob(512, 4)),
              IsError(absl::StatusCode::kUnimplemented,
                      HasSubstr("exported with frob(2) == 0 taken for granted, which is not "
                                "understood (function")));
}

TEST_F(VerificationTest, TheLengthHasWholeBlocks) {
  ASSERT_OK_AND_ASSIGN(ImportedModel model, ImportZoo("cases/blocks_of_four"));
  for (auto& [symbol, range] : model.symbol_ranges) range.max = 1 << 10;
  JobSpec job = MakeJob(1004, 1);
  job.data.inputs["ids"] = {.source = InputSource::kTokens};
  const auto make = [&](const Mesh& mesh) {
    return MakeVerification(model, job, Machine(1), {{}, {}, mesh});
  };
  ASSERT_OK_AND_ASSIGN(const Verification made, make({.accum = 1, .dp = 1, .ulysses = 3}));
  EXPECT_EQ(made.job.training.seq_len, 104);  // as 1004, 8 more than a multiple of 12
  for (auto& [symbol, range] : model.symbol_ranges) range.min = 30;
  ASSERT_OK_AND_ASSIGN(const Verification least, make({.accum = 1, .dp = 1, .ulysses = 3}));
  EXPECT_EQ(least.job.training.seq_len, 128);
}

// On the CPUs of this cluster nothing hides the hops of a ring.
TEST_F(VerificationTest, ARingExchangesKeysAsThePlanDoes) {
  const Mesh ring2{.accum = 1, .dp = 1, .ring = 2, .ulysses = 1};
  JobSpec job = MakeJob(4096, 1);
  ASSERT_OK_AND_ASSIGN(const Verification made, Make(job, {{}, {}, ring2}));
  EXPECT_THAT(made.plan, HasSubstr("gathered=true"));
  job.parallelism.ring_exchange = RingExchange::kSendRecv;
  ASSERT_OK_AND_ASSIGN(const Verification hops, Make(job, {{}, {}, ring2}));
  EXPECT_THAT(hops.plan, testing::Not(HasSubstr("gathered=true")));
}

TEST_F(VerificationTest, TheMeshIsThatOfThePlan) {
  JobSpec job = MakeJob(256, 1);
  job.parallelism.ranks = 4;  // more than the machine has
  ASSERT_OK_AND_ASSIGN(const Verification made, Make(job, {}));
  EXPECT_EQ(made.mesh, (Mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = 4}));
}

TEST_F(VerificationTest, APlannedJobKeepsItsMeshAndMicroSteps) {
  JobSpec job = MakeJob(256, 8);
  PlanSummary plan;
  plan.world_size = 2;
  plan.ulysses_size = 2;
  plan.grad_accum_steps = 4;
  plan.recompute = "full";
  plan.zero_stage = 3;
  ASSERT_OK_AND_ASSIGN(const Verification made, VerifyPlanned(job, Machine(2), plan));
  EXPECT_EQ(made.mesh, (Mesh{.accum = 2, .dp = 1, .ring = 1, .ulysses = 2}));
  EXPECT_EQ(made.job.memory.recompute, Recompute::kFull);
  EXPECT_EQ(made.job.parallelism.zero, 3);
  EXPECT_THAT(made.plan, HasSubstr("all_gather"));
  job.model.archives = {"/nowhere.pt2"};
  EXPECT_THAT(VerifyPlanned(job, Machine(2), plan),
              IsError(absl::StatusCode::kNotFound, HasSubstr("/nowhere.pt2")));
}

TEST_F(VerificationTest, TheDigestIsThatOfWhatRuns) {
  Verification base;
  base.plan = "plan";
  base.one_device = "one";
  EXPECT_EQ(DigestOf(base), DigestOf(base));
  std::set<std::string> digests = {DigestOf(base)};
  for (const auto& [plan, one_device, exact, exported] :
       std::vector<std::array<const char*, 4>>{{"other", "one", "", ""},
                                               {"plan", "other", "", ""},
                                               {"plan", "one", "exact", ""},
                                               {"plan", "one", "", "exact"},
                                               {"plano", "ne", "", ""}}) {
    Verification other;
    other.plan = plan;
    other.one_device = one_device;
    other.exact = exact;
    other.exported = exported;
    EXPECT_TRUE(digests.insert(DigestOf(other)).second) << plan << " " << one_device;
  }
}

TEST_F(VerificationTest, BothProgramsAreThoseOfTheSmallJob) {
  const Mesh mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
  ASSERT_OK_AND_ASSIGN(const Verification made, Make(MakeJob(4096, 8), {{}, {}, mesh}));
  ASSERT_OK_AND_ASSIGN(const Program plan, ParseProgram(made.plan));
  ASSERT_OK_AND_ASSIGN(const Program one, ParseProgram(made.one_device));
  EXPECT_EQ(plan.mesh, mesh);
  EXPECT_EQ(one.mesh, Mesh{});
  for (const Program* program : {&plan, &one}) {
    EXPECT_TRUE(std::ranges::any_of(program->factors, [](const Factor& factor) {
      return factor.name == "seq" && factor.size == 64;
    }));
  }
  EXPECT_EQ(made.exact, "");
  // Clipping is part of both, and out of reach.
  EXPECT_THAT(made.plan, HasSubstr("autosp.clip_"));
  EXPECT_GT(made.job.training.clip_grad_norm, 1e20);
  EXPECT_GT(made.needed_bytes, 0);
}

TEST_F(VerificationTest, WhatRoundsHasAnExactProgramBesideIt) {
  JobSpec job = MakeJob(256, 1);
  job.precision.params = ParamPrecision::kBf16;
  ASSERT_OK_AND_ASSIGN(const Verification made,
                       Make(job, {{}, {}, Mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2}}));
  EXPECT_THAT(made.one_device, HasSubstr(": bf16["));
  EXPECT_THAT(made.exact, HasSubstr(": f32["));
  EXPECT_THAT(made.exact, Not(HasSubstr(": bf16[")));
}

struct OracleCase {
  const char* what;
  const char* archive;
  VerificationRequest request;
  ParamPrecision params;
  bool has_exported;
  const char* oracle;
};

TEST_F(VerificationTest, ThePlanIsHeldAgainstTheExportWhereItCanBe) {
  const Mesh mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
  const VerificationRequest exported_sizes{32, 2, mesh};
  const VerificationRequest others{64, 2, mesh};
  VerificationRequest small = exported_sizes;
  small.memory_bytes = 1000;
  const auto kAsExported = ParamPrecision::kAsExported;
  const OracleCase kCases[] = {
      {"its own sizes", "llama", exported_sizes, kAsExported, true, "PyTorch's autograd"},
      {"other sizes", "llama", others, kAsExported, true, "resized to 2 x 64 by the pass"},
      {"bf16 made of it", "llama", exported_sizes, ParamPrecision::kBf16, true, "as exported"},
      {"bf16 itself", "llama_bf16", exported_sizes, kAsExported, true, "as exported"},
      {"fp32 of bf16", "llama_bf16", exported_sizes, ParamPrecision::kFp32, true, "as exported"},
      {"dropout", "gpt2_dropout", exported_sizes, kAsExported, true, "as exported"},
      {"no memory", "llama", small, kAsExported, false, "more than the 1000 B of this machine"},
  };
  for (const OracleCase& c : kCases) {
    SCOPED_TRACE(c.what);
    JobSpec job = MakeJob(256, 2);
    job.precision.params = c.params;
    ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportZoo(c.archive));
    ASSERT_OK_AND_ASSIGN(const Verification made,
                         MakeVerification(model, job, Machine(1), c.request));
    EXPECT_EQ(!made.exported.empty(), c.has_exported);
    EXPECT_THAT(made.oracle, HasSubstr(c.oracle));
    if (!c.has_exported) continue;
    ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(made.exported));
    EXPECT_EQ(graph.nodes.size(), model.graph.nodes.size());
  }
}

// Two micro-steps stand for all, unless the batch that is given is one of the job's.
TEST_F(VerificationTest, ABatchThatIsGivenIsSplitAsTheJobSplitsIt) {
  const Mesh mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
  JobSpec job = MakeJob(256, 3);
  job.training.micro_batch_size = 1;
  for (const auto& [batch_size, micro_steps] : {std::pair{3, 3}, {4, 2}, {6, 2}}) {
    ASSERT_OK_AND_ASSIGN(const Verification made, Make(job, {{}, batch_size, mesh}));
    EXPECT_EQ(made.mesh.accum, micro_steps) << batch_size;
  }
  EXPECT_THAT(Make(job, {{}, 5, mesh}),
              IsError(absl::StatusCode::kInvalidArgument,
                      HasSubstr("5 is no multiple of dp 1 x 2 micro-steps, as many as verify takes "
                                "of the 3 of the job; give a multiple of 2 or of 3")));
}

TEST_F(VerificationTest, RefusesWhatHasNoPrograms) {
  const Mesh dp2{.accum = 1, .dp = 2, .ring = 1, .ulysses = 1};
  EXPECT_THAT(Make(MakeJob(256, 8), {{}, 3, dp2}),
              IsError(absl::StatusCode::kInvalidArgument,
                      HasSubstr("3 is no multiple of dp 2 x 1 micro-steps; give a multiple of 2")));
  JobSpec frozen = MakeJob(256, 8);
  frozen.model.frozen = {"nothing"};
  EXPECT_THAT(Make(frozen, {{}, {}, dp2}),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("model.frozen")));
  JobSpec unfed = MakeJob(256, 8);
  unfed.data.inputs["labels"] = {.source = InputSource::kTokens, .dims = {DimRole::kBatch}};
  EXPECT_THAT(Make(unfed, {{}, {}, dp2}),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("labels")));
  JobSpec no_mesh = MakeJob(256, 1);
  no_mesh.parallelism = {.ranks = 4, .dp = 4, .ulysses = {}, .ring = {}, .zero = {}};
  EXPECT_THAT(Make(no_mesh, {}),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("parallelism: no mesh")));
}

}  // namespace
}  // namespace autosp
