// The folder of a job's checkpoints, and how one of them comes and goes.
//
//   step-00000040/                  a checkpoint
//     manifest.json                 see manifest.h
//     rank-00000.safetensors ...    what each rank wrote
//   .step-00000050.job-7xk-2.partial/    what attempt 2 of job-7xk is writing
//
// A checkpoint comes into being by a rename and goes by one, so that under its name it is whole, or
// was damaged from outside. All nodes see the folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"

namespace autosp {

std::string CheckpointName(int64_t step);  // "step-00000040"
std::string ShardName(int64_t rank);       // "rank-00003.safetensors"

// Whether an error of reading a checkpoint says what is wrong with it: it is cut off, changed, or
// parts of it are missing. Any other says only that it cannot be read now, as while a server of
// files does not answer: the checkpoint may be whole.
bool IsDamage(const absl::Status& status);

// The checkpoints in `path`, highest step first, by their names alone; none where it is missing,
// an error where that cannot be told. `path` may also be one checkpoint itself.
absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& path);

// Errors name the file.
absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& checkpoint);

// Before there is anything to write: makes the folder and tries whether files can be made in it.
// PERMISSION_DENIED, INVALID_ARGUMENT: they cannot, and that will not change by itself. Of any
// other error (a full disk) a checkpoint that cannot be written tells.
absl::Status CheckFolderTakesFiles(const std::string& directory);

// RESOURCE_EXHAUSTED where a manifest that says the same of `num_files` files would be too long to
// be read again.
absl::Status CheckManifestLength(CheckpointManifest manifest, int64_t num_files);

// One attempt's view of the folder. Thread-compatible.
class CheckpointFolder {
 public:
  CheckpointFolder(std::string directory, std::string job_id, int64_t generation);

  const std::string& directory() const { return directory_; }
  std::string Path(int64_t step) const;
  std::string PartialPath(int64_t step) const;

  // FAILED_PRECONDITION where a step that is there and due is of another job, and by the sizes of
  // its files whole: Commit would not replace it.
  absl::Status CheckMayWriteAll(absl::FunctionRef<bool(int64_t step)> is_due) const;

  // Makes the folder in which all ranks write.
  absl::Status BeginPartial(int64_t step) const;
  // Adds the manifest and gives it its name. Everything in it is durable then. What had that name
  // is replaced, but for a whole one of another job, all of which is read to know, and one of a
  // later attempt: FAILED_PRECONDITION. Requires: every file of the manifest is there and synced.
  absl::Status Commit(const CheckpointManifest& manifest) const;
  void RemovePartial(int64_t step) const;

  // Removes what earlier attempts of the job have left behind. Requires: none of them runs.
  void RemoveLeftovers() const;
  // Removes this job's checkpoints but the newest `keep`, the last committed being the newest.
  void Prune(int64_t keep) const;

 private:
  using FileCheck =
      absl::FunctionRef<absl::Status(const std::string& checkpoint, const ManifestFile& file)>;

  absl::Status CheckMayWrite(int64_t step, FileCheck check_file) const;
  std::string Hidden(int64_t step, const char* what) const;

  const std::string directory_;
  const std::string job_id_;
  const int64_t generation_;
};

}  // namespace autosp
