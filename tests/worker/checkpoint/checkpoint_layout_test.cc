#include "worker/checkpoint/checkpoint_layout.h"

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "compiler/weights/safetensors_header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Program Parse(const std::string& text) {
  absl::StatusOr<Program> program = ParseProgram(text);
  EXPECT_THAT(program, IsOk());
  return *std::move(program);
}

constexpr char kProgram[] = R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=2
  factor rows = 10
  param %w "w" : f32[10, 8]
  param %b "b" : bf16[3]
  param %none "none" : f32[0, 4]
  buffer %t "table" : f32[5]
  state %g "grad:w" : f32[10, 8]
  state %m "adamw.exp_avg:w" : f32[10, 8]
  state %s "scale" : f32[]
  scalar %lr "learning_rate" : f32[]
  section step {
    update aten.zero_.default(%g) ; forward
  }
}
)";

std::vector<std::string> NamesOf(const std::vector<ManifestTensor>& tensors) {
  std::vector<std::string> names;
  for (const ManifestTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

TEST(CheckpointLayoutTest, HoldsWhatOneStepLeavesToTheNext) {
  ASSERT_OK_AND_ASSIGN(const auto tensors, LayOutCheckpoint(Parse(kProgram), 1));
  EXPECT_THAT(NamesOf(tensors), ElementsAre("adamw.exp_avg:w", "b", "none", "scale", "w"));
}

// Every number of files gives each element a place, which the manifest's own check shows, and about
// the same bytes to each file.
TEST(CheckpointLayoutTest, CutsAnyProgramIntoAnyNumberOfFiles) {
  const Program program = Parse(kProgram);
  const int64_t row_bytes = 32;
  for (int64_t num_files = 1; num_files <= 70; ++num_files) {
    ASSERT_OK_AND_ASSIGN(const auto tensors, LayOutCheckpoint(program, num_files));
    CheckpointManifest manifest{.tensors = tensors};
    std::vector<int64_t> bytes(num_files, 0);
    int64_t total = 0;
    for (int64_t file = 0; file < num_files; ++file) {
      manifest.files.push_back({absl::StrCat("f", file), 1, std::string(64, 'a')});
    }
    for (const ManifestTensor& tensor : tensors) {
      for (const TensorSlice& slice : tensor.slices) {
        bytes[slice.file] += *TensorBytes(tensor.dtype, slice.shape);
        total += *TensorBytes(tensor.dtype, slice.shape);
      }
    }
    EXPECT_THAT(ParseManifest(FormatManifest(manifest)), IsOk()) << num_files;
    EXPECT_EQ(total, 2 * 320 + 6 + 4);
    for (const int64_t each : bytes) EXPECT_LE(each, total / num_files + row_bytes) << num_files;
    EXPECT_EQ(*LayOutCheckpoint(program, num_files), tensors);
  }
}

TEST(CheckpointLayoutTest, RefusesAValueThatIsSplitOverRanks) {
  std::string text = kProgram;
  const std::string whole = "state %m \"adamw.exp_avg:w\" : f32[10, 8]";
  text.replace(text.find(whole), whole.size(),
               "state %m \"adamw.exp_avg:w\" : f32[rows@ulysses, 8]");
  const auto tensors = LayOutCheckpoint(Parse(text), 2);
  ASSERT_EQ(tensors.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tensors.status().message()),
              HasSubstr("adamw.exp_avg:w: is split over ulysses"));
}

}  // namespace
}  // namespace autosp
