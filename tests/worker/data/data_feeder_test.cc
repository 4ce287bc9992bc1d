// The shards of all ranks and micro-steps, put together, are the global batch.

#include "worker/data/data_feeder.h"

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr int64_t kSeqLen = 7;
constexpr int64_t kBatch = 4;

std::shared_ptr<const TokenFiles> Counting() {
  std::string bytes(500, 0);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 251);
  const std::string path = JoinPath(testing::TempDir(), "data_feeder_test.txt");
  EXPECT_TRUE(WriteFileAtomically(path, bytes).ok());
  DataSpec data;
  data.files = {path};
  return std::make_shared<TokenFiles>(*TokenFiles::Open(data));
}

JobSpec Job() {
  JobSpec job;
  job.training.seq_len = kSeqLen;
  job.training.global_batch_size = kBatch;
  job.data.shuffle_seed = 3;
  job.data.validation.fraction = 0.2;
  job.data.inputs["times_first"] = {.source = InputSource::kTokens,
                                    .dims = {DimRole::kSequence, DimRole::kBatch}};
  job.data.inputs["mask"] = {.source = InputSource::kOnes,
                             .dims = {DimRole::kBatch, DimRole::kOther, DimRole::kSequence}};
  job.data.inputs["next"] = {.source = InputSource::kNextTokens};
  return job;
}

// One feed of the given type.
Program ProgramOf(const std::string& mesh, const std::string& type) {
  auto program = ParseProgram(absl::StrCat(
      "program \"test\" {\n  mesh ", mesh, "\n  factor batch = 4\n  factor seq = 7\n",
      "  section step {\n    %x = feed \"input_ids\"() {pad=-9} : ", type, " ; forward\n  }\n}\n"));
  EXPECT_TRUE(program.ok()) << program.status();
  return *program;
}

std::unique_ptr<DataFeeder> Feeder() {
  auto feeder = DataFeeder::Make(Job(), Counting());
  EXPECT_TRUE(feeder.ok()) << feeder.status();
  return *std::move(feeder);
}

absl::StatusOr<at::Tensor> Feed(DataFeeder& feeder, const Program& program, std::string_view name,
                                int64_t rank, int64_t micro_step) {
  const Instruction& feed = program.sections[0].body[0];
  const MeshCoordinate place = CoordinateOf(program.mesh, rank);
  return feeder.Feed({.name = name,
                      .program = program,
                      .value = program.value(feed.results[0]),
                      .place = place,
                      .micro_step = micro_step,
                      .pad = feed.attributes.at("pad")});
}

// [batch, seq], made of the shards: micro-steps outside dp along the batch, ranks along the
// sequence.
at::Tensor Assemble(DataFeeder& feeder, const Program& program, std::string_view name) {
  std::vector<at::Tensor> rows;
  const Mesh& mesh = program.mesh;
  for (int64_t micro_step = 0; micro_step < mesh.accum; ++micro_step) {
    for (int64_t dp = 0; dp < mesh.dp; ++dp) {
      std::vector<at::Tensor> columns;
      for (int64_t sp = 0; sp < mesh.ulysses; ++sp) {
        columns.push_back(*Feed(feeder, program, name, dp * mesh.ulysses + sp, micro_step));
      }
      rows.push_back(at::cat(columns, 1));
    }
  }
  return at::cat(rows, 0);
}

TEST(DataFeederTest, ShardsAreTheGlobalBatchWhateverTheMesh) {
  const auto feeder = Feeder();
  feeder->SelectTrainingStep(5);
  const at::Tensor whole = *Feed(
      *feeder, ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i64[batch, seq]"), "input_ids", 0, 0);
  ASSERT_EQ(whole.sizes(), at::IntArrayRef({kBatch, kSeqLen}));
  // Samples are runs of the counting data, and the batch is shuffled.
  const at::Tensor steps = (whole.slice(1, 1) - whole.slice(1, 0, kSeqLen - 1)).remainder(251);
  EXPECT_TRUE(at::all(steps == 1).item<bool>());
  EXPECT_FALSE(at::all(whole.select(1, 0).diff() == kSeqLen).item<bool>());

  for (const char* mesh : {"accum=2 dp=2 ring=1 ulysses=2", "accum=1 dp=4 ring=1 ulysses=3",
                           "accum=4 dp=1 ring=1 ulysses=4"}) {
    const Program program = ProgramOf(mesh, "i64[batch@accum+dp, seq@ulysses]");
    const at::Tensor all = Assemble(*feeder, program, "input_ids");
    EXPECT_TRUE(at::equal(all.slice(1, 0, kSeqLen), whole)) << mesh;
    EXPECT_TRUE(at::all(all.slice(1, kSeqLen) == -9).item<bool>()) << mesh;
  }
}

TEST(DataFeederTest, OtherStepsAndValidationAreOtherBatches) {
  const auto feeder = Feeder();
  const Program program = ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i64[batch, seq]");
  feeder->SelectTrainingStep(0);
  const at::Tensor first = *Feed(*feeder, program, "input_ids", 0, 0);
  feeder->SelectTrainingStep(1);
  const at::Tensor second = *Feed(*feeder, program, "input_ids", 0, 0);
  feeder->SelectValidationBatch(0);
  const at::Tensor held_out = *Feed(*feeder, program, "input_ids", 0, 0);
  EXPECT_FALSE(at::equal(first, second));
  // 71 samples, of which the last 14 are held out, in file order.
  EXPECT_EQ(held_out[0][0].item<int64_t>(), 57 * kSeqLen % 251);
  EXPECT_EQ(feeder->num_validation_batches(), 3);
}

TEST(DataFeederTest, NextTokensCrossTheBordersOfShards) {
  const auto feeder = Feeder();
  const Program program = ProgramOf("accum=1 dp=1 ring=1 ulysses=2", "i64[batch@dp, seq@ulysses]");
  const at::Tensor tokens = Assemble(*feeder, program, "input_ids");
  const at::Tensor next = Assemble(*feeder, program, "next");
  EXPECT_TRUE(at::equal(next.slice(1, 0, kSeqLen - 1), tokens.slice(1, 1, kSeqLen)));
}

TEST(DataFeederTest, PutsDimensionsAndTypesAsTheInputHasThem) {
  const auto feeder = Feeder();
  const Program plain = ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i64[batch, seq]");
  const Program turned = ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i32[seq, batch]");
  const at::Tensor tokens = *Feed(*feeder, plain, "input_ids", 0, 0);
  const at::Tensor times_first = *Feed(*feeder, turned, "times_first", 0, 0);
  EXPECT_EQ(times_first.scalar_type(), at::kInt);
  EXPECT_TRUE(at::equal(times_first.to(at::kLong), tokens.t()));
  const Program mask = ProgramOf("accum=1 dp=1 ring=1 ulysses=2", "f32[batch, 3, seq@ulysses]");
  const at::Tensor ones = *Feed(*feeder, mask, "mask", 1, 0);
  EXPECT_EQ(ones.scalar_type(), at::kFloat);
  EXPECT_EQ(ones.sizes(), at::IntArrayRef({kBatch, 3, 4}));
  EXPECT_TRUE(at::all(ones.slice(2, 0, 3) == 1).item<bool>());
  EXPECT_TRUE(at::all(ones.slice(2, 3) == -9).item<bool>());
}

TEST(DataFeederTest, RefusesWhatTheDataCannotFeed) {
  const auto feeder = Feeder();
  const Program program = ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i64[batch, seq]");
  EXPECT_THAT(std::string(Feed(*feeder, program, "strange", 0, 0).status().message()),
              HasSubstr("the data does not feed it; add data.inputs.strange"));
  const Program longer = ProgramOf("accum=1 dp=1 ring=1 ulysses=1", "i64[batch, 8]");
  EXPECT_THAT(std::string(Feed(*feeder, longer, "input_ids", 0, 0).status().message()),
              HasSubstr("dimension 1 has size 8, but training.seq_len is 7"));
  EXPECT_THAT(std::string(Feed(*feeder, program, "mask", 0, 0).status().message()),
              HasSubstr("names 3 dimensions, the input has 2"));
}

}  // namespace
}  // namespace autosp
