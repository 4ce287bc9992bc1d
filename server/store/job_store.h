// Where jobs survive: one SQLite file in the coordinator's state folder.
//
// A decision is stored whole or not at all: the new state of its jobs and their history go into one
// transaction (write-ahead log, synchronous=FULL, so it outlives a power cut). Each job is replaced
// by compare-and-set on its revision; a second writer is found out, never merged.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/decision.h"
#include "server/store/sqlite.h"

namespace autosp {

// Steps of a job that its history keeps at most; at about 1 KB each. Of longer jobs it has the
// first step, the newest ones (a quarter of the limit and more), and of those between one in 2, 4,
// 8, ...
inline constexpr int64_t kMaxKeptSteps = 10'000;

// What came with a job and what it was compiled to. Written once, read when its ranks are prepared
// or when somebody asks; never held in memory.
struct JobInputs {
  std::string job_yaml = {};
  std::string files = {};         // serialized by the service
  std::string plan_summary = {};  // serialized by the service
  std::string plan_text = {};     // for people
  std::string program_text = {};
  int64_t device_budget_bytes = 0;
  std::string verification = {};  // serialized by the service; empty: none is wanted

  bool operator==(const JobInputs&) const = default;
};

// Newest first; `after` is the last job of the page before.
struct JobPage {
  int64_t limit = 0;
  std::optional<JobId> after = {};
  std::vector<JobState> states = {};  // empty: all
};

// Thread-safe. Writers and readers do not wait for each other.
class JobStore final : public FinishedJobs {
 public:
  // Opens or creates the file. Fails when another coordinator has it open, when it is damaged, when
  // it is some other program's database, and when a newer version has written it.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path);

  // Stores the changed jobs and the history of `decision`. `inputs` belong to its new job, if it
  // has one. On an error nothing is stored. Aborted: the stored revision is not the expected one.
  absl::Status Apply(const Decision& decision, const JobInputs* inputs = nullptr);

  absl::StatusOr<std::vector<Job>> ActiveJobs() const;
  absl::StatusOr<Job> GetJob(const JobId& job) const;
  absl::StatusOr<std::vector<Job>> ListJobs(const JobPage& page) const;
  // In order. Sequences have gaps where old steps were thinned out.
  absl::StatusOr<std::vector<HistoryEntry>> History(const JobId& job, int64_t after_sequence,
                                                    int64_t limit) const;
  absl::StatusOr<JobInputs> GetInputs(const JobId& job) const;

  // FinishedJobs. A read that fails counts as "not known", on which nothing is killed.
  bool IsFinished(const JobId& job) const override;
  std::optional<SubmittedJob> FindByRequest(const RequestId& request_id) const override;
  std::optional<JobId> FindVerified(const std::string& digest) const override;

 private:
  JobStore(UniqueFd lock, SqliteDatabase writer, SqliteDatabase reader)
      : lock_(std::move(lock)), writer_(std::move(writer)), reader_(std::move(reader)) {}

  absl::Status PrepareStatements();

  // Require write_mutex_.
  absl::Status WriteJob(const Job& job, const JobInputs* inputs);
  absl::Status InsertJob(const Job& job, const JobInputs& inputs);
  absl::Status WriteHistory(const HistoryEntry& entry);
  absl::Status WriteVerified(const HistoryEntry& entry, const VerificationNote& note);
  absl::Status ThinSteps(const HistoryEntry& newest);

  // Requires read_mutex_.
  absl::StatusOr<std::vector<Job>> ReadJobs(SqliteStatement& statement) const;

  const UniqueFd lock_;  // One coordinator per store.

  std::mutex write_mutex_;  // Guards what follows, up to read_mutex_.
  SqliteDatabase writer_;
  std::optional<SqliteStatement> insert_job_;
  std::optional<SqliteStatement> insert_inputs_;
  std::optional<SqliteStatement> update_job_;
  std::optional<SqliteStatement> insert_event_;
  std::optional<SqliteStatement> insert_verified_;

  mutable std::mutex read_mutex_;  // Guards what follows.
  mutable SqliteDatabase reader_;
};

}  // namespace autosp
