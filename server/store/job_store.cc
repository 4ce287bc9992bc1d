#include "server/store/job_store.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "server/store/job_json.h"

namespace autosp {
namespace {

constexpr int64_t kApplicationId = 0x41535031;  // "ASP1": this file is ours
constexpr int64_t kSchemaVersion = 2;

// `body` has everything about a job; the other columns are what is searched by.
constexpr char kSchema[] = R"sql(
  CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    is_active INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    create_time_us INTEGER NOT NULL,
    body TEXT NOT NULL
  );
  CREATE INDEX jobs_by_time ON jobs (create_time_us, job_id);
  CREATE INDEX active_jobs ON jobs (job_id) WHERE is_active;
  CREATE TABLE inputs (
    job_id TEXT PRIMARY KEY REFERENCES jobs,
    job_yaml TEXT NOT NULL,
    files BLOB NOT NULL,
    plan_summary BLOB NOT NULL,
    plan_text TEXT NOT NULL,
    program_text TEXT NOT NULL,
    device_budget_bytes INTEGER NOT NULL
  );
  CREATE TABLE events (
    job_id TEXT NOT NULL REFERENCES jobs,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job_id, sequence)
  ) WITHOUT ROWID;
)sql";

// What version 2 adds, to new files and to those of version 1. `digest` is that of what a
// verification ran, which was equal.
constexpr char kSchemaAdditions[] = R"sql(
  ALTER TABLE inputs ADD COLUMN verification BLOB NOT NULL DEFAULT x'';
  CREATE TABLE verified (
    digest TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs
  ) WITHOUT ROWID;
)sql";

// As many of the newest entries of a job are never thinned out, and as many come between two times.
constexpr int64_t kThinInterval = kMaxKeptSteps / 4;

// ?1 is the job; of its steps before entry ?2 those stay whose sequence is a multiple of ?3, and
// the first.
constexpr char kThinSteps[] = R"sql(
  DELETE FROM events
  WHERE job_id = ?1 AND sequence < ?2 AND sequence % ?3 != 0
    AND json_extract(body, '$.step') IS NOT NULL
    AND sequence > (SELECT sequence FROM events
                    WHERE job_id = ?1 AND json_extract(body, '$.step') IS NOT NULL
                    ORDER BY sequence LIMIT 1)
)sql";

absl::StatusOr<UniqueFd> LockStore(const std::string& path) {
  const std::string lock_path = absl::StrCat(path, ".lock");
  UniqueFd fd(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.is_open()) return ErrnoError(errno, absl::StrCat("cannot open ", lock_path));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return ErrnoError(errno, absl::StrCat("cannot lock ", lock_path));
  return FailedPrecondition("store ", path,
                            " is in use by another coordinator; end it, or give this one "
                            "another --state-dir");
}

// From `version`; 0 is an empty file.
absl::Status BringUpToDate(int64_t version, SqliteDatabase& database) {
  ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(database));
  if (version == 0) RETURN_IF_ERROR(database.Execute(kSchema));
  RETURN_IF_ERROR(database.Execute(kSchemaAdditions));
  RETURN_IF_ERROR(database.Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId)));
  RETURN_IF_ERROR(database.Execute(absl::StrCat("PRAGMA user_version = ", kSchemaVersion)));
  return transaction.Commit();
}

absl::Status CheckOrCreateSchema(const std::string& path, SqliteDatabase& database) {
  ASSIGN_OR_RETURN(const int64_t application_id, database.QueryInt("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const int64_t version, database.QueryInt("PRAGMA user_version"));
  ASSIGN_OR_RETURN(const int64_t num_objects,
                   database.QueryInt("SELECT count(*) FROM sqlite_schema"));
  if (num_objects == 0 && application_id == 0) return BringUpToDate(0, database);
  if (application_id != kApplicationId) {
    return FailedPrecondition("store ", path,
                              " is a database of another program; move it away, or give another "
                              "--state-dir");
  }
  if (version < 1 || version > kSchemaVersion) {
    return FailedPrecondition("store ", path, " has schema version ", version,
                              ", and this coordinator knows 1 to ", kSchemaVersion,
                              "; use the version of autosp that wrote it");
  }
  ASSIGN_OR_RETURN(const std::string check, database.QueryText("PRAGMA quick_check(1)"));
  if (check != "ok") {
    return DataLoss("store ", path, " is damaged (", check,
                    "); restore it from a backup, or move it away to begin with an empty one");
  }
  return version < kSchemaVersion ? BringUpToDate(version, database) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd lock, LockStore(path));
  ASSIGN_OR_RETURN(SqliteDatabase writer, SqliteDatabase::Open(path));
  RETURN_IF_ERROR(writer.Execute("PRAGMA journal_mode = WAL"));
  RETURN_IF_ERROR(writer.Execute("PRAGMA synchronous = FULL"));
  RETURN_IF_ERROR(writer.Execute("PRAGMA foreign_keys = ON"));
  RETURN_IF_ERROR(CheckOrCreateSchema(path, writer));
  ASSIGN_OR_RETURN(SqliteDatabase reader, SqliteDatabase::Open(path, /*read_only=*/true));
  auto store = std::unique_ptr<JobStore>(
      new JobStore(std::move(lock), std::move(writer), std::move(reader)));
  RETURN_IF_ERROR(store->PrepareStatements());
  return store;
}

absl::Status JobStore::PrepareStatements() {
  const std::lock_guard lock(write_mutex_);
  ASSIGN_OR_RETURN(insert_job_, writer_.Prepare("INSERT INTO jobs VALUES (?,?,?,?,?,?,?)"));
  ASSIGN_OR_RETURN(insert_inputs_, writer_.Prepare("INSERT INTO inputs VALUES (?,?,?,?,?,?,?,?)"));
  ASSIGN_OR_RETURN(update_job_,
                   writer_.Prepare("UPDATE jobs SET state = ?, is_active = ?, revision = ?, "
                                   "body = ? WHERE job_id = ? AND revision = ?"));
  ASSIGN_OR_RETURN(insert_event_, writer_.Prepare("INSERT INTO events VALUES (?,?,?)"));
  ASSIGN_OR_RETURN(insert_verified_,
                   writer_.Prepare("INSERT OR REPLACE INTO verified VALUES (?,?)"));
  return absl::OkStatus();
}

absl::Status JobStore::Apply(const Decision& decision, const JobInputs* inputs) {
  if (decision.changed_jobs.empty()) return absl::OkStatus();
  const std::lock_guard lock(write_mutex_);
  ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(writer_));
  for (const Job& job : decision.changed_jobs) RETURN_IF_ERROR(WriteJob(job, inputs));
  for (const HistoryEntry& entry : decision.history) RETURN_IF_ERROR(WriteHistory(entry));
  return transaction.Commit();
}

absl::Status JobStore::WriteJob(const Job& job, const JobInputs* inputs) {
  if (job.revision == 1) return InsertJob(job, inputs == nullptr ? JobInputs() : *inputs);
  update_job_->Bind(1, ToString(job.state));
  update_job_->Bind(2, IsTerminal(job.state) ? 0 : 1);
  update_job_->Bind(3, job.revision);
  update_job_->Bind(4, JobToJson(job));
  update_job_->Bind(5, job.id.value());
  update_job_->Bind(6, job.revision - 1);
  RETURN_IF_ERROR(update_job_->Run());
  if (writer_.num_changes() == 1) return absl::OkStatus();
  return Aborted("job ", job.id, " is not at revision ", job.revision - 1,
                 " in the store; another coordinator has changed it");
}

absl::Status JobStore::InsertJob(const Job& job, const JobInputs& inputs) {
  insert_job_->Bind(1, job.id.value());
  insert_job_->Bind(2, job.request->request_id.value());
  insert_job_->Bind(3, ToString(job.state));
  insert_job_->Bind(4, IsTerminal(job.state) ? 0 : 1);
  insert_job_->Bind(5, job.revision);
  insert_job_->Bind(6, absl::ToUnixMicros(job.create_time));
  insert_job_->Bind(7, JobToJson(job));
  RETURN_IF_ERROR(insert_job_->Run());
  insert_inputs_->Bind(1, job.id.value());
  insert_inputs_->Bind(2, inputs.job_yaml);
  insert_inputs_->BindBlob(3, inputs.files);
  insert_inputs_->BindBlob(4, inputs.plan_summary);
  insert_inputs_->Bind(5, inputs.plan_text);
  insert_inputs_->Bind(6, inputs.program_text);
  insert_inputs_->Bind(7, inputs.device_budget_bytes);
  insert_inputs_->BindBlob(8, inputs.verification);
  return insert_inputs_->Run();
}

absl::Status JobStore::WriteHistory(const HistoryEntry& entry) {
  insert_event_->Bind(1, entry.job.value());
  insert_event_->Bind(2, entry.sequence);
  insert_event_->Bind(3, HistoryEntryToJson(entry));
  RETURN_IF_ERROR(insert_event_->Run());
  if (const auto* note = std::get_if<VerificationNote>(&entry.what)) {
    RETURN_IF_ERROR(WriteVerified(entry, *note));
  }
  if (entry.sequence % kThinInterval != 0) return absl::OkStatus();
  return ThinSteps(entry);
}

absl::Status JobStore::WriteVerified(const HistoryEntry& entry, const VerificationNote& note) {
  if (note.outcome != VerificationNote::Outcome::kEqual) return absl::OkStatus();
  insert_verified_->Bind(1, note.digest);
  insert_verified_->Bind(2, entry.job.value());
  return insert_verified_->Run();
}

absl::Status JobStore::ThinSteps(const HistoryEntry& newest) {
  if (newest.sequence + kThinInterval <= kMaxKeptSteps) return absl::OkStatus();
  const int64_t num_old = newest.sequence - kThinInterval;
  int64_t stride = 1;
  while (num_old / stride >= kMaxKeptSteps / 2) stride *= 2;
  ASSIGN_OR_RETURN(SqliteStatement statement, writer_.Prepare(kThinSteps));
  statement.Bind(1, newest.job.value());
  statement.Bind(2, num_old);
  statement.Bind(3, stride);
  return statement.Run();
}

absl::StatusOr<std::vector<Job>> JobStore::ReadJobs(SqliteStatement& statement) const {
  std::vector<Job> jobs;
  while (true) {
    ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return jobs;
    ASSIGN_OR_RETURN(Job job, JobFromJson(statement.Text(0)));
    jobs.push_back(std::move(job));
  }
}

absl::StatusOr<std::vector<Job>> JobStore::ActiveJobs() const {
  const std::lock_guard lock(read_mutex_);
  ASSIGN_OR_RETURN(SqliteStatement statement,
                   reader_.Prepare("SELECT body FROM jobs WHERE is_active ORDER BY job_id"));
  return ReadJobs(statement);
}

absl::StatusOr<Job> JobStore::GetJob(const JobId& job) const {
  const std::lock_guard lock(read_mutex_);
  ASSIGN_OR_RETURN(SqliteStatement statement,
                   reader_.Prepare("SELECT body FROM jobs WHERE job_id = ?"));
  statement.Bind(1, job.value());
  ASSIGN_OR_RETURN(std::vector<Job> jobs, ReadJobs(statement));
  if (jobs.empty()) return NotFound("job ", job, " does not exist");
  return std::move(jobs.front());
}

absl::StatusOr<std::vector<Job>> JobStore::ListJobs(const JobPage& page) const {
  std::string sql = "SELECT body FROM jobs WHERE true";
  if (page.after) {
    absl::StrAppend(&sql,
                    " AND (create_time_us, job_id) < "
                    "(SELECT create_time_us, job_id FROM jobs WHERE job_id = ?1)");
  }
  if (!page.states.empty()) {
    // The names are ours, so they need no quoting.
    absl::StrAppend(&sql, " AND state IN (",
                    absl::StrJoin(page.states, ",",
                                  [](std::string* out, JobState state) {
                                    absl::StrAppend(out, "'", ToString(state), "'");
                                  }),
                    ")");
  }
  absl::StrAppend(&sql, " ORDER BY create_time_us DESC, job_id DESC LIMIT ", page.limit);
  const std::lock_guard lock(read_mutex_);
  ASSIGN_OR_RETURN(SqliteStatement statement, reader_.Prepare(sql));
  if (page.after) statement.Bind(1, page.after->value());
  return ReadJobs(statement);
}

absl::StatusOr<std::vector<HistoryEntry>> JobStore::History(const JobId& job,
                                                            int64_t after_sequence,
                                                            int64_t limit) const {
  const std::lock_guard lock(read_mutex_);
  ASSIGN_OR_RETURN(SqliteStatement statement,
                   reader_.Prepare("SELECT body FROM events WHERE job_id = ? AND sequence > ? "
                                   "ORDER BY sequence LIMIT ?"));
  statement.Bind(1, job.value());
  statement.Bind(2, after_sequence);
  statement.Bind(3, limit);
  std::vector<HistoryEntry> entries;
  while (true) {
    ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return entries;
    ASSIGN_OR_RETURN(HistoryEntry entry, HistoryEntryFromJson(statement.Text(0)));
    entries.push_back(std::move(entry));
  }
}

absl::StatusOr<JobInputs> JobStore::GetInputs(const JobId& job) const {
  const std::lock_guard lock(read_mutex_);
  ASSIGN_OR_RETURN(
      SqliteStatement statement,
      reader_.Prepare("SELECT job_yaml, files, plan_summary, plan_text, program_text, "
                      "device_budget_bytes, verification FROM inputs WHERE job_id = ?"));
  statement.Bind(1, job.value());
  ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  if (!has_row) return NotFound("job ", job, " does not exist");
  return JobInputs{.job_yaml = statement.Text(0),
                   .files = statement.Text(1),
                   .plan_summary = statement.Text(2),
                   .plan_text = statement.Text(3),
                   .program_text = statement.Text(4),
                   .device_budget_bytes = statement.Int(5),
                   .verification = statement.Text(6)};
}

bool JobStore::IsFinished(const JobId& job) const {
  const std::lock_guard lock(read_mutex_);
  absl::StatusOr<SqliteStatement> statement =
      reader_.Prepare("SELECT 1 FROM jobs WHERE job_id = ? AND NOT is_active");
  if (!statement.ok()) return false;
  statement->Bind(1, job.value());
  return statement->Step().value_or(false);
}

std::optional<SubmittedJob> JobStore::FindByRequest(const RequestId& request_id) const {
  const std::lock_guard lock(read_mutex_);
  absl::StatusOr<SqliteStatement> statement =
      reader_.Prepare("SELECT body FROM jobs WHERE request_id = ?");
  if (!statement.ok()) return std::nullopt;
  statement->Bind(1, request_id.value());
  const absl::StatusOr<std::vector<Job>> jobs = ReadJobs(*statement);
  if (!jobs.ok() || jobs->empty()) return std::nullopt;
  return SubmittedJob{.job = jobs->front().id,
                      .request_digest = jobs->front().request->request_digest};
}

std::optional<JobId> JobStore::FindVerified(const std::string& digest) const {
  const std::lock_guard lock(read_mutex_);
  absl::StatusOr<SqliteStatement> statement =
      reader_.Prepare("SELECT job_id FROM verified WHERE digest = ?");
  if (!statement.ok()) return std::nullopt;
  statement->Bind(1, digest);
  if (!statement->Step().value_or(false)) return std::nullopt;
  return JobId(statement->Text(0));
}

}  // namespace autosp
