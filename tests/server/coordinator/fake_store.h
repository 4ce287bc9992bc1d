// A store in memory that keeps what the real one keeps: jobs go through the same JSON, so whatever
// is not stored is lost on a restart here as well. It also holds every decision against the rules
// of storing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/coordinator/coordinator.h"
#include "server/store/job_json.h"

namespace autosp {

class FakeStore : public FinishedJobs {
 public:
  // Stores a decision. Adds a test failure where one breaks a rule.
  void Apply(const Decision& decision) {
    for (const Job& job : decision.changed_jobs) ApplyJob(job);
    for (const HistoryEntry& entry : decision.history) {
      std::vector<HistoryEntry>& history = history_[entry.job];
      EXPECT_EQ(entry.sequence, static_cast<int64_t>(history.size()) + 1) << entry.job;
      absl::StatusOr<HistoryEntry> read = HistoryEntryFromJson(HistoryEntryToJson(entry));
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, entry);
      if (const auto* note = std::get_if<VerificationNote>(&entry.what)) {
        if (note->outcome == VerificationNote::Outcome::kEqual) verified_[note->digest] = entry.job;
      }
      history.push_back(*std::move(read));
    }
  }

  std::vector<Job> ActiveJobs() const {
    std::vector<Job> jobs;
    for (const auto& [id, job] : jobs_) {
      if (!IsTerminal(job.state)) jobs.push_back(job);
    }
    return jobs;
  }

  bool IsFinished(const JobId& job) const override {
    auto found = jobs_.find(job);
    return found != jobs_.end() && IsTerminal(found->second.state);
  }
  std::optional<SubmittedJob> FindByRequest(const RequestId& request_id) const override {
    for (const auto& [id, job] : jobs_) {
      if (job.request->request_id != request_id) continue;
      return SubmittedJob{.job = id, .request_digest = job.request->request_digest};
    }
    return std::nullopt;
  }

  std::optional<JobId> FindVerified(const std::string& digest) const override {
    auto found = verified_.find(digest);
    if (found == verified_.end()) return std::nullopt;
    return found->second;
  }

  const std::map<JobId, Job>& jobs() const { return jobs_; }
  const std::vector<HistoryEntry>& history(const JobId& job) { return history_[job]; }
  void Clear() { jobs_.clear(), history_.clear(), verified_.clear(); }

 private:
  void ApplyJob(const Job& job) {
    auto known = jobs_.find(job.id);
    const int64_t revision = known == jobs_.end() ? 0 : known->second.revision;
    EXPECT_EQ(job.revision, revision + 1) << "compare-and-set of job " << job.id;
    if (known != jobs_.end()) {
      EXPECT_FALSE(IsTerminal(known->second.state)) << "job " << job.id << " had ended";
    }
    absl::StatusOr<Job> read = JobFromJson(JobToJson(job));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(JobToJson(*read), JobToJson(job));
    jobs_[job.id] = *std::move(read);
  }

  std::map<JobId, Job> jobs_;
  std::map<JobId, std::vector<HistoryEntry>> history_;
  std::map<std::string, JobId> verified_;
};

}  // namespace autosp
