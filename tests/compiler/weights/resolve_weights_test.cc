#include "compiler/weights/resolve_weights.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/compiler/weights/safetensors_file.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kNorm[] = "model.norm.weight";

ImportedModel Zoo(const std::string& name) {
  auto model = ImportZoo(name);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

// What the state dict of the model holds, by canonical names.
std::vector<ZeroTensor> StateDict(const ImportedModel& model) {
  std::vector<ZeroTensor> tensors;
  for (const WeightRef& ref : model.weights) {
    if (!absl::StrContains(ref.entry, "/data/weights/")) continue;
    tensors.push_back({.name = ref.input_name, .dtype = ref.dtype, .shape = ref.sizes});
  }
  return tensors;
}

ZeroTensor& Named(std::vector<ZeroTensor>& tensors, const std::string& name) {
  return *std::ranges::find(tensors, name, &ZeroTensor::name);
}

TEST(ResolveWeightsTest, ArchivesCarryTheirWeights) {
  const ImportedModel model = Zoo("llama");
  const auto resolved = ResolveWeights(model, "");
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->weights.size(), model.weights.size());
  EXPECT_EQ(resolved->safetensors, nullptr);
  for (const ResolvedWeight& weight : resolved->weights) EXPECT_EQ(weight.found_as, "");
}

TEST(ResolveWeightsTest, FilesStandForTheStateDictAndTheArchiveForTheRest) {
  const ImportedModel model = Zoo("llama");
  std::vector<ZeroTensor> tensors = StateDict(model);
  Named(tensors, kNorm).dtype = DType::kBF16;  // converts
  tensors.push_back({.name = "of.another.version", .shape = {3}});
  const std::string folder = FreshFolder("resolve_weights_test_shards");
  const auto middle = tensors.begin() + static_cast<int64_t>(tensors.size() / 2);
  ASSERT_THAT(SaveZeros(JoinPath(folder, "a.safetensors"), {tensors.begin(), middle}), IsOk());
  ASSERT_THAT(SaveZeros(JoinPath(folder, "b.safetensors"), {middle, tensors.end()}), IsOk());
  const auto resolved = ResolveWeights(model, folder);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_THAT(resolved->unused, ElementsAre("of.another.version"));
  for (const ResolvedWeight& weight : resolved->weights) {
    EXPECT_EQ(weight.found_as, weight.is_in_state_dict ? weight.ref.input_name : "");
  }
}

// Either name of tied weights will do, and files may hold both.
TEST(ResolveWeightsTest, TiedWeightsAreFoundByEitherName) {
  const ImportedModel model = Zoo("gpt2");
  std::vector<ZeroTensor> tensors = StateDict(model);
  const std::string path = JoinPath(FreshFolder("resolve_weights_test_tied"), "w.safetensors");
  for (const std::string name : {"lm_head.weight", "transformer.wte.weight"}) {
    std::vector<ZeroTensor> renamed = tensors;
    for (ZeroTensor& tensor : renamed) {
      const bool is_tied =
          tensor.name == "lm_head.weight" || tensor.name == "transformer.wte.weight";
      if (is_tied) tensor.name = name;
    }
    ASSERT_THAT(SaveZeros(path, renamed), IsOk());
    const auto resolved = ResolveWeights(model, path);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_THAT(resolved->unused, IsEmpty());
  }
}

struct BadWeights {
  std::string what;
  std::function<void(std::vector<ZeroTensor>&)> change;
  std::vector<std::string> words;
};

class BadWeightsTest : public testing::TestWithParam<BadWeights> {};

TEST_P(BadWeightsTest, AreNamedByFileAndTensor) {
  const ImportedModel model = Zoo("llama");
  std::vector<ZeroTensor> tensors = StateDict(model);
  GetParam().change(tensors);
  const std::string path = JoinPath(FreshFolder("resolve_weights_test_bad"), "w.safetensors");
  ASSERT_THAT(SaveZeros(path, tensors), IsOk());
  const absl::Status status = ResolveWeights(model, path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("model.weights: " + path));
  for (const std::string& word : GetParam().words) EXPECT_THAT(message, HasSubstr(word));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadWeightsTest,
    testing::Values(
        BadWeights{"shape",
                   [](auto& tensors) {
                     Named(tensors, kNorm).shape = {32, 2};
                   },
                   {"model.norm.weight is F32[32, 2], the model has f32[64]",
                    "give the weights of the model that was exported"}},
        BadWeights{
            "dtype",
            [](auto& tensors) { Named(tensors, kNorm).dtype = DType::kI64; },
            {"model.norm.weight is I64[64], the model has f32[64]", "save the tensor as F32"}},
        BadWeights{"slip",
                   [](auto& tensors) { Named(tensors, kNorm).name = "model.norm.wieght"; },
                   {"has no tensor model.norm.weight", "did you mean \"model.norm.wieght\"?"}},
        BadWeights{"missing",
                   [](auto& tensors) {
                     std::erase_if(tensors, [](const auto& each) { return each.name == kNorm; });
                   },
                   {"has no tensor model.norm.weight", "save the model's whole state_dict"}},
        BadWeights{
            "other model",
            [](auto& tensors) { tensors = {{.name = "conv1", .shape = {2}}}; },
            {"has no tensor model.embed_tokens.weight, but 1 others", "conv1", "\nand ", " more"}}),
    [](const auto& info) { return "Case" + std::to_string(info.index); });

TEST(ResolveWeightsTest, GraphOnlyArchivesNeedFiles) {
  const absl::Status status = ResolveWeights(Zoo("gpt2_long"), "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("exported without weights"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("name a safetensors file as model.weights"));
}

// Models on meta tensors lack the buffers, too, that no state dict has.
TEST(ResolveWeightsTest, BuffersOfNoStateDictAreAskedForByName) {
  ImportedModel model = Zoo("llama");
  const auto buffer = std::ranges::find_if(
      model.weights, [](const WeightRef& ref) { return !ref.is_in_state_dict(); });
  ASSERT_NE(buffer, model.weights.end());
  buffer->is_empty = true;
  std::vector<ZeroTensor> tensors = StateDict(model);
  const std::string path = JoinPath(FreshFolder("resolve_weights_test_buffer"), "w.safetensors");
  ASSERT_THAT(SaveZeros(path, tensors), IsOk());
  EXPECT_THAT(std::string(ResolveWeights(model, path).status().message()),
              HasSubstr("has no tensor " + buffer->input_name +
                        ", a buffer that state_dict leaves out (persistent=False)"));
  tensors.push_back({.name = buffer->input_name, .dtype = buffer->dtype, .shape = buffer->sizes});
  ASSERT_THAT(SaveZeros(path, tensors), IsOk());
  EXPECT_TRUE(ResolveWeights(model, path).ok());
}

TEST(ResolveWeightsTest, WhatAnArchiveLacksMayBeLeft) {
  const auto resolved = ResolveWeights(Zoo("gpt2_long"), "", MissingWeights::kLeave);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_TRUE(std::ranges::any_of(
      resolved->weights, [](const ResolvedWeight& weight) { return weight.ref.is_empty; }));
  // Files that should stand for the archive are held against it in any case.
  const std::string path = JoinPath(FreshFolder("resolve_weights_test_left"), "w.safetensors");
  ASSERT_THAT(WriteFileAtomically(path, ZerosFile({{.name = "conv1", .shape = {2}}})), IsOk());
  const absl::Status status =
      ResolveWeights(Zoo("gpt2_long"), path, MissingWeights::kLeave).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("save the model's whole state_dict"));
}

TEST(ResolveWeightsTest, TruncatedFilesAreNamed) {
  const ImportedModel model = Zoo("llama");
  const std::string file = ZerosFile(StateDict(model));
  const std::string path = JoinPath(FreshFolder("resolve_weights_test_cut"), "w.safetensors");
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, file.size() - 1}) {
    ASSERT_THAT(WriteFileAtomically(path, file.substr(0, size)), IsOk());
    const absl::Status status = ResolveWeights(model, path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.weights: " + path)) << size;
  }
}

}  // namespace
}  // namespace autosp
