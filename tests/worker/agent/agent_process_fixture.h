// A real agent in a folder of its own, and what tests ask of it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/file.h"
#include "tests/worker/agent/agent_process.h"
#include "tests/worker/agent/fake_coordinator.h"

namespace autosp::agent {

inline constexpr char kJob[] = "job-test";

inline v1::AttemptRef Ref() {
  v1::AttemptRef ref;
  ref.set_job_id(kJob);
  ref.set_generation(1);
  return ref;
}

class AgentProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/agent-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override {
    if (HasFailure() && agent_ != nullptr) std::cerr << agent_->LogText();
    agent_.reset();
    std::filesystem::remove_all(folder_);
  }
  // As ASSERT_TRUE, but it ends the test from within a helper too.
  static void Require(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what);
  }
  void StartAgent(const std::vector<std::string>& flags = {},
                  const std::vector<std::string>& env = {}) {
    auto agent = AgentProcess::Start(coordinator_, folder_, flags, env);
    Require(agent.ok(), absl::StrCat(agent.status().ToString(), "\n",
                                     ReadFile(folder_ + "/agent.log", 1 << 20).value_or("")));
    agent_ = *std::move(agent);
  }
  void StartRanks(const std::string& script, int num_ranks = 2) {
    const auto request = MakePrepare(folder_, kJob, num_ranks, script);
    const absl::Status prepared = agent_->Prepare(request);
    Require(prepared.ok(), prepared.ToString());
    const absl::Status committed = agent_->Commit(kJob);
    Require(committed.ok(), committed.ToString());
  }
  void WaitForState(int rank, v1::RankState state) {
    Require(coordinator_.WaitUntil([&](const FakeCoordinator::Seen& seen) {
      const auto job = seen.statuses.find(kJob);
      return job != seen.statuses.end() && job->second.contains(rank) &&
             job->second.at(rank).state() == state;
    }),
            absl::StrCat("rank ", rank, " becomes ", v1::RankState_Name(state)));
  }
  void WaitForSteps(int rank, size_t count) {
    Require(coordinator_.WaitUntil([&](const FakeCoordinator::Seen& seen) {
      const auto job = seen.steps.find(kJob);
      return job != seen.steps.end() && job->second.contains(rank) &&
             job->second.at(rank).size() >= count;
    }),
            absl::StrCat("rank ", rank, " reports ", count, " steps"));
  }
  void WaitForPhase(v1::AttemptStatus::Phase phase) {
    Require(coordinator_.WaitUntil([&](const FakeCoordinator::Seen& seen) {
      const v1::AttemptStatus* attempt = seen.Attempt(kJob);
      return attempt != nullptr && attempt->phase() == phase;
    }),
            absl::StrCat("the attempt comes to ", v1::AttemptStatus::Phase_Name(phase)));
  }
  // Not bound to the reports: the pipe may be slower.
  void WaitForLog(int rank, const std::string& text) {
    for (int i = 0; i < 1000; ++i) {
      if (absl::StrContains(agent_->ReadLog(kJob, rank).value_or(""), text)) return;
      Clock::Real().Sleep(absl::Milliseconds(10));
    }
    Require(false, absl::StrCat("rank ", rank, " logs ", text));
  }
  v1::RankStatus StatusOf(int rank) { return coordinator_.Get().statuses[kJob][rank]; }
  std::vector<int64_t> Pids(int num_ranks = 2) {
    std::vector<int64_t> pids;
    for (int rank = 0; rank < num_ranks; ++rank) pids.push_back(StatusOf(rank).pid());
    return pids;
  }
  std::string EndReason() {
    const FakeCoordinator::Seen seen = coordinator_.Get();
    const v1::AttemptStatus* attempt = seen.Attempt(kJob);
    return attempt == nullptr ? "" : attempt->end_reason();
  }

  FakeCoordinator coordinator_;
  std::string folder_;
  std::unique_ptr<AgentProcess> agent_;
};

}  // namespace autosp::agent
