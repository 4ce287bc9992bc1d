#include "client/verify_inputs.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "compiler/weights/safetensors_header.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

// A table of 50 rows that is read through a view, and a loss of 40 classes.
constexpr char kGraph[] = R"(graph "g" {
  input %ids "input_ids" : i64[2, 8]
  input %labels "labels" : i64[2, 8]
  input %kinds "token_type_ids" : i64[2, 8]
  param %w "wte" : f32[50, 4]
  param %k "kinds" : f32[2, 4]
  param %h "head" : f32[40, 4]
  %flat = aten.view.default(%ids, [2, 8]) : i64[2, 8]
  %e = aten.embedding.default(%w, %flat, -1, false, false) : f32[2, 8, 4]
  %ke = aten.embedding.default(%k, %kinds, -1, false, false) : f32[2, 8, 4]
  %x = aten.add.Tensor(%e, %ke, 1) : f32[2, 8, 4]
  %logits = aten.linear.default(%x, %h, none) : f32[2, 8, 40]
  %rows = aten.view.default(%logits, [16, 40]) : f32[16, 40]
  %targets = aten.view.default(%labels, [16]) : i64[16]
  %loss = aten.cross_entropy_loss.default(%rows, %targets, none, 1, -100, 0.0) : f32[]
  return %loss
}
)";

constexpr char kGraphWithoutTable[] = R"(graph "g" {
  input %ids "input_ids" : i64[2, 8]
  %sum = aten.sum.default(%ids, none) : i64[]
  return %sum
}
)";

Graph Parse(const char* text) {
  absl::StatusOr<Graph> graph = ParseGraph(text);
  EXPECT_THAT(graph, IsOk());
  return *std::move(graph);
}

TEST(VocabularyTest, IsTheSmallestOfTablesAndClasses) {
  EXPECT_THAT(VocabularyOf(Parse(kGraph), {}), IsOkAndHolds(40));
  // Labels that are no tokens do not bound them; token types never do.
  DataSpec data;
  data.inputs["labels"] = {.source = InputSource::kZeros};
  EXPECT_THAT(VocabularyOf(Parse(kGraph), data), IsOkAndHolds(50));
}

TEST(VocabularyTest, AModelWithoutATableHasNone) {
  EXPECT_THAT(VocabularyOf(Parse(kGraphWithoutTable), {}),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("--batch")));
}

TEST(RandomTokensTest, AreBelowTheVocabularyAndTheSameEachTime) {
  const TempDir dir;
  JobSpec job;
  job.training.seq_len = 100;
  job.training.global_batch_size = 3;
  std::vector<std::string> files;
  for (const int64_t seed : {1, 1, 2}) {
    job.training.seed = seed;
    const std::string path = dir.Join(absl::StrCat("tokens", files.size()));
    ASSERT_THAT(UseRandomTokens(7, path, job), IsOk());
    EXPECT_EQ(job.data.files, std::vector<std::string>{path});
    EXPECT_EQ(job.data.format, DataFormat::kTokens);
    EXPECT_EQ(job.data.dtype, TokenDtype::kUint32);
    ASSERT_OK_AND_ASSIGN(files.emplace_back(), ReadFile(path, 1 << 20));
  }
  EXPECT_EQ(files[0], files[1]);
  EXPECT_NE(files[0], files[2]);
  std::vector<uint32_t> tokens(files[0].size() / sizeof(uint32_t));
  std::memcpy(tokens.data(), files[0].data(), files[0].size());
  EXPECT_GE(tokens.size(), 301u);
  EXPECT_EQ(std::ranges::max(tokens), 6u);
  EXPECT_EQ(std::ranges::min(tokens), 0u);
}

// A safetensors file of zeros.
std::string WriteInputs(const TempDir& dir, const std::vector<SafetensorsEntry>& entries) {
  SafetensorsHeader header;
  int64_t end = 0;
  for (SafetensorsEntry entry : entries) {
    entry.dtype_name = "I64";
    entry.dtype = DType::kI64;
    entry.begin = end;
    end += *TensorBytes(DType::kI64, entry.shape);
    entry.end = end;
    header.entries.push_back(entry);
  }
  const std::string json = FormatSafetensorsHeader(header);
  uint64_t size = json.size();
  std::string text(reinterpret_cast<const char*>(&size), sizeof(size));
  absl::StrAppend(&text, json, std::string(end, '\0'));
  const std::string path = dir.Join("inputs.safetensors");
  EXPECT_THAT(WriteFileAtomically(path, text), IsOk());
  return path;
}

struct InputsCase {
  const char* what;
  std::vector<SafetensorsEntry> entries;
  const char* error;  // "": batch 4, length 16
};

TEST(SizesOfBatchTest, ComeFromEveryInput) {
  const InputsCase kCases[] = {
      {"all agree",
       {{"input_ids", "", {}, {4, 16}},
        {"labels", "", {}, {4, 16}},
        {"token_type_ids", "", {}, {4, 16}}},
       ""},
      {"more than the model takes",
       {{"input_ids", "", {}, {4, 16}},
        {"labels", "", {}, {4, 16}},
        {"other", "", {}, {1}},
        {"token_type_ids", "", {}, {4, 16}}},
       ""},
      {"one is missing",
       {{"input_ids", "", {}, {4, 16}}, {"labels", "", {}, {4, 16}}},
       "token_type_ids"},
      {"another length",
       {{"input_ids", "", {}, {4, 16}},
        {"labels", "", {}, {4, 15}},
        {"token_type_ids", "", {}, {4, 16}}},
       "dimension 1 of labels has size 15, where other inputs have 16"},
      {"a dimension too many",
       {{"input_ids", "", {}, {4, 16, 1}},
        {"labels", "", {}, {4, 16}},
        {"token_type_ids", "", {}, {4, 16}}},
       "input_ids is [4, 16, 1], but the job gives it 2 dimensions"},
  };
  for (const InputsCase& c : kCases) {
    SCOPED_TRACE(c.what);
    const TempDir dir;
    const absl::StatusOr<BatchSizes> sizes =
        SizesOfBatch(Parse(kGraph), {}, WriteInputs(dir, c.entries));
    if (*c.error == '\0') {
      ASSERT_THAT(sizes, IsOk());
      EXPECT_EQ(sizes->batch_size, 4);
      EXPECT_EQ(sizes->seq_len, 16);
    } else {
      ASSERT_FALSE(sizes.ok());
      EXPECT_THAT(std::string(sizes.status().message()), HasSubstr(c.error));
    }
  }
}

// Images have no tokens: a batch is enough. Without one nothing says how many there are.
TEST(SizesOfBatchTest, NeedNoSequence) {
  constexpr char kImages[] = R"(graph "g" {
    input %x "pixels" : f32[2, 3, 8]
    %sum = aten.sum.default(%x, none) : f32[]
    return %sum
  }
  )";
  const TempDir dir;
  const std::string path = WriteInputs(dir, {{"pixels", "", {}, {4, 3, 8}}});
  DataSpec data;
  data.inputs["pixels"] = {.source = InputSource::kOnes,
                           .dims = {DimRole::kBatch, DimRole::kOther, DimRole::kOther}};
  ASSERT_OK_AND_ASSIGN(const BatchSizes sizes, SizesOfBatch(Parse(kImages), data, path));
  EXPECT_EQ(sizes.batch_size, 4);
  EXPECT_EQ(sizes.seq_len, std::nullopt);
  data.inputs["pixels"].dims[0] = DimRole::kOther;
  EXPECT_THAT(SizesOfBatch(Parse(kImages), data, path),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("no input has a batch")));
}

}  // namespace
}  // namespace autosp
