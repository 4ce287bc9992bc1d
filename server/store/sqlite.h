// SQLite with its errors as statuses and its handles owned.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace autosp {

class SqliteStatement;

// One connection. Thread-compatible; statements must not outlive it.
class SqliteDatabase {
 public:
  // Creates the file if it is missing, unless `read_only`.
  static absl::StatusOr<SqliteDatabase> Open(const std::string& path, bool read_only = false);

  SqliteDatabase(SqliteDatabase&&) = default;
  SqliteDatabase& operator=(SqliteDatabase&&) = default;

  // Runs statements that give no rows and take no values.
  absl::Status Execute(const std::string& sql);

  absl::StatusOr<SqliteStatement> Prepare(absl::string_view sql);

  // The single number that `sql` gives, for pragmas and counts.
  absl::StatusOr<int64_t> QueryInt(absl::string_view sql);
  absl::StatusOr<std::string> QueryText(absl::string_view sql);

  // Rows that the last statement changed.
  int64_t num_changes() const;

 private:
  struct Closer {
    void operator()(sqlite3* handle) const;
  };
  SqliteDatabase(std::string path, sqlite3* handle) : path_(std::move(path)), handle_(handle) {}

  std::string path_;
  std::unique_ptr<sqlite3, Closer> handle_;
};

// A prepared statement that is used again and again: Bind..., Step..., Reset.
class SqliteStatement {
 public:
  SqliteStatement(SqliteStatement&&) = default;
  SqliteStatement& operator=(SqliteStatement&&) = default;

  // Parameters count from 1. The text is copied.
  void Bind(int parameter, int64_t value);
  void Bind(int parameter, absl::string_view text);
  void BindBlob(int parameter, absl::string_view bytes);

  // True when there is a row to read, false at the end.
  absl::StatusOr<bool> Step();

  // Runs a statement that gives no rows, then resets it.
  absl::Status Run();

  // Columns count from 0; valid until the next Step or Reset.
  int64_t Int(int column) const;
  std::string Text(int column) const;

  void Reset();

 private:
  friend class SqliteDatabase;
  struct Finalizer {
    void operator()(sqlite3_stmt* handle) const;
  };
  SqliteStatement(const std::string& path, sqlite3_stmt* handle) : path_(path), handle_(handle) {}

  std::string path_;
  std::unique_ptr<sqlite3_stmt, Finalizer> handle_;
};

// Begins a write transaction; rolls it back unless Commit() was called and worked.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteDatabase& database);
  ~SqliteTransaction();
  SqliteTransaction(SqliteTransaction&& other) noexcept;
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;

  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase& database) : database_(&database) {}
  SqliteDatabase* database_;
};

}  // namespace autosp
