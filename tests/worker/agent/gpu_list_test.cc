#include "worker/agent/gpu_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace autosp::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GpuListTest, ReadsTheList) {
  const auto gpus = ParseGpuList(
      R"([{"index":0,"name":"NVIDIA A100","memory_bytes":85045149696},
          {"index":1,"name":"NVIDIA A100","memory_bytes":85045149696}])");
  ASSERT_TRUE(gpus.ok()) << gpus.status();
  EXPECT_THAT(*gpus, ElementsAre(GpuInfo{0, "NVIDIA A100", 85045149696},
                                 GpuInfo{1, "NVIDIA A100", 85045149696}));
}

TEST(GpuListTest, RefusesWhatIsNoList) {
  const struct {
    std::string json;
    std::string message;
  } cases[] = {
      {"", "is no list of GPUs"},
      {"[]", "is no list of GPUs"},
      {"{\"index\":0}", "is no list of GPUs"},
      {"[{\"index\":1,\"name\":\"a\",\"memory_bytes\":1}]", "does not describe GPU 0"},
      {"[{\"index\":0,\"name\":\"a\",\"memory_bytes\":0}]", "does not describe GPU 0"},
      {"[{\"index\":0,\"name\":7,\"memory_bytes\":1}]", "does not describe GPU 0"},
      {"[{\"index\":0,\"name\":\"a\"}]", "does not describe GPU 0"},
      {"[3]", "does not describe GPU 0"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(std::string(ParseGpuList(c.json).status().message()), HasSubstr(c.message))
        << c.json;
  }
}

TEST(GpuListTest, SaysWhyTheProgramFailed) {
  const auto missing = ListGpus("/nonexistent/autosp-rank");
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/autosp-rank"));
  const auto failed = ListGpus("/bin/false");
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("exited with code 1"));
  const auto other = ListGpus("/bin/true");
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("is no list of GPUs"));
}

}  // namespace
}  // namespace autosp::agent
