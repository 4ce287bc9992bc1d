#include "client/model_export.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "checkpoint/checkpoint_folder.h"
#include "client/partial_folder.h"
#include "common/errors.h"
#include "common/file.h"
#include "compiler/weights/safetensors_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/written_checkpoint.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ModelExportTest : public testing::Test {
 protected:
  ModelExportTest() {
    options_.checkpoint = dir_.Join("checkpoints");
    options_.output_dir = dir_.Join("hf");
    options_.on_progress = [](absl::string_view, int64_t, int64_t) { return absl::OkStatus(); };
  }

  // Of a job that trains in bf16: "w" with its master, tied, and "empty"; moments beside.
  void Write(int64_t step, float first) {
    WholeTensor half{.name = "w", .dtype = DType::kBF16, .shape = {6, 4}};
    half.bytes.resize(48, std::byte{0x40});
    CheckpointManifest manifest{.step = step};
    manifest.state_dict = {
        {.name = "w", .shape = {6, 4}, .parameter = "w", .master = "master:w"},
        {.name = "tied.w", .shape = {6, 4}, .parameter = "w", .master = "master:w"},
        {.name = "empty", .shape = {0, 4}, .parameter = "empty"}};
    WriteCheckpoint(
        JoinPath(options_.checkpoint, CheckpointName(step)), 3,
        {F32Tensor("adamw.exp_avg:w", {6, 4}, 100), F32Tensor("master:w", {6, 4}, first),
         std::move(half), F32Tensor("empty", {0, 4}, 0)},
        std::move(manifest));
  }

  std::vector<float> Exported(const std::string& name) const {
    const auto reader = SafetensorsReader::Open(JoinPath(options_.output_dir, kModelFileName));
    EXPECT_THAT(reader, IsOk());
    const auto tensor = reader->Find(name);
    EXPECT_THAT(tensor, IsOk());
    std::vector<float> numbers(tensor->bytes.size() / sizeof(float));
    std::memcpy(numbers.data(), tensor->bytes.data(), tensor->bytes.size());
    return numbers;
  }

  // What is in the folder of the test, hidden or not, besides the checkpoints.
  std::vector<std::string> Left() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      if (entry.path().filename() != "checkpoints") names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }

  TempDir dir_;
  ModelExportOptions options_;
};

TEST_F(ModelExportTest, PutsTogetherWhatRanksHaveWritten) {
  Write(3, 0);
  Write(7, 1000);
  ASSERT_OK_AND_ASSIGN(const ExportedModel model, ExportModel(options_));
  EXPECT_EQ(model.step, 7);
  EXPECT_EQ(model.num_tensors, 3);
  EXPECT_THAT(model.floating_types, ElementsAre(DType::kF32));
  EXPECT_THAT(Left(), ElementsAre("hf"));
  std::vector<float> expected = Exported("w");
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(expected[i], 1000 + i);
  EXPECT_EQ(expected.size(), 24);
  EXPECT_EQ(Exported("tied.w"), expected);
  EXPECT_THAT(Exported("empty"), IsEmpty());
}

TEST_F(ModelExportTest, AParameterOfTheTypeIsTakenAsItIs) {
  Write(3, 0);
  options_.dtype = DType::kBF16;
  ASSERT_THAT(ExportModel(options_), IsOk());
  const auto reader = SafetensorsReader::Open(options_.output_dir);
  const auto bytes = reader->Find("w")->bytes;
  EXPECT_EQ(bytes.size(), 48);
  EXPECT_EQ(std::ranges::count(bytes, std::byte{0x40}), 48);
}

// At whatever moment.
TEST_F(ModelExportTest, AnInterruptLeavesNothing) {
  Write(3, 0);
  options_.max_shard_bytes = 1;
  int num_calls = 0;
  for (int wanted = 0; wanted < 1000; ++wanted) {
    num_calls = 0;
    options_.on_progress = [&](absl::string_view, int64_t done, int64_t total) {
      EXPECT_LE(done, total);
      return num_calls++ == wanted ? Cancelled("interrupted") : absl::OkStatus();
    };
    const auto model = ExportModel(options_);
    if (model.ok()) break;
    EXPECT_EQ(model.status().code(), absl::StatusCode::kCancelled);
    EXPECT_THAT(Left(), IsEmpty());
  }
  EXPECT_GE(num_calls, 3 + 2);  // Three files are checked, two tensors have bytes to be written.
  EXPECT_THAT(Left(), ElementsAre("hf"));
}

TEST_F(ModelExportTest, OlderManifestsAreRefusedWithWhatToDo) {
  WriteCheckpoint(options_.checkpoint, 1, {F32Tensor("w", {2}, 0)});
  EXPECT_THAT(ExportModel(options_),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("an older version")));
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(ModelExportTest, TwoExportsToOnePlaceDoNotMix) {
  Write(3, 0);
  {
    ASSERT_OK_AND_ASSIGN(PartialFolder other, PartialFolder::Create(options_.output_dir + "/"));
    EXPECT_THAT(ExportModel(options_),
                IsError(absl::StatusCode::kAlreadyExists, HasSubstr("another process is writing")));
    EXPECT_THAT(Left(), ElementsAre(".hf.partial"));
  }
  EXPECT_THAT(ExportModel(options_), IsOk());
  EXPECT_THAT(Left(), ElementsAre("hf"));
}

}  // namespace
}  // namespace autosp
