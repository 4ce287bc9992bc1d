// A folder that comes into being whole: it is filled under a hidden name beside its own, and
// renamed when all is in it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file.h"

namespace autosp {

// Whether a folder may come into being at `path`: nothing is there, or an empty folder. With
// `overwrite` also a folder with the weights of a model and no folders, so that neither a home nor
// checkpoints are lost by a slip. The error says what to do.
absl::Status CheckReplaceable(const std::string& path, bool overwrite);

// Thread-compatible.
class PartialFolder {
 public:
  // Makes ".NAME.partial" beside `path`, and what is missing above it. What a process that was
  // killed has left there is removed; ALREADY_EXISTS while another one fills it.
  static absl::StatusOr<PartialFolder> Create(const std::string& path);
  PartialFolder(PartialFolder&&) = default;
  // Removes it with all that is in it, unless it was committed.
  ~PartialFolder();

  const std::string& path() const { return partial_; }

  // Gives it its name, in place of what CheckReplaceable allows. Requires: its files are synced.
  absl::Status Commit(bool overwrite);

 private:
  PartialFolder() = default;

  std::string target_;
  std::string partial_;
  UniqueFd lock_;  // of the folder itself, so that the lock ends with the process
};

}  // namespace autosp
