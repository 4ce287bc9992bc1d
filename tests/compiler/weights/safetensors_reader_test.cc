// What safetensors files may look like, and how those that may not are refused.
#include "compiler/weights/safetensors_reader.h"

#include <cstring>
#include <string>
#include <vector>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/compiler/weights/safetensors_file.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FileOf(const std::string& json, int64_t data_bytes) {
  const uint64_t length = json.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + json + std::string(data_bytes, 'x');
}

// The bytes of a file that the reference implementation wrote for
// {"b": int16 [1, 2], "a": float32 scalar 1.0} with metadata {"format": "pt"}.
TEST(SafetensorsReaderTest, ReadsTheReferenceLayout) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("b":{"dtype":"I16","shape":[2],"data_offsets":[4,8]}}  )";
  std::string file = FileOf(json, 0);
  const float one = 1.0f;
  const int16_t values[2] = {1, 2};
  file.append(reinterpret_cast<const char*>(&one), 4);
  file.append(reinterpret_cast<const char*>(values), 4);
  const std::string path =
      JoinPath(FreshFolder("safetensors_reader_test_reference"), "model.safetensors");
  ASSERT_TRUE(WriteFileAtomically(path, file).ok());
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(reader->Names(), ElementsAre("a", "b"));
  EXPECT_EQ(std::memcmp(reader->Find("b")->bytes.data(), values, 4), 0);
}

TEST(SafetensorsReaderTest, FoldersOfShardsAreOneTable) {
  const std::string folder = FreshFolder("safetensors_reader_test_shards");
  ASSERT_TRUE(SaveZeros(JoinPath(folder, "b.safetensors"), {{.name = "x", .shape = {2}}}).ok());
  ASSERT_TRUE(SaveZeros(JoinPath(folder, "a.safetensors"), {{.name = "y", .shape = {3}}}).ok());
  const auto reader = SafetensorsReader::Open(folder);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(reader->Names(), ElementsAre("x", "y"));
  EXPECT_EQ(reader->Find("x")->bytes.size(), 8);

  ASSERT_TRUE(SaveZeros(JoinPath(folder, "c.safetensors"), {{.name = "x", .shape = {2}}}).ok());
  EXPECT_THAT(std::string(SafetensorsReader::Open(folder).status().message()),
              HasSubstr("x: is in " + JoinPath(folder, "b.safetensors") + " too"));
  EXPECT_THAT(
      std::string(
          SafetensorsReader::Open(FreshFolder("safetensors_reader_test_empty")).status().message()),
      HasSubstr("has no .safetensors file"));
}

TEST(SafetensorsReaderTest, MissingTensorNamesTheNearest) {
  const std::string path =
      JoinPath(FreshFolder("safetensors_reader_test_missing"), "model.safetensors");
  ASSERT_TRUE(SaveZeros(path, {{.name = "layer.weight", .shape = {2}}}).ok());
  const absl::Status status = SafetensorsReader::Open(path)->Find("layer.weigth").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did you mean \"layer.weight\"?"));
}

struct BadHeader {
  std::string json;
  int64_t data_bytes;
  std::string error;
};

class BadHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefused) {
  const auto header = ParseSafetensorsHeader(GetParam().json, GetParam().data_bytes);
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(header.status().message()), HasSubstr(GetParam().error));
}

const std::string kDeep = "{\"a\":" + std::string(100000, '[');

INSTANTIATE_TEST_SUITE_P(
    All, BadHeaderTest,
    testing::Values(
        BadHeader{"", 0, "not a JSON table"}, BadHeader{"[]", 0, "not a JSON table"},
        BadHeader{"{", 0, "no JSON at byte"}, BadHeader{R"({"a":3})", 0, "a number where"},
        BadHeader{R"({"a":{}})", 0, "a: no dtype, shape or data_offsets"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1]}})", 4, "a: no dtype, shape"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "a: no dtype"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                  "a: has 4 bytes, but is F32 [2]"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
                  "a: ends at byte 8 of 4; the file is truncated"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5,
                  "1 bytes after the last tensor"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
                  "a: data_offsets [4, 8] do not follow"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6, "b: data_offsets [2, 6] do not follow"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
                  0, "a: has 0 bytes"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}})", 0,
                  "a: a negative number"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0,
                  "a number past 2^63"},
        BadHeader{R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,0]}})", 0, "a fraction"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                  R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                  0, "named twice: a"},
        BadHeader{R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
                  "a key twice: dtype"},
        BadHeader{R"({"a":{"type":"U8"}})", 0, "an unknown key: type"},
        BadHeader{R"({"a":{"dtype":{"x":1}}})", 0, "a nested table"},
        BadHeader{kDeep, 0, "a list where"}));

TEST(SafetensorsReaderTest, RefusesFilesThatAreNone) {
  const std::string path =
      JoinPath(FreshFolder("safetensors_reader_test_bad"), "model.safetensors");
  ASSERT_TRUE(WriteFileAtomically(path, "abc").ok());
  EXPECT_THAT(std::string(SafetensorsReader::Open(path).status().message()),
              HasSubstr("has 3 bytes; it is no safetensors file"));
  ASSERT_TRUE(WriteFileAtomically(path, "PK\x03\x04 a zip file").ok());
  EXPECT_THAT(std::string(SafetensorsReader::Open(path).status().message()),
              HasSubstr("above the limit"));
  ASSERT_TRUE(WriteFileAtomically(path, FileOf("{}", 0).substr(0, 9)).ok());
  EXPECT_THAT(std::string(SafetensorsReader::Open(path).status().message()),
              HasSubstr("it is truncated"));
}

}  // namespace
}  // namespace autosp
