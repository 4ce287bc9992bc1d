#include "checkpoint/safetensors_writer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "compiler/weights/safetensors_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FreshFolder(const std::string& name) {
  const std::string folder = JoinPath(testing::TempDir(), "safetensors_writer_test_" + name);
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
    absl::Status status =
        writer->Append(entry.name, Pattern(entry.num_bytes(), static_cast<int>(entry.name.size())));
    if (!status.ok()) return status;
  }
  return writer->Commit();
}

TEST(SafetensorsTest, RoundTripsEveryTypeAndShape) {
  const std::string path = JoinPath(FreshFolder("round_trip"), "model.safetensors");
  std::vector<TensorSpec> tensors;
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i) {
    tensors.push_back(
        {.name = "t" + std::string(i + 1, 'x'), .dtype = static_cast<DType>(i), .shape = {i, 3}});
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

TEST(SafetensorsTest, TakesTensorsInPiecesAndSumsTheFile) {
  const std::string path = JoinPath(FreshFolder("pieces"), "model.safetensors");
  const std::vector<TensorSpec> tensors = {
      {.name = "a", .shape = {10}}, {.name = "b", .shape = {0, 3}}, {.name = "c", .shape = {2}}};
  auto writer = SafetensorsWriter::Create(path, tensors, {});
  ASSERT_TRUE(writer.ok());
  const std::vector<std::byte> bytes = Pattern(40, 1);
  for (const size_t begin : {0, 11, 22, 33}) {
    const auto piece = absl::MakeSpan(bytes).subspan(begin, 11);
    ASSERT_TRUE(writer->Append("a", piece).ok());
  }
  EXPECT_EQ(writer->Append("c", Pattern(8, 2)).code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(writer->Append("b", {}).ok());
  ASSERT_TRUE(writer->Append("c", Pattern(8, 2)).ok());
  ASSERT_TRUE(writer->Commit().ok());
  const auto reader = SafetensorsReader::Open(path);
  const auto read = reader->Find("a")->bytes;
  EXPECT_EQ(std::vector<std::byte>(read.begin(), read.end()), bytes);
  EXPECT_EQ(writer->sha256(), *Sha256HexOfFile(path));
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
    EXPECT_EQ(writer->Append("new", Pattern(9, 0)).code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(writer->Append("new", Pattern(7, 0)).ok());
    EXPECT_EQ(writer->Append("new", Pattern(2, 0)).code(), absl::StatusCode::kInternal);
    EXPECT_EQ(writer->Commit().code(), absl::StatusCode::kInternal);
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
  EXPECT_THAT(std::string(SafetensorsWriter::Create(
                              path, {{.name = "a", .shape = {1}}, {.name = "a", .shape = {1}}}, {})
                              .status()
                              .message()),
              HasSubstr("a: is to be written twice"));
}

}  // namespace
}  // namespace autosp
