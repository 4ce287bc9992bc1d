// A folder for the files that this process shares with its children.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// Removed with all that is in it. Only this user may read it.
class TemporaryFolder {
 public:
  // `purpose` becomes part of the name: "autosp-run-XXXXXX".
  static absl::StatusOr<TemporaryFolder> Create(absl::string_view purpose);
  ~TemporaryFolder();
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept;

  const std::string& path() const { return path_; }
  std::string Join(absl::string_view name) const;

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}

  std::string path_;  // empty: moved from
};

}  // namespace autosp
