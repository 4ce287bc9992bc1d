#include "worker/rank/checkpointer.h"

#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "worker/rank/agreement.h"
#include "worker/rank/held_tensor.h"

namespace autosp {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What a rank tells the others about its file: "ok SIZE SHA256", or what went wrong.
constexpr char kOk[] = "ok";

std::string WordsOf(const absl::StatusOr<ManifestFile>& file) {
  if (!file.ok()) return std::string(file.status().message());
  return absl::StrCat(kOk, " ", file->size_bytes, " ", file->sha256);
}

absl::StatusOr<ManifestFile> FileFromWords(const std::string& words, int64_t rank) {
  const std::vector<std::string> parts = absl::StrSplit(words, ' ');
  ManifestFile file{.name = ShardName(rank)};
  const bool is_ok = parts.size() == 3 && parts[0] == kOk &&
                     absl::SimpleAtoi(parts[1], &file.size_bytes) && IsSha256Hex(parts[2]);
  if (!is_ok) return Unavailable("rank ", rank, ": ", words);
  file.sha256 = parts[2];
  return file;
}

}  // namespace

Checkpointer::Checkpointer(const RankConfig& config, const JobSpec& job,
                           CheckpointManifest manifest, Collectives* world, RankReporter& reporter)
    : rank_(config.rank),
      every_steps_(job.checkpoint.every_steps),
      keep_(job.checkpoint.keep),
      num_steps_(job.training.steps),
      global_batch_size_(job.training.global_batch_size),
      folder_(CheckpointDirectory(job), config.job_id, config.generation),
      manifest_(std::move(manifest)),
      world_(world),
      reporter_(reporter) {
  if (rank_ == 0) folder_.RemoveLeftovers();
}

Checkpointer::~Checkpointer() { Finish(); }

bool Checkpointer::IsDue(int64_t step) const {
  return every_steps_ > 0 && (step % every_steps_ == 0 || step == num_steps_);
}

absl::Status Checkpointer::CheckNamesAfter(int64_t num_done) const {
  if (every_steps_ == 0) return absl::OkStatus();
  return folder_.CheckMayWriteAll(
      [&](int64_t step) { return step > num_done && step <= num_steps_ && IsDue(step); });
}

absl::Status Checkpointer::AfterStep(int64_t step, const Executor& executor) {
  if (!IsDue(step)) return absl::OkStatus();
  Finish();
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(
      ShardSnapshot snapshot,
      ShardSnapshot::Take(manifest_.tensors, rank_,
                          [&](const std::string& name) { return HeldBy(executor, name); }),
      "checkpoint");
  LogInfo("checkpoint of step ", step, ": ", snapshot.num_bytes(), " bytes copied in ",
          SecondsSince(start), " s");
  last_step_ = step;
  writer_ = std::thread([this, step, snapshot = std::move(snapshot)] { Write(step, snapshot); });
  return absl::OkStatus();
}

void Checkpointer::Finish() {
  if (!writer_.joinable()) return;
  const Clock::time_point start = Clock::now();
  writer_.join();
  const double seconds = SecondsSince(start);
  if (seconds > 1) {
    LogInfo("training waited ", seconds, " s until the checkpoint of step ", last_step_,
            " was on disk");
  }
}

void Checkpointer::Write(int64_t step, const ShardSnapshot& snapshot) {
  const Clock::time_point start = Clock::now();
  absl::StatusOr<std::vector<ManifestFile>> files = WriteFiles(step, snapshot);
  if (rank_ != 0) return;
  if (!files.ok() && IsPeerLost(files.status())) {
    // The attempt is over, which the training thread finds out by itself.
    return folder_.RemovePartial(step);
  }
  int64_t num_bytes = 0;
  absl::Status status = files.status();
  if (files.ok()) {
    for (const ManifestFile& file : *files) num_bytes += file.size_bytes;
    status = Commit(step, *std::move(files));
  }
  if (!status.ok()) folder_.RemovePartial(step);
  Report(step, status, num_bytes, SecondsSince(start));
  if (status.ok()) folder_.Prune(keep_);
}

// The files of all ranks, or the first error of any; the same on every rank.
absl::StatusOr<std::vector<ManifestFile>> Checkpointer::WriteFiles(int64_t step,
                                                                   const ShardSnapshot& snapshot) {
  const auto write = [&]() -> absl::StatusOr<ManifestFile> {
    RETURN_IF_ERROR(folder_.BeginPartial(step));
    return snapshot.Write(folder_.PartialPath(step), ShardName(rank_));
  };
  const absl::StatusOr<ManifestFile> own = write();
  const absl::StatusOr<std::vector<std::string>> words = GatherTexts(world_, WordsOf(own));
  if (!words.ok()) return MarkPeerLost(words.status());
  std::vector<ManifestFile> files;
  for (size_t rank = 0; rank < words->size(); ++rank) {
    ASSIGN_OR_RETURN(ManifestFile file, FileFromWords((*words)[rank], static_cast<int64_t>(rank)));
    files.push_back(std::move(file));
  }
  return files;
}

absl::Status Checkpointer::Commit(int64_t step, std::vector<ManifestFile> files) {
  CheckpointManifest manifest = manifest_;
  manifest.step = step;
  manifest.num_sequences = step * global_batch_size_;
  manifest.files = std::move(files);
  return folder_.Commit(manifest);
}

void Checkpointer::Report(int64_t step, const absl::Status& status, int64_t num_bytes,
                          double seconds) {
  CheckpointInfo info{
      .step = step, .path = folder_.Path(step), .size_bytes = num_bytes, .seconds = seconds};
  if (status.ok()) {
    info.event = CheckpointEvent::kCommitted;
    LogInfo("checkpoint of step ", step, ": ", info.path, ", ", num_bytes, " bytes in ", seconds,
            " s");
  } else {
    info.event = CheckpointEvent::kNotWritten;
    info.message = std::string(status.message());
    LogWarning("checkpoint of step ", step, " was not written, training goes on: ", info.message);
  }
  reporter_.Checkpoint(info);
}

}  // namespace autosp
