#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/checkpoint/safetensors_header.h"
#include "worker/checkpoint/safetensors_reader.h"
#include "worker/checkpoint/safetensors_writer.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FreshFolder(const std::string& name) {
  const std::string folder = JoinPath(testing::TempDir(), "safetensors_test_" + name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

std::vector<std::byte> Pattern(int64_t count, int seed) {
  std::vector<std::byte> bytes(count);
  for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + seed);
  return bytes;
}

absl::Status WriteTensors(const std::string& path, const std::vector<TensorSpec>& tensors) {
  auto writer = SafetensorsWriter::Create(path, tensors, {{"format", "pt"}});
  if (!writer.ok()) return writer.status();
  for (const SafetensorsEntry& entry : writer->order()) {
    absl::Status status = writer->Append(
        entry.name, Pattern(entry.num_bytes(), static_cast<int>(entry.name.size())));
    if (!status.ok()) return status;
  }
  return writer->Commit();
}

std::string FileOf(const std::string& json, int64_t data_bytes) {
  const uint64_t length = json.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + json + std::string(data_bytes, 'x');
}

TEST(SafetensorsTest, RoundTripsEveryTypeAndShape) {
  const std::string path = JoinPath(FreshFolder("round_trip"), "model.safetensors");
  std::vector<TensorSpec> tensors;
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i) {
    tensors.push_back({.name = "t" + std::string(i + 1, 'x'),
                       .dtype = static_cast<DType>(i),
                       .shape = {i, 3}});
  }
  tensors.push_back({.name = "scalar", .dtype = DType::kF32, .shape = {}});
  ASSERT_TRUE(WriteTensors(path, tensors).ok());
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->Names().size(), tensors.size());
  for (const TensorSpec& tensor : tensors) {
    const auto found = reader->Find(tensor.name);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->entry->dtype, tensor.dtype);
    EXPECT_EQ(found->entry->shape, tensor.shape);
    EXPECT_EQ(std::vector<std::byte>(found->bytes.begin(), found->bytes.end()),
              Pattern(found->bytes.size(), static_cast<int>(tensor.name.size())));
    const auto address = reinterpret_cast<uintptr_t>(found->bytes.data());
    EXPECT_EQ(address % SizeOf(tensor.dtype), 0) << tensor.name;
  }
}

// The bytes of a file that the reference implementation wrote for
// {"b": int16 [1, 2], "a": float32 scalar 1.0} with metadata {"format": "pt"}.
TEST(SafetensorsTest, ReadsTheReferenceLayout) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("b":{"dtype":"I16","shape":[2],"data_offsets":[4,8]}}  )";
  std::string file = FileOf(json, 0);
  const float one = 1.0f;
  const int16_t values[2] = {1, 2};
  file.append(reinterpret_cast<const char*>(&one), 4);
  file.append(reinterpret_cast<const char*>(values), 4);
  const std::string path = JoinPath(FreshFolder("reference"), "model.safetensors");
  ASSERT_TRUE(WriteFileAtomically(path, file).ok());
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(reader->Names(), ElementsAre("a", "b"));
  EXPECT_EQ(std::memcmp(reader->Find("b")->bytes.data(), values, 4), 0);
}

TEST(SafetensorsTest, FoldersOfShardsAreOneTable) {
  const std::string folder = FreshFolder("shards");
  ASSERT_TRUE(WriteTensors(JoinPath(folder, "b.safetensors"), {{.name = "x", .shape = {2}}}).ok());
  ASSERT_TRUE(WriteTensors(JoinPath(folder, "a.safetensors"), {{.name = "y", .shape = {3}}}).ok());
  const auto reader = SafetensorsReader::Open(folder);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(reader->Names(), ElementsAre("x", "y"));
  EXPECT_EQ(reader->Find("x")->bytes.size(), 8);

  ASSERT_TRUE(WriteTensors(JoinPath(folder, "c.safetensors"), {{.name = "x", .shape = {2}}}).ok());
  EXPECT_THAT(std::string(SafetensorsReader::Open(folder).status().message()),
              HasSubstr("x: is in " + JoinPath(folder, "b.safetensors") + " too"));
  EXPECT_THAT(std::string(SafetensorsReader::Open(FreshFolder("empty")).status().message()),
              HasSubstr("has no .safetensors file"));
}

TEST(SafetensorsTest, MissingTensorNamesTheNearest) {
  const std::string path = JoinPath(FreshFolder("missing"), "model.safetensors");
  ASSERT_TRUE(WriteTensors(path, {{.name = "layer.weight", .shape = {2}}}).ok());
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

TEST(SafetensorsTest, RefusesFilesThatAreNone) {
  const std::string path = JoinPath(FreshFolder("bad"), "model.safetensors");
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

TEST(SafetensorsTest, UncommittedFileLeavesNothing) {
  const std::string folder = FreshFolder("uncommitted");
  const std::string path = JoinPath(folder, "model.safetensors");
  ASSERT_TRUE(WriteTensors(path, {{.name = "old", .shape = {2}}}).ok());
  {
    auto writer = SafetensorsWriter::Create(path, {{.name = "new", .shape = {2}}}, {});
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ(writer->Commit().code(), absl::StatusCode::kInternal);
    EXPECT_EQ(writer->Append("other", Pattern(8, 0)).code(), absl::StatusCode::kInternal);
    EXPECT_EQ(writer->Append("new", Pattern(7, 0)).code(), absl::StatusCode::kInternal);
  }
  EXPECT_THAT(SafetensorsReader::Open(path)->Names(), ElementsAre("old"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(SafetensorsTest, FullDiskIsFoundBeforeAnythingIsWritten) {
  // 2^60 bytes fit on no disk that tests run on.
  const std::string path = JoinPath(FreshFolder("full"), "model.safetensors");
  const absl::Status status =
      SafetensorsWriter::Create(path, {{.name = "huge", .shape = {int64_t{1} << 42}}}, {}).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bytes, "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("are free"));
  EXPECT_FALSE(FileExists(path));
}

TEST(SafetensorsTest, UnwritableFolderIsNamed) {
  const absl::Status status =
      SafetensorsWriter::Create("/does/not/exist/model.safetensors", {}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/does/not/exist/model.safetensors"));
}

TEST(SafetensorsTest, DuplicateNamesAreRefused) {
  const std::string path = JoinPath(FreshFolder("duplicate"), "model.safetensors");
  EXPECT_THAT(std::string(SafetensorsWriter::Create(path, {{.name = "a", .shape = {1}},
                                                           {.name = "a", .shape = {1}}},
                                                    {})
                              .status()
                              .message()),
              HasSubstr("a: is to be written twice"));
}

}  // namespace
}  // namespace autosp
