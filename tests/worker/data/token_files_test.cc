#include "worker/data/token_files.h"

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Write(const std::string& name, const std::string& bytes) {
  const std::string path = JoinPath(testing::TempDir(), "token_files_test_" + name);
  EXPECT_TRUE(WriteFileAtomically(path, bytes).ok());
  return path;
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::vector<int64_t> ReadAll(const TokenFiles& files, int64_t begin, int64_t count) {
  std::vector<int64_t> tokens(count);
  EXPECT_TRUE(files.Read(begin, absl::MakeSpan(tokens)).ok());
  return tokens;
}

TEST(TokenFilesTest, TextFilesAreOneStreamInTheGivenOrder) {
  DataSpec data;
  data.files = {Write("b", "xyz"), Write("empty", ""), Write("a", "\xff\x01")};
  const auto files = TokenFiles::Open(data);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->num_tokens(), 5);
  EXPECT_THAT(ReadAll(*files, 0, 5), ElementsAre('x', 'y', 'z', 255, 1));
  EXPECT_THAT(ReadAll(*files, 2, 2), ElementsAre('z', 255));
  EXPECT_THAT(ReadAll(*files, 4, 1), ElementsAre(1));
}

TEST(TokenFilesTest, ReadsEveryDtype) {
  DataSpec data;
  data.format = DataFormat::kTokens;
  data.files = {Write("u16", BytesOf<uint16_t>({7, 65535}))};
  data.dtype = TokenDtype::kUint16;
  EXPECT_THAT(ReadAll(*TokenFiles::Open(data), 0, 2), ElementsAre(7, 65535));
  data.files = {Write("u32", BytesOf<uint32_t>({7, 4000000000u}))};
  data.dtype = TokenDtype::kUint32;
  EXPECT_THAT(ReadAll(*TokenFiles::Open(data), 0, 2), ElementsAre(7, 4000000000));
  data.files = {Write("i32", BytesOf<int32_t>({7, 2000000000}))};
  data.dtype = TokenDtype::kInt32;
  EXPECT_THAT(ReadAll(*TokenFiles::Open(data), 0, 2), ElementsAre(7, 2000000000));
  data.files = {Write("i64", BytesOf<int64_t>({7, 1ll << 40}))};
  data.dtype = TokenDtype::kInt64;
  EXPECT_THAT(ReadAll(*TokenFiles::Open(data), 0, 2), ElementsAre(7, 1ll << 40));
}

TEST(TokenFilesTest, ManyFilesReadAcross) {
  DataSpec data;
  for (int i = 0; i < 20; ++i) {
    data.files.push_back(Write("many" + std::to_string(i), std::string(i, static_cast<char>(i))));
  }
  const auto files = TokenFiles::Open(data);
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->num_tokens(), 190);
  const std::vector<int64_t> all = ReadAll(*files, 0, 190);
  for (int64_t begin : {0, 1, 17, 100, 189}) {
    EXPECT_EQ(ReadAll(*files, begin, 190 - begin),
              std::vector<int64_t>(all.begin() + begin, all.end()));
  }
  EXPECT_EQ(std::accumulate(all.begin(), all.end(), int64_t{0}), 2470);  // sum of i * i
}

TEST(TokenFilesTest, RefusesHalfATokenAndMissingFiles) {
  DataSpec data;
  data.format = DataFormat::kTokens;
  data.dtype = TokenDtype::kUint32;
  data.files = {Write("ragged", "1234567")};
  const absl::Status ragged = TokenFiles::Open(data).status();
  EXPECT_EQ(ragged.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ragged.message()), HasSubstr("7 bytes, which is not a whole number"));
  data.files = {"/does/not/exist"};
  EXPECT_THAT(std::string(TokenFiles::Open(data).status().message()), HasSubstr("/does/not/exist"));
}

TEST(TokenFilesTest, NegativeIdsAreNamed) {
  DataSpec data;
  data.format = DataFormat::kTokens;
  data.dtype = TokenDtype::kInt32;
  data.files = {Write("negative", BytesOf<int32_t>({1, 2, -3, 4}))};
  const auto files = TokenFiles::Open(data);
  ASSERT_TRUE(files.ok());
  std::vector<int64_t> tokens(3);
  const absl::Status status = files->Read(1, absl::MakeSpan(tokens));
  EXPECT_THAT(std::string(status.message()), HasSubstr("token 2 of "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is -3"));
}

}  // namespace
}  // namespace autosp
