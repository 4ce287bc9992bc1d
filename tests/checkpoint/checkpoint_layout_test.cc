#include "checkpoint/checkpoint_layout.h"

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
  buffer %c "count" : i64[]
  buffer %d "next_count" : i64[]
  state %g "grad:w" : f32[10, 8]
  state %m "adamw.exp_avg:w" : f32[10, 8]
  state %s "scale" : f32[]
  scalar %lr "learning_rate" : f32[]
  section step {
    update aten.zero_.default(%g) ; forward
    update aten.copy_.default(%c, %d, false) ; backward
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
  EXPECT_THAT(NamesOf(tensors), ElementsAre("adamw.exp_avg:w", "b", "count", "none", "scale", "w"));
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
    EXPECT_EQ(total, 2 * 320 + 6 + 4 + 8);
    for (const int64_t each : bytes) EXPECT_LE(each, total / num_files + row_bytes) << num_files;
    EXPECT_EQ(*LayOutCheckpoint(program, num_files), tensors);
  }
}

// kProgram with the moments placed as `dims` on a mesh.
Program WithMoments(const std::string& mesh, const std::string& dims) {
  std::string text = kProgram;
  const std::string whole = "\"adamw.exp_avg:w\" : f32[10, 8]";
  text.replace(text.find(whole), whole.size(), "\"adamw.exp_avg:w\" : f32" + dims);
  const std::string one = "accum=1 dp=1 ring=1 ulysses=2";
  text.replace(text.find(one), one.size(), mesh);
  return Parse(text);
}

// Each rank writes the part that it holds, of ranks that hold the same part the first.
TEST(CheckpointLayoutTest, RanksWriteTheirPartsOfWhatIsSplit) {
  ASSERT_OK_AND_ASSIGN(
      const auto tensors,
      LayOutCheckpoint(WithMoments("accum=1 dp=2 ring=1 ulysses=2", "[10@ulysses, 8]"), 4));
  EXPECT_EQ(tensors[0].name, "adamw.exp_avg:w");
  EXPECT_THAT(tensors[0].shape, ElementsAre(10, 8));
  EXPECT_THAT(tensors[0].slices,
              ElementsAre(TensorSlice{.file = 0, .offset = {0, 0}, .shape = {5, 8}},
                          TensorSlice{.file = 1, .offset = {5, 0}, .shape = {5, 8}}));
  ASSERT_OK_AND_ASSIGN(
      const auto all,
      LayOutCheckpoint(WithMoments("accum=1 dp=2 ring=1 ulysses=2", "[10, 8@dp+ulysses]"), 4));
  ASSERT_EQ(all[0].slices.size(), 4u);
  EXPECT_EQ(all[0].slices[3], (TensorSlice{.file = 3, .offset = {0, 6}, .shape = {10, 2}}));
}

TEST(CheckpointLayoutTest, RefusesWhatHasNoBoxForEachRank) {
  const std::string two = "accum=1 dp=1 ring=1 ulysses=2";
  const struct {
    const char* dims;
    int64_t num_files;
    const char* message;
  } cases[] = {
      {"[rows@ulysses, 8]", 2, "adamw.exp_avg:w: %m is split over ulysses into what is no equal"},
      {"[10@ulysses, 8@ulysses]", 2, "into what is no equal part along one dimension"},
      {"[10@ulysses, 8]", 3, "each of 2 ranks writes its part into a file of its own"},
  };
  for (const auto& c : cases) {
    const auto tensors = LayOutCheckpoint(WithMoments(two, c.dims), c.num_files);
    ASSERT_FALSE(tensors.ok()) << c.dims;
    EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace autosp
