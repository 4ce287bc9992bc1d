#include "checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "checkpoint/checkpoint_reader.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "step-";
constexpr char kHiddenPrefix[] = ".step-";

std::optional<int64_t> StepOf(absl::string_view name) {
  int64_t step = 0;
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::SimpleAtoi(name, &step)) return std::nullopt;
  return step >= 0 && CheckpointName(step) == absl::StrCat(kPrefix, name) ? std::optional(step)
                                                                          : std::nullopt;
}

// What cannot be removed takes room, and hurts nobody else.
void TryToRemove(const std::string& path) {
  const absl::Status removed = RemoveTree(path);
  if (!removed.ok()) LogWarning(removed.message());
}

absl::Status CheckSize(const std::string& checkpoint, const ManifestFile& file) {
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(JoinPath(checkpoint, file.name)));
  return size_bytes == file.size_bytes ? absl::OkStatus() : DataLoss(file.name, " is cut off");
}

absl::Status CheckLength(const std::string& manifest_text) {
  if (static_cast<int64_t>(manifest_text.size()) <= kMaxManifestBytes) return absl::OkStatus();
  return ResourceExhausted("the manifest has ", manifest_text.size(), " bytes, and is read up to ",
                           kMaxManifestBytes, "; fewer ranks write a shorter one");
}

}  // namespace

std::string CheckpointName(int64_t step) { return absl::StrFormat("%s%08d", kPrefix, step); }

std::string ShardName(int64_t rank) { return absl::StrFormat("rank-%05d.safetensors", rank); }

bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsInvalidArgument(status) || absl::IsNotFound(status);
}

absl::StatusOr<std::vector<std::string>> ListCheckpoints(const std::string& path) {
  const absl::StatusOr<std::vector<std::string>> names = ListFolder(path);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  RETURN_IF_ERROR(names.status());
  if (std::ranges::count(*names, kManifestName) > 0) return std::vector<std::string>{path};
  std::vector<int64_t> steps;
  for (const std::string& name : *names) {
    if (const auto step = StepOf(name)) steps.push_back(*step);
  }
  std::ranges::sort(steps, std::greater<>());
  std::vector<std::string> found;
  for (const int64_t step : steps) found.push_back(JoinPath(path, CheckpointName(step)));
  return found;
}

absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& checkpoint) {
  const std::string path = JoinPath(checkpoint, kManifestName);
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(path));
  if (size_bytes > kMaxManifestBytes) {
    return DataLoss(path, " has ", size_bytes, " bytes; a manifest has at most ",
                    kMaxManifestBytes);
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  absl::StatusOr<CheckpointManifest> manifest = ParseManifest(text);
  if (!manifest.ok()) return WithContext(manifest.status(), path);
  return manifest;
}

absl::Status CheckFolderTakesFiles(const std::string& directory) {
  absl::Status status = MakeDirectories(directory);
  if (status.ok()) status = CheckWritable(directory);
  const bool stays = absl::IsPermissionDenied(status) || absl::IsInvalidArgument(status);
  return stays ? status : absl::OkStatus();
}

absl::Status CheckManifestLength(CheckpointManifest manifest, int64_t num_files) {
  // Of the longest that they can be.
  constexpr int64_t kLongest = std::numeric_limits<int64_t>::max();
  manifest.step = kLongest;
  manifest.num_sequences = kLongest;
  manifest.files.assign(
      static_cast<size_t>(num_files),
      {.name = ShardName(num_files), .size_bytes = kLongest, .sha256 = Sha256Hex("")});
  return CheckLength(FormatManifest(manifest));
}

CheckpointFolder::CheckpointFolder(std::string directory, std::string job_id, int64_t generation)
    : directory_(std::move(directory)), job_id_(std::move(job_id)), generation_(generation) {}

std::string CheckpointFolder::Path(int64_t step) const {
  return JoinPath(directory_, CheckpointName(step));
}

std::string CheckpointFolder::PartialPath(int64_t step) const { return Hidden(step, "partial"); }

std::string CheckpointFolder::Hidden(int64_t step, const char* what) const {
  return JoinPath(directory_, absl::StrCat(".", CheckpointName(step), ".", job_id_, "-",
                                           generation_, ".", what));
}

absl::Status CheckpointFolder::BeginPartial(int64_t step) const {
  return MakeDirectories(PartialPath(step));
}

absl::Status CheckpointFolder::CheckMayWrite(int64_t step, FileCheck check_file) const {
  const std::string path = Path(step);
  const absl::StatusOr<CheckpointManifest> found = ReadManifest(path);
  if (!found.ok()) return IsDamage(found.status()) ? absl::OkStatus() : found.status();
  if (found->job_id == job_id_) {
    if (found->generation <= generation_) return absl::OkStatus();
    return FailedPrecondition(path, " is of attempt ", found->generation,
                              " of the job, and this is ", "attempt ", generation_,
                              ", which others think has ended");
  }
  for (const ManifestFile& file : found->files) {
    const absl::Status status = check_file(path, file);
    if (!status.ok()) return IsDamage(status) ? absl::OkStatus() : status;
  }
  return FailedPrecondition(path, " is a checkpoint of job ", found->job_id,
                            "; remove it, or name another checkpoint.directory");
}

absl::Status CheckpointFolder::CheckMayWriteAll(
    absl::FunctionRef<bool(int64_t step)> is_due) const {
  // What cannot be read now is looked at again when its time comes.
  const absl::StatusOr<std::vector<std::string>> all = ListCheckpoints(directory_);
  if (!all.ok()) return absl::OkStatus();
  for (const std::string& path : *all) {
    const std::optional<int64_t> step = StepOf(fs::path(path).filename().string());
    if (!step || !is_due(*step)) continue;
    const absl::Status status = CheckMayWrite(*step, CheckSize);
    if (absl::IsFailedPrecondition(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckpointFolder::Commit(const CheckpointManifest& manifest) const {
  RETURN_IF_ERROR(CheckMayWrite(
      manifest.step, [](const auto& path, const auto& file) { return CheckFile(path, file); }));
  const std::string partial = PartialPath(manifest.step);
  const std::string text = FormatManifest(manifest);
  RETURN_IF_ERROR(CheckLength(text));
  RETURN_IF_ERROR(WriteFileAtomically(JoinPath(partial, kManifestName), text));
  const std::string aside = Hidden(manifest.step, "replaced");
  TryToRemove(aside);
  RETURN_IF_ERROR(RenameOver(partial, Path(manifest.step), aside));
  RETURN_IF_ERROR(SyncPath(directory_));
  TryToRemove(aside);
  return absl::OkStatus();
}

void CheckpointFolder::RemovePartial(int64_t step) const { TryToRemove(PartialPath(step)); }

void CheckpointFolder::RemoveLeftovers() const {
  const absl::StatusOr<std::vector<std::string>> names = ListFolder(directory_);
  if (!names.ok()) return;
  const std::string of_job = absl::StrCat(".", job_id_, "-");
  const std::string of_attempt = absl::StrCat(of_job, generation_, ".");
  for (const std::string& name : *names) {
    const bool is_left = absl::StartsWith(name, kHiddenPrefix) && absl::StrContains(name, of_job) &&
                         !absl::StrContains(name, of_attempt);
    if (is_left) TryToRemove(JoinPath(directory_, name));
  }
}

void CheckpointFolder::Prune(int64_t keep) const {
  const absl::StatusOr<std::vector<std::string>> all = ListCheckpoints(directory_);
  if (!all.ok()) return;
  // Of another job, or unreadable: not ours to remove.
  std::vector<std::pair<int64_t, int64_t>> own;  // generation, step
  for (const std::string& path : *all) {
    const absl::StatusOr<CheckpointManifest> manifest = ReadManifest(path);
    if (!manifest.ok() || manifest->job_id != job_id_) continue;
    if (Path(manifest->step) == path) own.emplace_back(manifest->generation, manifest->step);
  }
  std::ranges::sort(own, std::greater<>());
  for (size_t i = static_cast<size_t>(keep); i < own.size(); ++i) {
    const int64_t step = own[i].second;
    const std::string gone = Hidden(step, "removed");
    TryToRemove(gone);
    const absl::Status renamed = RenamePath(Path(step), gone);
    if (!renamed.ok()) LogWarning(renamed.message());
    if (renamed.ok()) TryToRemove(gone);
  }
}

}  // namespace autosp
