#include "checkpoint/model_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/errors.h"
#include "common/file.h"
#include "common/sha256.h"
#include "compiler/weights/safetensors_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TensorSpec Bytes(const std::string& name, int64_t count) {
  return {.name = name, .dtype = DType::kU8, .shape = {count}};
}

std::vector<std::string> NamesOf(const ModelShard& shard) {
  std::vector<std::string> names;
  for (const TensorSpec& tensor : shard.tensors) names.push_back(tensor.name);
  return names;
}

class ModelFilesTest : public testing::Test {
 protected:
  // Each byte of a tensor is the first letter of its name.
  absl::StatusOr<std::vector<WrittenFile>> Write(const std::string& folder,
                                                 const std::vector<TensorSpec>& tensors,
                                                 int64_t max_shard_bytes) {
    EXPECT_THAT(MakeDirectories(folder), IsOk());
    return WriteModelFiles(folder, *LayOutModel(tensors, max_shard_bytes),
                           [](const SafetensorsEntry& tensor, SafetensorsWriter& writer) {
                             const auto letter = static_cast<std::byte>(tensor.name[0]);
                             return writer.Append(
                                 tensor.name, std::vector<std::byte>(tensor.num_bytes(), letter));
                           });
  }

  static std::vector<std::string> Listed(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }

  TempDir dir_;
};

TEST_F(ModelFilesTest, OneFileUpToTheLimit) {
  const auto shards = LayOutModel({Bytes("a", 6), Bytes("b", 4)}, 10);
  ASSERT_THAT(shards, IsOk());
  ASSERT_EQ(shards->size(), 1);
  EXPECT_EQ((*shards)[0].name, "model.safetensors");
  EXPECT_THAT(NamesOf((*shards)[0]), ElementsAre("a", "b"));
  EXPECT_EQ(LayOutModel({}, 10)->size(), 1);
}

// The example of Hugging Face's own documentation, with a tensor that is too large in its midst:
// that gets a file at once, and the open one goes on.
TEST_F(ModelFilesTest, SplitsAsHuggingFaceDoes) {
  const auto shards = LayOutModel({Bytes("a", 6), Bytes("b", 6), Bytes("c", 2), Bytes("h", 11),
                                   Bytes("d", 6), Bytes("e", 2), Bytes("f", 2)},
                                  10);
  ASSERT_THAT(shards, IsOk());
  ASSERT_EQ(shards->size(), 4);
  EXPECT_THAT(NamesOf((*shards)[0]), ElementsAre("a"));
  EXPECT_THAT(NamesOf((*shards)[1]), ElementsAre("h"));
  EXPECT_THAT(NamesOf((*shards)[2]), ElementsAre("b", "c"));
  EXPECT_THAT(NamesOf((*shards)[3]), ElementsAre("d", "e", "f"));
  EXPECT_EQ((*shards)[1].name, "model-00002-of-00004.safetensors");
}

TEST_F(ModelFilesTest, SizesThatOverflowAreRefused) {
  const TensorSpec huge{.name = "w", .dtype = DType::kF32, .shape = {int64_t{1} << 60}};
  EXPECT_THAT(LayOutModel({huge, {.name = "v", .dtype = DType::kF32, .shape = huge.shape}}, 10),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("v: the size of the model")));
}

TEST_F(ModelFilesTest, AnIndexSaysWhichFileHasWhat) {
  const auto files = Write(dir_.path(), {Bytes("b", 6), Bytes("a", 6)}, 10);
  ASSERT_THAT(files, IsOk());
  EXPECT_THAT(Listed(dir_.path()),
              ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                          "model.safetensors.index.json"));
  const std::string index = *ReadFile(dir_.Join(kModelIndexName), 1 << 20);
  EXPECT_EQ(index, R"({
  "metadata": {
    "total_size": 12
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors"
  }
}
)");
  for (const WrittenFile& file : *files) {
    EXPECT_EQ(file.sha256, *Sha256HexOfFile(file.path));
    EXPECT_EQ(file.size_bytes, *FileSize(file.path));
  }
  EXPECT_EQ(SafetensorsReader::Open(files->front().path)->Find("b")->bytes[5], std::byte{'b'});
}

TEST_F(ModelFilesTest, MovingReplacesTheModelThatWasThere) {
  const std::string from = dir_.Join("from");
  const std::string to = dir_.Join("to");
  ASSERT_THAT(MakeDirectories(to), IsOk());
  ASSERT_THAT(WriteFileAtomically(JoinPath(to, "config.json"), "{}"), IsOk());
  const std::vector<TensorSpec> tensors = {Bytes("a", 6), Bytes("b", 6), Bytes("c", 6)};
  for (const int64_t limit : {6, 100, 12, 6, 100}) {
    auto files = Write(from, tensors, limit);
    ASSERT_THAT(files, IsOk());
    ASSERT_THAT(MoveModelFiles(to, *files), IsOk());
    std::vector<std::string> expected = {"config.json"};
    for (const WrittenFile& file : *files) {
      EXPECT_TRUE(FileExists(file.path));
      expected.push_back(std::filesystem::path(file.path).filename());
    }
    std::ranges::sort(expected);
    EXPECT_EQ(Listed(to), expected);
    EXPECT_TRUE(Listed(from).empty());
  }
}

TEST_F(ModelFilesTest, WhatAttemptsLeftIsRemovedUpToOne) {
  for (const int64_t generation : {1, 2, 3}) {
    ASSERT_THAT(MakeDirectories(dir_.Join(PartialModelName("j", generation) + "/x")), IsOk());
  }
  ASSERT_THAT(MakeDirectories(dir_.Join(PartialModelName("j-2", 1))), IsOk());
  ASSERT_THAT(WriteFileAtomically(dir_.Join(kModelFileName), "x"), IsOk());
  RemovePartialModels(dir_.path(), "j", 2);
  EXPECT_EQ(Listed(dir_.path()), (std::vector<std::string>{".model.j-2-1.partial",
                                                           ".model.j-3.partial", kModelFileName}));
  RemovePartialModels(dir_.Join("missing"), "j", 2);
}

TEST_F(ModelFilesTest, ADiskWithoutRoomIsFoundFirst) {
  bool was_called = false;
  const auto files = WriteModelFiles(dir_.path(), *LayOutModel({Bytes("a", int64_t{1} << 60)}, 1),
                                     [&](const SafetensorsEntry&, SafetensorsWriter&) {
                                       was_called = true;
                                       return absl::OkStatus();
                                     });
  EXPECT_THAT(files, IsError(absl::StatusCode::kResourceExhausted, HasSubstr("make room")));
  EXPECT_FALSE(was_called);
  EXPECT_TRUE(Listed(dir_.path()).empty());
}

}  // namespace
}  // namespace autosp
