#include "checkpoint/manifest.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

CheckpointManifest Sample() {
  const std::string sum(64, 'a');
  return {.job_id = "job-1",
          .generation = 2,
          .plan_digest = "d",
          .mesh = {.accum = 2, .dp = 1, .ring = 1, .ulysses = 2},
          .step = 40,
          .num_sequences = 160,
          .settings = {{"training.seed", "3"}, {"data.files", "10 tokens"}},
          .files = {{"rank-00000.safetensors", 100, sum}, {"rank-00001.safetensors", 90, sum}},
          .tensors = {{.name = "adamw.exp_avg:w",
                       .dtype = DType::kF32,
                       .shape = {4, 3},
                       .slices = {{.file = 0, .offset = {0, 0}, .shape = {3, 3}},
                                  {.file = 1, .offset = {3, 0}, .shape = {1, 3}}}},
                      {.name = "scale", .dtype = DType::kBF16, .slices = {{.file = 1}}},
                      {.name = "w",
                       .dtype = DType::kBF16,
                       .shape = {2, 2},
                       // Columns, as a split over the second dimension leaves them.
                       .slices = {{.file = 1, .offset = {0, 1}, .shape = {2, 1}},
                                  {.file = 0, .offset = {0, 0}, .shape = {2, 1}}}}},
          .state_dict = {{.name = "w", .dtype = DType::kF16, .shape = {2, 2}, .parameter = "w"},
                         {.name = "tied.w", .shape = {2, 2}, .parameter = "w", .master = "w"},
                         {.name = "buffer", .dtype = DType::kI64, .shape = {3}}}};
}

// The sample after `change`, with a sum that is right for it.
std::string Changed(const std::function<void(Json&)>& change) {
  Json whole = Json::parse(FormatManifest(Sample()));
  change(whole["manifest"]);
  whole["sha256"] = Sha256Hex(whole["manifest"].dump());
  return whole.dump();
}

TEST(ManifestTest, RoundTrips) {
  EXPECT_THAT(ParseManifest(FormatManifest(Sample())), IsOkAndHolds(Sample()));
  EXPECT_THAT(ParseManifest(Changed([](Json&) {})), IsOkAndHolds(Sample()));
}

TEST(ManifestTest, OlderOnesHaveNoStateDict) {
  CheckpointManifest older = Sample();
  older.state_dict.clear();
  EXPECT_THAT(ParseManifest(Changed([](Json& m) { m.erase("state_dict"); })), IsOkAndHolds(older));
}

TEST(ManifestTest, FindsDamage) {
  const std::string text = FormatManifest(Sample());
  for (const size_t length : {size_t{0}, size_t{1}, text.size() / 2, text.size() - 3}) {
    EXPECT_EQ(ParseManifest(text.substr(0, length)).status().code(), absl::StatusCode::kDataLoss)
        << length;
  }
  // A flipped bit is found, or was in white space and changes nothing.
  for (size_t i = 0; i < text.size(); ++i) {
    std::string flipped = text;
    flipped[i] ^= 1;
    const auto parsed = ParseManifest(flipped);
    EXPECT_TRUE(!parsed.ok() || *parsed == Sample()) << i;
  }
  for (const char* other :
       {"[]", "7", "{}", "{\"manifest\": {}}", "{\"sha256\": 1, \"manifest\": 2}"}) {
    EXPECT_EQ(ParseManifest(other).status().code(), absl::StatusCode::kDataLoss) << other;
  }
}

struct HostileCase {
  std::string name;
  std::function<void(Json&)> change;
  std::string message;
};

class HostileManifest : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileManifest, IsRefused) {
  const auto parsed = ParseManifest(Changed(GetParam().change));
  ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << parsed.status();
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileManifest,
    testing::Values(
        HostileCase{"NoTable", [](Json& m) { m = Json::array(); }, "is no table"},
        HostileCase{"Version", [](Json& m) { m["version"] = 2; }, "version is no number"},
        HostileCase{"NoStep", [](Json& m) { m.erase("step"); }, "step is missing"},
        HostileCase{"NegativeStep", [](Json& m) { m["step"] = -1; }, "step is no number from 0"},
        HostileCase{"HugeStep", [](Json& m) { m["step"] = 1e300; }, "step is no number"},
        HostileCase{"StepPast63Bits", [](Json& m) { m["step"] = UINT64_MAX; }, "step is no number"},
        HostileCase{"StepAsText", [](Json& m) { m["step"] = "40"; }, "step is no number"},
        HostileCase{"MeshIsZero", [](Json& m) { m["mesh"]["dp"] = 0; }, "mesh: dp is no number"},
        HostileCase{"NoMesh", [](Json& m) { m.erase("mesh"); }, "mesh: is no table"},
        HostileCase{"Settings", [](Json& m) { m["settings"]["a"] = 7; }, "settings is no text"},
        HostileCase{"Files", [](Json& m) { m["files"] = 7; }, "files is no list"},
        HostileCase{"UpTheTree", [](Json& m) { m["files"][0]["name"] = "../secret"; },
                    "not that of a file in the folder"},
        HostileCase{"Absolute", [](Json& m) { m["files"][0]["name"] = "/etc/passwd"; },
                    "not that of a file in the folder"},
        HostileCase{"Parent", [](Json& m) { m["files"][0]["name"] = ".."; },
                    "not that of a file in the folder"},
        HostileCase{"Nameless", [](Json& m) { m["files"][0]["name"] = ""; },
                    "not that of a file in the folder"},
        HostileCase{"LongName", [](Json& m) { m["files"][0]["name"] = std::string(300, 'a'); },
                    "not that of a file in the folder"},
        HostileCase{"FileTwice", [](Json& m) { m["files"][1] = m["files"][0]; }, "twice"},
        HostileCase{"NoSum", [](Json& m) { m["files"][0]["sha256"] = "abc"; }, "has no sha256"},
        HostileCase{"Tensor", [](Json& m) { m["tensors"][0] = 3; }, "tensors: is no table"},
        HostileCase{"DType", [](Json& m) { m["tensors"][0]["dtype"] = "f8"; }, "dtype is unknown"},
        HostileCase{"NegativeShape",
                    [](Json& m) {
                      m["tensors"][0]["shape"] = {-4, 3};
                    },
                    "shape is no number"},
        HostileCase{"ShapeOverflows",
                    [](Json& m) {
                      m["tensors"][0]["shape"] = {INT64_MAX, INT64_MAX};
                    },
                    "its size overflows"},
        HostileCase{"ManyDims",
                    [](Json& m) { m["tensors"][0]["shape"] = std::vector<int>(100, 1); },
                    "shape is no list of at most"},
        HostileCase{"NoSuchFile", [](Json& m) { m["tensors"][0]["slices"][0]["file"] = 2; },
                    "file is no number from 0 to 1"},
        HostileCase{"OffsetOverflows",
                    [](Json& m) {
                      m["tensors"][0]["slices"][0]["offset"] = {INT64_MAX, 0};
                    },
                    "a slice is not inside"},
        HostileCase{"SliceTooLarge",
                    [](Json& m) {
                      m["tensors"][0]["slices"][1]["shape"] = {2, 3};
                    },
                    "a slice is not inside"},
        HostileCase{"OtherRank", [](Json& m) { m["tensors"][0]["slices"][1]["shape"] = {3}; },
                    "a slice is not inside"},
        HostileCase{"Hole", [](Json& m) { m["tensors"][0]["slices"].erase(1); },
                    "its slices have 36 of 48 bytes"},
        HostileCase{
            "Overlap",
            [](Json& m) {
              m["tensors"][0]["slices"][0]["shape"] = {2, 3};
              m["tensors"][0]["slices"][1] = {{"file", 1}, {"offset", {1, 0}}, {"shape", {2, 3}}};
            },
            "two slices overlap"},
        HostileCase{"SameFile", [](Json& m) { m["tensors"][0]["slices"][1]["file"] = 0; },
                    "two slices are in one file"},
        HostileCase{"ScalarTwice",
                    [](Json& m) {
                      m["tensors"][1]["slices"].push_back(
                          {{"file", 0}, {"offset", Json::array()}, {"shape", Json::array()}});
                    },
                    "its slices are larger than it"},
        HostileCase{"Order", [](Json& m) { std::swap(m["tensors"][0], m["tensors"][1]); },
                    "not in the order of names"},
        HostileCase{"NoStateDict", [](Json& m) { m["state_dict"] = 7; }, "state_dict is no list"},
        HostileCase{"WeightTwice", [](Json& m) { m["state_dict"][1] = m["state_dict"][0]; },
                    "state_dict w: twice"},
        HostileCase{"WeightIsMetadata",
                    [](Json& m) { m["state_dict"][0]["name"] = "__metadata__"; },
                    "'__metadata__' is no name of a weight"},
        HostileCase{"WeightOfNothing", [](Json& m) { m["state_dict"][0]["parameter"] = "x"; },
                    "state_dict w: its value is x, which is no tensor"},
        HostileCase{"WeightOfAnotherShape",
                    [](Json& m) { m["state_dict"][1]["master"] = "adamw.exp_avg:w"; },
                    "state_dict tied.w: its value is adamw.exp_avg:w, which has another shape"},
        HostileCase{"WeightOfAnotherKind", [](Json& m) { m["state_dict"][0]["dtype"] = "i32"; },
                    "which has another shape or kind of type"},
        HostileCase{"WeightOverflows",
                    [](Json& m) {
                      m["state_dict"][2]["shape"] = {INT64_MAX, INT64_MAX};
                    },
                    "state_dict buffer: its size overflows"}),
    [](const testing::TestParamInfo<HostileCase>& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
