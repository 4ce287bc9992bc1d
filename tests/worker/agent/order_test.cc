// Orders as they come over the wire: what is refused, and what ranks and verifications are told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "common/file.h"
#include "tests/common/temp_dir.h"
#include "tests/worker/agent/agent_process.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/order_from_proto.h"
#include "worker/agent/status_to_proto.h"

namespace autosp::agent {
namespace {

using ::testing::HasSubstr;

struct BadOrder {
  const char* name;
  std::function<void(v1::PrepareRequest&)> change;
  const char* message;
};

// Turns an order for ranks into one to verify.
void MakeVerification(v1::PrepareRequest& request) {
  v1::AttemptSpec& attempt = *request.mutable_attempt();
  attempt.set_world_size(1);
  attempt.mutable_mesh()->set_ulysses_size(1);
  request.mutable_ranks()->DeleteSubrange(1, request.ranks_size() - 1);
  while (attempt.node_of_rank_size() > 1) attempt.mutable_node_of_rank()->RemoveLast();
  attempt.mutable_verification()->set_one_device_text("program of one device");
  attempt.mutable_verification()->set_exported_text("graph");
  attempt.mutable_verification()->set_needed_bytes(1000);
}

class OrderFromProtoTest : public ::testing::TestWithParam<BadOrder> {};

TEST_P(OrderFromProtoTest, IsRefusedByName) {
  v1::PrepareRequest request = MakePrepare("/tmp", "job-a", 2, "");
  ASSERT_TRUE(OrderFromProto(request).ok()) << OrderFromProto(request).status();
  GetParam().change(request);
  const auto order = OrderFromProto(request);
  ASSERT_FALSE(order.ok());
  EXPECT_THAT(std::string(order.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, OrderFromProtoTest,
    ::testing::Values(
        BadOrder{"job", [](auto& r) { r.mutable_attempt()->mutable_attempt()->set_job_id("../x"); },
                 "job id"},
        BadOrder{"generation",
                 [](auto& r) { r.mutable_attempt()->mutable_attempt()->set_generation(0); },
                 "generation (0)"},
        BadOrder{"node", [](auto& r) { r.set_node_id(""); }, "node id"},
        BadOrder{"world_size", [](auto& r) { r.mutable_attempt()->set_world_size(0); },
                 "world_size (0)"},
        BadOrder{"mesh", [](auto& r) { r.mutable_attempt()->mutable_mesh()->set_dp_size(3); },
                 "ring_size (6) is not world_size (2)"},
        BadOrder{"axis", [](auto& r) { r.mutable_attempt()->clear_mesh(); }, "mesh axis"},
        BadOrder{"rank", [](auto& r) { r.mutable_ranks(0)->set_rank(2); },
                 "rank 2 is not below world_size (2)"},
        BadOrder{"local_rank", [](auto& r) { r.mutable_ranks(1)->set_local_rank(0); },
                 "local_rank 0 of rank 1"},
        BadOrder{"digest", [](auto& r) { r.mutable_attempt()->set_program_text("other"); },
                 "digest"},
        BadOrder{"output", [](auto& r) { r.mutable_attempt()->set_output_directory("out"); },
                 "absolute"},
        BadOrder{"uri", [](auto& r) { r.mutable_attempt()->add_files()->set_uri("http://x/y"); },
                 "file:///absolute/path"},
        BadOrder{"role", [](auto& r) { r.mutable_attempt()->add_files()->set_uri("file:///x"); },
                 "role 0"},
        BadOrder{"timeout", [](auto& r) { r.set_commit_timeout_ms(0); }, "commit_timeout_ms (0)"},
        BadOrder{"budget", [](auto& r) { r.mutable_attempt()->set_device_budget_bytes(-1); },
                 "device_budget_bytes"},
        BadOrder{"device", [](auto& r) { r.mutable_attempt()->clear_device_kind(); },
                 "device_kind"},
        BadOrder{"rendezvous", [](auto& r) { r.mutable_attempt()->set_rendezvous_id("a/b"); },
                 "rendezvous_id"},
        BadOrder{"nodes", [](auto& r) { r.mutable_attempt()->add_node_of_rank("x"); },
                 "names 3 nodes"},
        BadOrder{"verification", [](auto& r) { r.mutable_attempt()->mutable_verification(); },
                 "world_size (2) is not 1"},
        BadOrder{"nothing_to_verify_with",
                 [](auto& r) {
                   MakeVerification(r);
                   r.mutable_attempt()->mutable_verification()->clear_one_device_text();
                 },
                 "one_device_text is missing"},
        BadOrder{"negative_need",
                 [](auto& r) {
                   MakeVerification(r);
                   r.mutable_attempt()->mutable_verification()->set_needed_bytes(-1);
                 },
                 "needed_bytes is negative"}),
    [](const auto& info) { return info.param.name; });

TEST(RankSpecTest, SaysWhatARankNeeds) {
  v1::PrepareRequest request = MakePrepare("/data", "job-a", 2, "yaml");
  v1::FileRef& archive = *request.mutable_attempt()->add_files();
  archive.set_role(v1::FileRef::ROLE_ARCHIVE);
  archive.set_uri("file:///data/model.pt2");
  request.mutable_attempt()->set_device_budget_bytes(77);
  const auto order = OrderFromProto(request);
  ASSERT_TRUE(order.ok()) << order.status();
  const v1::RankSpec spec = RankSpecToProto(*order, order->reservation.slots[1],
                                            {.node_id = "node-0",
                                             .program_path = "/s/program.txt",
                                             .job_yaml_path = "/s/job.yaml",
                                             .rendezvous_directory = "/s/rendezvous",
                                             .shm_prefix = SharedMemoryPrefix(order->key()),
                                             .agent_socket_path = "/s/rank.sock",
                                             .peers_path = "/s/peers.json",
                                             .num_threads = 3});
  EXPECT_EQ(spec.rank(), 1);
  EXPECT_EQ(spec.local_world_size(), 2);
  EXPECT_EQ(spec.mesh().ulysses_size(), 2);
  EXPECT_EQ(spec.shm_prefix(), "/autosp-job-a-1");
  EXPECT_EQ(spec.device_budget_bytes(), 77);
  EXPECT_EQ(spec.output_directory(), "/data/out");
  EXPECT_EQ(spec.peers_path(), "/s/peers.json");
  EXPECT_THAT(ToJson(spec).value(), HasSubstr("\"num_threads\": 3"));
}

class VerificationOrderTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string folder_ = dir_.path();
};

TEST_F(VerificationOrderTest, AVerificationHasFilesOfItsOwn) {
  v1::PrepareRequest request = MakePrepare(folder_, "job-a", 2, "yaml");
  MakeVerification(request);
  const auto order = OrderFromProto(request);
  ASSERT_TRUE(order.ok()) << order.status();
  EXPECT_TRUE(order->reservation.is_verification);
  const AttemptFiles files(folder_);
  const VerificationFilePaths paths =
      files.VerificationPathsOf(order->key(), order->verification.value());
  EXPECT_EQ(paths.exact, "") << "there is none";
  ASSERT_TRUE(files.Write(*order, {"{}"}).ok());
  EXPECT_EQ(ReadFile(paths.one_device, 100).value_or(""), "program of one device");
  EXPECT_EQ(ReadFile(paths.exported, 100).value_or(""), "graph");
  const v1::RankSpec spec = RankSpecToProto(*order, order->reservation.slots[0],
                                            {.node_id = "node-0", .verification = paths});
  EXPECT_EQ(spec.verification().one_device_path(), paths.one_device);
  EXPECT_EQ(spec.verification().exact_path(), "");
}

TEST_F(VerificationOrderTest, AVerificationNeedsItsProgramAndMemory) {
  v1::PrepareRequest request = MakePrepare(folder_, "job-a", 2, "yaml");
  MakeVerification(request);
  const auto order = OrderFromProto(request);
  ASSERT_TRUE(order.ok()) << order.status();
  const RankPrograms programs = {.rank = "/nowhere/autosp-rank", .verify = "/bin/true"};
  EXPECT_TRUE(CheckAttempt(*order, programs, 1000).ok());
  const absl::Status too_large = CheckAttempt(*order, programs, 999);
  EXPECT_EQ(too_large.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(too_large.message()), HasSubstr("set verify to never"));
  const absl::Status missing = CheckAttempt(*order, {.rank = "/bin/true", .verify = "/x"}, 1000);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("with --verify-binary"));
}

}  // namespace
}  // namespace autosp::agent
