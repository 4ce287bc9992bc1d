#include "worker/data/sample_reader.h"

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::ElementsAre;

// Token t of the data is t mod 251.
std::shared_ptr<const TokenFiles> Counting(int64_t num_tokens) {
  std::string bytes(num_tokens, 0);
  for (int64_t i = 0; i < num_tokens; ++i) bytes[i] = static_cast<char>(i % 251);
  const std::string path =
      JoinPath(testing::TempDir(), "sample_reader_test_" + std::to_string(num_tokens));
  EXPECT_TRUE(WriteFileAtomically(path, bytes).ok());
  DataSpec data;
  data.files = {path};
  return std::make_shared<TokenFiles>(*TokenFiles::Open(data));
}

std::vector<int64_t> Read(const SampleReader& reader, InputSource source, const Sample& sample,
                          const std::vector<int64_t>& positions) {
  std::vector<int64_t> values(positions.size());
  const absl::Status status = reader.Read(source, sample, positions, absl::MakeSpan(values));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

std::vector<int64_t> Range(int64_t begin, int64_t end) {
  std::vector<int64_t> values(end - begin);
  std::iota(values.begin(), values.end(), begin);
  return values;
}

TEST(SampleReaderTest, TokensAtAnyPositions) {
  const SampleReader reader(Counting(100), DataSpec(), /*seq_len=*/10, /*seed=*/0);
  EXPECT_THAT(Read(reader, InputSource::kTokens, {.index = 3}, {0, 1, 2, 9}),
              ElementsAre(30, 31, 32, 39));
  EXPECT_THAT(Read(reader, InputSource::kPositions, {.index = 3}, {4, 5}), ElementsAre(4, 5));
  EXPECT_THAT(Read(reader, InputSource::kOnes, {.index = 3}, {4, 5}), ElementsAre(1, 1));
  EXPECT_THAT(Read(reader, InputSource::kZeros, {.index = 3}, {4, 5}), ElementsAre(0, 0));
  EXPECT_THAT(Read(reader, InputSource::kTokens, {.index = 3}, {}), ElementsAre());
}

TEST(SampleReaderTest, NextTokensCrossSamplesAndEndWithIgnoreIndex) {
  DataSpec data;
  data.ignore_index = -7;
  const SampleReader reader(Counting(20), data, /*seq_len=*/10, /*seed=*/0);
  EXPECT_THAT(Read(reader, InputSource::kNextTokens, {.index = 0}, {0, 8, 9}),
              ElementsAre(1, 9, 10));
  EXPECT_THAT(Read(reader, InputSource::kNextTokens, {.index = 1}, {0, 8, 9}),
              ElementsAre(11, 19, -7));
  EXPECT_THAT(Read(reader, InputSource::kNextTokens, {.index = 1}, {9}), ElementsAre(-7));
  EXPECT_THAT(Read(reader, InputSource::kNextTokens, {.index = 1}, {8}), ElementsAre(19));
}

class MaskedLanguageModelTest : public testing::Test {
 protected:
  static constexpr int64_t kSeqLen = 10000;
  static DataSpec Data() {
    DataSpec data;
    data.mask_token = 1000;
    data.mlm_probability = 0.2;
    return data;
  }
  SampleReader reader_{Counting(2 * kSeqLen), Data(), kSeqLen, /*seed=*/5};
};

TEST_F(MaskedLanguageModelTest, MasksTheShareThatWasAskedFor) {
  const std::vector<int64_t> positions = Range(0, kSeqLen);
  const auto tokens = Read(reader_, InputSource::kTokens, {.index = 1}, positions);
  const auto masked = Read(reader_, InputSource::kMlmTokens, {.index = 1}, positions);
  const auto labels = Read(reader_, InputSource::kMlmLabels, {.index = 1}, positions);
  int num_labels = 0;
  int num_mask_tokens = 0;
  int num_random = 0;
  for (int64_t i = 0; i < kSeqLen; ++i) {
    if (labels[i] == -100) {
      EXPECT_EQ(masked[i], tokens[i]);
      continue;
    }
    EXPECT_EQ(labels[i], tokens[i]);
    ++num_labels;
    num_mask_tokens += masked[i] == 1000;
    num_random += masked[i] != 1000 && masked[i] != tokens[i];
  }
  // Expected 2000, 1600 and 200; five standard deviations are 200, 90 and 68.
  EXPECT_NEAR(num_labels, 2000, 200);
  EXPECT_NEAR(num_mask_tokens, 0.8 * num_labels, 90);
  EXPECT_NEAR(num_random, 0.1 * num_labels, 68);
}

TEST_F(MaskedLanguageModelTest, DoesNotDependOnThePartThatIsRead) {
  const auto whole = Read(reader_, InputSource::kMlmTokens, {.index = 0}, Range(0, kSeqLen));
  const auto part = Read(reader_, InputSource::kMlmTokens, {.index = 0}, Range(700, 900));
  EXPECT_EQ(part, std::vector<int64_t>(whole.begin() + 700, whole.begin() + 900));
}

TEST_F(MaskedLanguageModelTest, EachPassMasksAnew) {
  EXPECT_NE(Read(reader_, InputSource::kMlmLabels, {.index = 0, .pass = 0}, Range(0, 100)),
            Read(reader_, InputSource::kMlmLabels, {.index = 0, .pass = 1}, Range(0, 100)));
}

}  // namespace
}  // namespace autosp
