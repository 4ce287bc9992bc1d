#include <string>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/rank/rank_config_from_proto.h"

namespace autosp {
namespace {

using testing::HasSubstr;

std::string Write(const std::string& json) {
  const std::string path = JoinPath(testing::TempDir(), "rank_config_test.json");
  EXPECT_TRUE(WriteFileAtomically(path, json).ok());
  return path;
}

constexpr char kGood[] = R"({
  "attempt": {"jobId": "job-1", "generation": "3"}, "rank": 5, "worldSize": 6, "localWorldSize": 2,
  "mesh": {"dpSize": 1, "ulyssesSize": 3, "ringSize": 2}, "deviceKind": "DEVICE_KIND_CPU",
  "deviceBudgetBytes": "4096", "programPath": "/p", "programDigest": "d", "jobYamlPath": "/j",
  "outputDirectory": "/o", "shmPrefix": "/autosp-x-3",
  "rendezvousTimeoutMs": "2500", "agentSocketPath": "/s", "numThreads": 2,
  "aFieldOfTheFuture": {"x": [1]}})";

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(RankConfigTest, ReadsEveryField) {
  const auto config = ReadRankSpec(Write(kGood));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->job_id, "job-1");
  EXPECT_EQ(config->generation, 3);
  EXPECT_EQ(config->rank, 5);
  EXPECT_EQ(config->world_size, 6);
  EXPECT_EQ(config->local_world_size, 2);
  EXPECT_EQ(config->mesh, (Mesh{.accum = 1, .dp = 1, .ring = 2, .ulysses = 3}));
  EXPECT_EQ(config->device_budget_bytes, 4096);
  EXPECT_EQ(config->program_path, "/p");
  EXPECT_EQ(config->program_digest, "d");
  EXPECT_EQ(config->job_yaml_path, "/j");
  EXPECT_EQ(config->output_directory, "/o");
  EXPECT_EQ(config->shm_prefix, "/autosp-x-3");
  EXPECT_EQ(config->rendezvous_timeout, absl::Milliseconds(2500));
  EXPECT_EQ(config->agent_socket_path, "/s");
  EXPECT_EQ(config->num_threads, 2);
}

TEST(RankConfigTest, KnowsWhetherAnAttemptBeforeItMayHaveTrained) {
  EXPECT_TRUE(ReadRankSpec(Write(kGood))->is_restart) << "as older coordinators mean it";
  const std::string first = Replace(kGood, "\"3\"}", "\"3\"}, \"isFirstTraining\": true");
  EXPECT_FALSE(ReadRankSpec(Write(first))->is_restart);
  EXPECT_FALSE(ReadRankSpec(Write(Replace(kGood, "\"3\"", "\"1\"")))->is_restart);
}

TEST(RankConfigTest, ReadsWhichGpu) {
  EXPECT_EQ(ReadRankSpec(Write(kGood))->gpu, std::nullopt);
  const auto config = ReadRankSpec(
      Write(Replace(kGood, "\"DEVICE_KIND_CPU\"", "\"DEVICE_KIND_CUDA\", \"deviceIndex\": 3")));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->gpu, 3);
}

struct BadSpec {
  std::string from;
  std::string to;
  std::string error;
};

class BadSpecTest : public testing::TestWithParam<BadSpec> {};

TEST_P(BadSpecTest, IsRefused) {
  const auto config = ReadRankSpec(Write(Replace(kGood, GetParam().from, GetParam().to)));
  EXPECT_FALSE(config.ok());
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSpecTest,
    testing::Values(BadSpec{"\"rank\": 5", "\"rank\": 6", "rank: 6 is not one of 6"},
                    BadSpec{"\"rank\": 5", "\"rank\": -1", "rank: -1 is not one of 6"},
                    BadSpec{"\"worldSize\": 6", "\"worldSize\": 0", "world_size: 0"},
                    BadSpec{"\"ringSize\": 2", "\"ringSize\": 1", "is not world_size 6"},
                    BadSpec{"\"DEVICE_KIND_CPU\"", "\"DEVICE_KIND_CUDA\", \"deviceIndex\": -1",
                            "device_index: -1 is no GPU"},
                    BadSpec{"\"programPath\": \"/p\", ", "", "program_path: is missing"},
                    BadSpec{"\"shmPrefix\": \"/autosp-x-3\",", "", "shm_prefix: is missing"},
                    BadSpec{"{\n", "[\n", "rank spec"}));

std::string WithPeers(const std::string& peers) {
  const std::string path = JoinPath(testing::TempDir(), "rank_config_test_peers.json");
  EXPECT_TRUE(WriteFileAtomically(path, peers).ok());
  return Replace(kGood, "\"numThreads\"",
                 "\"peersPath\": \"" + path +
                     "\", \"nodeOfRank\": [\"a\", \"a\", \"a\", \"b\", \"b\", \"b\"], "
                     "\"numThreads\"");
}

TEST(RankConfigTest, ReadsThePeersOfSeveralNodes) {
  const auto config = ReadRankSpec(Write(
      WithPeers(R"({"addresses": ["a:1", "a:2", "a:3", "b:1", "b:2", "b:3"], "secret": "s"})")));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->rank_addresses,
              testing::ElementsAre("a:1", "a:2", "a:3", "b:1", "b:2", "b:3"));
  EXPECT_THAT(config->node_of_rank, testing::ElementsAre("a", "a", "a", "b", "b", "b"));
  EXPECT_EQ(config->secret, "s");
  EXPECT_THAT(ReadRankSpec(Write(kGood))->rank_addresses, testing::IsEmpty());
}

TEST(RankConfigTest, PeersMustBeWhole) {
  for (const char* peers : {"{", R"({"addresses": ["a:1"], "secret": "s"})", "{}"}) {
    EXPECT_THAT(std::string(ReadRankSpec(Write(WithPeers(peers))).status().message()),
                HasSubstr("rank_config_test_peers.json"))
        << peers;
  }
}

TEST(RankConfigTest, MissingFileIsNamed) {
  EXPECT_THAT(std::string(ReadRankSpec("/does/not/exist.json").status().message()),
              HasSubstr("/does/not/exist.json"));
}

}  // namespace
}  // namespace autosp
