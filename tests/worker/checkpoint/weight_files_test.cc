#include "worker/checkpoint/weight_files.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/checkpoint/state_dict_writer.h"

namespace autosp {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

std::string Zoo(const std::string& model) {
  return JoinPath(AUTOSP_SOURCE_DIR, "tests/zoo/" + model + "/model.pt2");
}

std::string FreshFolder(const std::string& name) {
  const std::string folder = JoinPath(testing::TempDir(), "weight_files_test_" + name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

ModelSpec SpecOf(const std::string& archive, const std::string& weights = "") {
  ModelSpec spec;
  spec.archives = {archive};
  spec.weights = weights;
  return spec;
}

std::unique_ptr<WeightFiles> Open(const std::string& archive, const std::string& weights = "") {
  auto files = WeightFiles::Open(SpecOf(archive, weights));
  EXPECT_TRUE(files.ok()) << files.status();
  return *std::move(files);
}

std::vector<std::string> NamesOf(const WeightFiles& files) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : files.state_dict()) names.push_back(spec.name);
  return names;
}

// What the reference implementation would be asked to load for another length.
absl::StatusOr<WrittenFile> WriteAll(WeightFiles& files, const std::string& path) {
  return WriteStateDict(path, files.state_dict(),
                        [&](const std::string& name) { return files.Load(name); });
}

TEST(WeightFilesTest, ReadsTheWeightsOfAnArchive) {
  const auto files = Open(Zoo("llama"));
  const auto embedding = files->Load("model.embed_tokens.weight");
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->sizes(), at::IntArrayRef({256, 64}));
  EXPECT_EQ(embedding->scalar_type(), at::kFloat);
  // Random weights: neither zero nor wild, which bytes from a wrong place would be.
  EXPECT_GT(embedding->abs().mean().item<float>(), 1e-3);
  EXPECT_LT(embedding->abs().max().item<float>(), 10);
  EXPECT_EQ(files->Load("no.such.weight").status().code(), absl::StatusCode::kNotFound);
}

TEST(WeightFilesTest, StateDictHasTiedNamesAndNoConstants) {
  const auto files = Open(Zoo("gpt2"));
  EXPECT_THAT(NamesOf(*files), Contains("lm_head.weight"));
  EXPECT_THAT(NamesOf(*files), Contains("transformer.wte.weight"));
  EXPECT_TRUE(at::equal(*files->Load("lm_head.weight"), *files->Load("transformer.wte.weight")));
  EXPECT_EQ(files->CanonicalName("lm_head.weight"), files->CanonicalName("transformer.wte.weight"));
  // The frequencies of rotary embeddings are a buffer that the state dict leaves out.
  EXPECT_THAT(NamesOf(*Open(Zoo("llama"))), Not(Contains(HasSubstr("inv_freq"))));
  EXPECT_TRUE(Open(Zoo("llama"))->Load("model.rotary_emb.inv_freq").ok());
}

TEST(WeightFilesTest, WrittenWeightsAreReadInPlaceOfThoseInTheArchive) {
  const auto original = Open(Zoo("gpt2"));
  const std::string path = JoinPath(FreshFolder("round_trip"), "model.safetensors");
  const auto written = WriteAll(*original, path);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->size_bytes, *FileSize(path));
  EXPECT_EQ(written->sha256, *Sha256HexOfFile(path));
  const auto copy = Open(Zoo("gpt2"), path);
  for (const std::string& name : NamesOf(*original)) {
    EXPECT_TRUE(at::equal(*original->Load(name), *copy->Load(name))) << name;
  }
}

// gpt2 has 512 positions, gpt2_long 4096. What was right when the job was accepted is checked
// again.
TEST(WeightFilesTest, FilesThatDoNotFitAreRefused) {
  const std::string path = JoinPath(FreshFolder("shapes"), "model.safetensors");
  ASSERT_TRUE(WriteAll(*Open(Zoo("gpt2")), path).ok());
  for (const std::string& weights : {path, std::string()}) {
    EXPECT_EQ(WeightFiles::Open(SpecOf(Zoo("gpt2_long"), weights)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(WeightFilesTest, WhatWasLeftMissingIsNotFound) {
  const auto files = WeightFiles::Open(SpecOf(Zoo("gpt2_long")), MissingWeights::kLeave);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->Load("lm_head.weight").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WeightFiles::Open(SpecOf(Zoo("gpt2_long"))).ok());
}

TEST(WeightFilesTest, TypesAreConvertedOnTheWayOut) {
  const std::string path = JoinPath(FreshFolder("types"), "model.safetensors");
  const at::Tensor value = at::arange(6, at::kFloat).reshape({2, 3}).t();  // not contiguous
  const auto written =
      WriteStateDict(path, {{.name = "x", .dtype = DType::kBF16, .shape = {3, 2}}},
                     [&](const std::string&) -> absl::StatusOr<at::Tensor> { return value; });
  ASSERT_TRUE(written.ok()) << written.status();
  const auto reader = SafetensorsReader::Open(path);
  ASSERT_TRUE(reader.ok());
  const auto bytes = reader->Find("x")->bytes;
  const at::Tensor read =
      at::from_blob(const_cast<std::byte*>(bytes.data()), {3, 2}, at::kBFloat16);
  EXPECT_TRUE(at::equal(read.to(at::kFloat), value));
}

}  // namespace
}  // namespace autosp
