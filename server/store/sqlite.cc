#include "server/store/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// Other connections of this process hold the lock for milliseconds at most.
constexpr int kBusyTimeoutMs = 5000;

absl::Status SqliteError(const std::string& path, int code, absl::string_view message) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ResourceExhausted("store ", path, ": the disk is full; free space, then try again");
    case SQLITE_IOERR:
      return ResourceExhausted("store ", path, ": cannot write (", message,
                               "); check the disk and its free space");
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return DataLoss("store ", path, " is damaged (", message,
                      "); restore it from a backup, or move it away to begin with an empty one");
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return PermissionDenied("store ", path, ": ", message,
                              "; the folder must exist and be writable");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable("store ", path, " is locked by another program");
    case SQLITE_CONSTRAINT:
      return AlreadyExists("store ", path, ": ", message);
    default:
      return Internal("store ", path, ": ", message, " (SQLite code ", code, ")");
  }
}

absl::Status LastError(const std::string& path, sqlite3* handle) {
  return SqliteError(path, sqlite3_extended_errcode(handle), sqlite3_errmsg(handle));
}

}  // namespace

void SqliteDatabase::Closer::operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }

void SqliteStatement::Finalizer::operator()(sqlite3_stmt* handle) const {
  sqlite3_finalize(handle);
}

absl::StatusOr<SqliteDatabase> SqliteDatabase::Open(const std::string& path, bool read_only) {
  sqlite3* handle = nullptr;
  const int mode = read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  const int code = sqlite3_open_v2(path.c_str(), &handle, mode | SQLITE_OPEN_NOMUTEX, nullptr);
  SqliteDatabase database(path, handle);  // Owns the handle also when opening failed.
  if (code != SQLITE_OK) return LastError(path, handle);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  return database;
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : LastError(path_, handle_.get());
}

absl::StatusOr<SqliteStatement> SqliteDatabase::Prepare(absl::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) return LastError(path_, handle_.get());
  return SqliteStatement(path_, statement);
}

absl::StatusOr<int64_t> SqliteDatabase::QueryInt(absl::string_view sql) {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  if (!has_row) return Internal("store ", path_, ": no row from ", sql);
  return statement.Int(0);
}

absl::StatusOr<std::string> SqliteDatabase::QueryText(absl::string_view sql) {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  if (!has_row) return Internal("store ", path_, ": no row from ", sql);
  return statement.Text(0);
}

int64_t SqliteDatabase::num_changes() const { return sqlite3_changes64(handle_.get()); }

void SqliteStatement::Bind(int parameter, int64_t value) {
  sqlite3_bind_int64(handle_.get(), parameter, value);
}

void SqliteStatement::Bind(int parameter, absl::string_view text) {
  sqlite3_bind_text64(handle_.get(), parameter, text.data(), text.size(), SQLITE_TRANSIENT,
                      SQLITE_UTF8);
}

void SqliteStatement::BindBlob(int parameter, absl::string_view bytes) {
  sqlite3_bind_blob64(handle_.get(), parameter, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
}

absl::StatusOr<bool> SqliteStatement::Step() {
  const int code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  absl::Status error = LastError(path_, sqlite3_db_handle(handle_.get()));
  Reset();
  return error;
}

absl::Status SqliteStatement::Run() {
  const absl::Status status = Step().status();
  Reset();
  return status;
}

int64_t SqliteStatement::Int(int column) const {
  return sqlite3_column_int64(handle_.get(), column);
}

std::string SqliteStatement::Text(int column) const {
  const void* data = sqlite3_column_blob(handle_.get(), column);
  const int size = sqlite3_column_bytes(handle_.get(), column);
  return data == nullptr ? "" : std::string(static_cast<const char*>(data), size);
}

void SqliteStatement::Reset() {
  sqlite3_reset(handle_.get());
  sqlite3_clear_bindings(handle_.get());
}

absl::StatusOr<SqliteTransaction> SqliteTransaction::Begin(SqliteDatabase& database) {
  RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return SqliteTransaction(database);
}

SqliteTransaction::SqliteTransaction(SqliteTransaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

SqliteTransaction::~SqliteTransaction() {
  // A failed commit may have rolled back already; a second rollback is an error without effect.
  if (database_ != nullptr) database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status SqliteTransaction::Commit() {
  RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace autosp
