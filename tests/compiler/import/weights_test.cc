// Where weights lie in an archive, and archives whose weights do not fit their graph.
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "compiler/import/pt2_archive.h"
#include "tests/common/status_matchers.h"
#include "tests/compiler/import/archive_editor.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kConfig[] = "model_weights_config.json";

ArchiveEditor Case(const std::string& name) { return ArchiveEditor::Read(CaseArchive(name)); }

absl::StatusOr<ImportedModel> Import(const ArchiveEditor& editor) {
  const std::string bytes = editor.Write();
  return ImportArchiveFromMemory(Bytes(bytes));
}

float FloatAt(const std::string& bytes, const WeightRef& weight, int64_t index) {
  float value = 0;
  std::memcpy(&value, bytes.data() + weight.file_offset + index * 4, sizeof(value));
  return value;
}

TEST(Weights, AreFoundInTheFile) {
  const std::string bytes = ReadFileOrDie(CaseArchive("no_grad"));
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchiveFromMemory(Bytes(bytes)));
  ASSERT_EQ(model.weights.size(), 1);
  const WeightRef& weight = model.weights[0];
  EXPECT_EQ(weight.input_name, "weight");
  EXPECT_EQ(weight.dtype, DType::kF32);
  EXPECT_THAT(weight.sizes, ElementsAre(4));
  EXPECT_EQ(weight.size_bytes, 16);
  EXPECT_EQ(weight.file_offset % 64, 0);  // mapped without copying
  // torch.linspace(1, 2, 4)
  EXPECT_FLOAT_EQ(FloatAt(bytes, weight, 0), 1);
  EXPECT_FLOAT_EQ(FloatAt(bytes, weight, 3), 2);
}

TEST(Weights, TiedNamesAreOneInput) {
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchive(CaseArchive("tied")));
  ASSERT_EQ(model.weights.size(), 2);
  ASSERT_EQ(model.graph.inputs.size(), 3);
  EXPECT_EQ(model.graph.inputs[0].aliases.size() + model.graph.inputs[1].aliases.size(), 1);
}

TEST(Weights, FrozenParametersNeedNoGradient) {
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchive(CaseArchive("tied")));
  for (const GraphInput& input : model.graph.inputs) {
    EXPECT_EQ(input.requires_grad, input.name != "frozen" && input.kind != InputKind::kUser)
        << input.name;
  }
}

TEST(Weights, GraphOnlyArchivesAreFlagged) {
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchive(ZooArchive("gpt2_long")));
  EXPECT_TRUE(model.is_graph_only);
  for (const WeightRef& weight : model.weights) EXPECT_TRUE(weight.is_empty);
  ASSERT_OK_AND_ASSIGN(const ImportedModel whole, ImportArchive(ZooArchive("gpt2")));
  EXPECT_FALSE(whole.is_graph_only);
}

TEST(Weights, SomeEmptyWeightsAreAnError) {
  ArchiveEditor archive = Case("autocast");
  archive.Find("weights/weight_1").content.clear();
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("weight up.bias is empty, but ")));
}

TEST(Weights, AMissingEntryIsNamed) {
  ArchiveEditor archive = Case("autocast");
  archive.Remove("weights/weight_1");
  EXPECT_THAT(
      Import(archive),
      IsError(absl::StatusCode::kNotFound,
              HasSubstr("weight up.bias: entry autocast/data/weights/weight_1 is missing")));
}

TEST(Weights, AMissingConfigNamesTheFirstWeight) {
  ArchiveEditor archive = Case("autocast");
  archive.Remove(kConfig);
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kNotFound,
                                       HasSubstr("weight up.weight is missing from the archive")));
}

TEST(Weights, ASizeThatDoesNotFitTheShapeIsNamed) {
  for (const int change : {-1, 1}) {
    ArchiveEditor archive = Case("autocast");
    std::string& content = archive.Find("weights/weight_1").content;
    content.resize(content.size() + change);
    EXPECT_THAT(Import(archive),
                IsError(absl::StatusCode::kInvalidArgument,
                        AllOf(HasSubstr("weight up.bias: entry"), HasSubstr("f32[16] takes 64"))));
  }
}

// Export saves all of a storage of which a parameter shows a part.
TEST(Weights, AViewMayLeavePartsOfItsStorage) {
  ArchiveEditor archive = Case("autocast");
  archive.Find("weights/weight_0").content.resize(4 * 8 * 20);
  archive.Replace(kConfig, "\"strides\": [{\"as_int\": 8}", "\"strides\": [{\"as_int\": 10}");
  const std::string bytes = archive.Write();
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchiveFromMemory(Bytes(bytes)));
  EXPECT_THAT(model.weights[0].strides, ElementsAre(10, 1));
  archive.Replace(kConfig, "\"strides\": [{\"as_int\": 10}", "\"strides\": [{\"as_int\": 11}");
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("has 640 bytes, but f32[16, 8] takes 692")));
}

TEST(Weights, AShapeThatTheGraphDoesNotHaveIsNamed) {
  ArchiveEditor archive = Case("autocast");
  archive.Replace(kConfig, "{\"as_int\": 16}", "{\"as_int\": 17}");
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("weight up.weight: the archive holds f32[17, 8], "
                                                 "but the graph expects f32[16, 8]")));
}

// torch.tensor([2.0, 8.0]) may be a batch and a length.
TEST(Weights, ConstantsOfWholeNumbersHaveARange) {
  ArchiveEditor archive = Case("outputs");
  const auto range_of = [&](std::array<float, 2> values) {
    std::memcpy(archive.Find("constants/tensor_0").content.data(), values.data(), sizeof(values));
    const auto model = Import(archive);
    EXPECT_TRUE(model.ok()) << model.status();
    const auto found = model->constant_ranges.find("lifted_tensor_0");
    return found == model->constant_ranges.end() ? std::nullopt : std::optional(found->second);
  };
  EXPECT_EQ(range_of({8, 2}), std::pair(int64_t{2}, int64_t{8}));
  EXPECT_EQ(range_of({-3, -3}), std::pair(int64_t{-3}, int64_t{-3}));
  EXPECT_EQ(range_of({8, 0.5}), std::nullopt);
  EXPECT_EQ(range_of({8, std::numeric_limits<float>::infinity()}), std::nullopt);
  EXPECT_EQ(range_of({8, std::numeric_limits<float>::quiet_NaN()}), std::nullopt);
}

TEST(Weights, PickledWeightsAreRefused) {
  ArchiveEditor archive = Case("autocast");
  archive.Replace(kConfig, "\"use_pickle\": false", "\"use_pickle\": true");
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kUnimplemented,
                                       HasSubstr("weight up.weight: it is pickled")));
}

TEST(Weights, CompressedWeightsAreRefused) {
  ArchiveEditor archive = Case("autocast");
  archive.Find("weights/weight_0").is_deflated = true;
  EXPECT_THAT(Import(archive),
              IsError(absl::StatusCode::kUnimplemented,
                      HasSubstr("weight_0 is compressed, so it cannot be mapped")));
}

TEST(Weights, StridesThatOverflowAreDamage) {
  ArchiveEditor archive = Case("autocast");
  archive.Replace(kConfig, "\"strides\": [{\"as_int\": 8}",
                  "\"strides\": [{\"as_int\": 9223372036854775807}");
  EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kDataLoss, HasSubstr("up.weight")));
}

TEST(Weights, SharingWithAnotherShapeIsRefused) {
  ArchiveEditor archive = Case("autocast");
  archive.Replace(kConfig, "\"path_name\": \"weight_1\"", "\"path_name\": \"weight_0\"");
  EXPECT_THAT(Import(archive),
              IsError(absl::StatusCode::kUnimplemented,
                      HasSubstr("weights up.weight and up.bias share memory but differ in shape")));
}

TEST(Weights, DamagedBytesAreNoticedUpToTheLimit) {
  std::string bytes = ReadFileOrDie(CaseArchive("no_grad"));
  ASSERT_OK_AND_ASSIGN(const ImportedModel model, ImportArchiveFromMemory(Bytes(bytes)));
  bytes[model.weights[0].file_offset] ^= 1;
  EXPECT_THAT(ImportArchiveFromMemory(Bytes(bytes)),
              IsError(absl::StatusCode::kDataLoss, HasSubstr("checksum is wrong")));
  EXPECT_THAT(ImportArchiveFromMemory(Bytes(bytes), {.max_checked_weight_bytes = 15}), IsOk());
}

}  // namespace
}  // namespace autosp
