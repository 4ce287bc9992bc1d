#include "worker/checkpoint/shard_snapshot.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <utility>

#include "checkpoint/checkpoint_layout.h"
#include "common/errors.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr char kProgram[] = R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  param %w "w" : bf16[7, 5]
  state %m "master:w" : f32[7, 5]
  state %s "scale" : f32[]
  section step {
  }
}
)";

using Tensors = std::map<std::string, at::Tensor>;

FindTensor In(const Tensors& tensors) {
  return [&tensors](const std::string& name) -> absl::StatusOr<HeldTensor> {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return NotFound("there is no ", name);
    return HeldTensor{.tensor = found->second};
  };
}

Tensors Numbers() {
  return {{"w", at::arange(35, at::kBFloat16).view({7, 5})},
          // Other strides than a contiguous tensor has.
          {"master:w", at::arange(35, at::kFloat).view({5, 7}).t()},
          {"scale", at::arange(1, 2, at::kFloat).squeeze()}};
}

Tensors Zeros() {
  return {{"w", at::zeros({7, 5}, at::kBFloat16)},
          {"master:w", at::zeros({5, 7}, at::kFloat).t()},
          {"scale", at::zeros({}, at::kFloat)}};
}

class ShardSnapshotTest : public testing::Test {
 protected:
  // Writes the numbers as `num_files` ranks would, and returns the manifest.
  CheckpointManifest Write(int64_t num_files) {
    const absl::StatusOr<Program> program = ParseProgram(kProgram);
    CheckpointManifest manifest;
    EXPECT_THAT(program, IsOk());
    manifest.tensors = *LayOutCheckpoint(*program, num_files);
    const Tensors numbers = Numbers();
    for (int64_t file = 0; file < num_files; ++file) {
      const auto snapshot = ShardSnapshot::Take(manifest.tensors, file, In(numbers));
      EXPECT_THAT(snapshot, IsOk());
      const auto written = snapshot->Write(dir_.path(), "f" + std::to_string(file));
      EXPECT_THAT(written, IsOk());
      manifest.files.push_back(*written);
    }
    return manifest;
  }

  absl::Status Load(const CheckpointManifest& manifest, const FindTensor& find) {
    const auto reader = CheckpointReader::Open(dir_.path(), manifest);
    return reader.ok() ? LoadCheckpoint(*reader, find) : reader.status();
  }

  TempDir dir_;
};

TEST_F(ShardSnapshotTest, WhatAnyNumberOfRanksWritesIsReadBackBitForBit) {
  for (const int64_t num_files : {1, 2, 3, 5, 30}) {
    const CheckpointManifest manifest = Write(num_files);
    for (const ManifestFile& file : manifest.files) {
      EXPECT_THAT(CheckFile(dir_.path(), file), IsOk());
    }
    const Tensors loaded = Zeros();
    ASSERT_THAT(Load(manifest, In(loaded)), IsOk());
    for (const auto& [name, tensor] : Numbers()) {
      EXPECT_TRUE(at::equal(loaded.at(name), tensor)) << name << " of " << num_files;
    }
  }
}

// Columns [begin, end) of a matrix, as a rank that holds these alone.
FindTensor Columns(const at::Tensor& whole, int64_t begin, int64_t end) {
  return [=](const std::string&) -> absl::StatusOr<HeldTensor> {
    return HeldTensor{
        .tensor = whole.narrow(1, begin, end - begin), .offset = {0, begin}, .whole_shape = {7, 6}};
  };
}

// Written in parts by some ranks, read in other parts by others, whose borders lie elsewhere.
TEST_F(ShardSnapshotTest, PartsAreReadByRanksThatHoldOtherParts) {
  const at::Tensor numbers = at::arange(42, at::kFloat).view({7, 6});
  CheckpointManifest manifest;
  manifest.tensors = {{.name = "w", .dtype = DType::kF32, .shape = {7, 6}}};
  for (const int64_t file : {0, 1, 2}) {
    manifest.tensors[0].slices.push_back({.file = file, .offset = {0, 2 * file}, .shape = {7, 2}});
  }
  for (const int64_t file : {0, 1, 2}) {
    ASSERT_OK_AND_ASSIGN(
        const ShardSnapshot snapshot,
        ShardSnapshot::Take(manifest.tensors, file, Columns(numbers, 2 * file, 2 * file + 2)));
    EXPECT_EQ(snapshot.num_bytes(), 7 * 2 * 4);
    ASSERT_OK_AND_ASSIGN(const ManifestFile written,
                         snapshot.Write(dir_.path(), "f" + std::to_string(file)));
    manifest.files.push_back(written);
  }
  for (const auto& [begin, end] : {std::pair{0, 3}, {3, 6}, {0, 6}, {5, 6}}) {
    const at::Tensor loaded = at::zeros({7, 6});
    ASSERT_THAT(Load(manifest, Columns(loaded, begin, end)), IsOk());
    at::Tensor expected = at::zeros({7, 6});
    expected.narrow(1, begin, end - begin).copy_(numbers.narrow(1, begin, end - begin));
    EXPECT_TRUE(at::equal(loaded, expected)) << begin << " to " << end;
  }
}

TEST_F(ShardSnapshotTest, TheCopyIsOfItsMoment) {
  CheckpointManifest manifest = Write(1);
  Tensors numbers = Numbers();
  ASSERT_OK_AND_ASSIGN(const ShardSnapshot snapshot,
                       ShardSnapshot::Take(manifest.tensors, 0, In(numbers)));
  EXPECT_EQ(snapshot.num_bytes(), 35 * 2 + 35 * 4 + 4);
  for (auto& [name, tensor] : numbers) tensor.fill_(-1);
  ASSERT_OK_AND_ASSIGN(manifest.files[0], snapshot.Write(dir_.path(), "f0"));
  const Tensors loaded = Zeros();
  ASSERT_THAT(Load(manifest, In(loaded)), IsOk());
  EXPECT_TRUE(at::equal(loaded.at("w"), Numbers().at("w")));
}

TEST_F(ShardSnapshotTest, FindsDamagedFiles) {
  const ManifestFile file = Write(1).files[0];
  const std::string path = dir_.Join(file.name);
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(path, 1 << 20));
  std::string flipped = whole;
  flipped[flipped.size() / 2] ^= 1;
  ASSERT_THAT(WriteFileAtomically(path, flipped), IsOk());
  EXPECT_EQ(CheckFile(dir_.path(), file).code(), absl::StatusCode::kDataLoss);
  ASSERT_THAT(WriteFileAtomically(path, whole.substr(0, whole.size() - 1)), IsOk());
  const absl::Status cut = CheckFile(dir_.path(), file);
  EXPECT_EQ(cut.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(cut.message()), HasSubstr(path));
  ASSERT_THAT(RemoveFile(path), IsOk());
  EXPECT_THAT(std::string(CheckFile(dir_.path(), file).message()), HasSubstr(path));
}

TEST_F(ShardSnapshotTest, RefusesOtherTensors) {
  const CheckpointManifest manifest = Write(2);
  Tensors other = Zeros();
  other["w"] = at::zeros({7, 5}, at::kFloat);
  EXPECT_THAT(std::string(Load(manifest, In(other)).message()),
              HasSubstr("w: the program has Float [7, 5], the checkpoint bf16 [7, 5]"));
  const Tensors none;
  EXPECT_FALSE(ShardSnapshot::Take(manifest.tensors, 0, In(none)).ok());
  // A file that is whole, and not what the manifest says of it.
  CheckpointManifest wrong = manifest;
  std::swap(wrong.files[0], wrong.files[1]);
  const Tensors zeros = Zeros();
  EXPECT_FALSE(Load(wrong, In(zeros)).ok());
}

TEST_F(ShardSnapshotTest, SaysWhereItCannotWrite) {
  const CheckpointManifest manifest = Write(1);
  const Tensors numbers = Numbers();
  ASSERT_OK_AND_ASSIGN(const ShardSnapshot snapshot,
                       ShardSnapshot::Take(manifest.tensors, 0, In(numbers)));
  const auto written = snapshot.Write(dir_.Join("none"), "f0");
  ASSERT_FALSE(written.ok());
  EXPECT_THAT(std::string(written.status().message()), HasSubstr("none/f0"));
}

}  // namespace
}  // namespace autosp
