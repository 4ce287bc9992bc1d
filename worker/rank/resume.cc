#include "worker/rank/resume.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_reader.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/checkpoint/shard_snapshot.h"
#include "worker/rank/agreement.h"
#include "worker/rank/checkpoint_settings.h"
#include "worker/rank/held_tensor.h"

namespace autosp {
namespace {

// What ranks tell each other about a checkpoint; what went wrong follows all but the first.
constexpr char kGood[] = "good";
constexpr char kDamaged[] = "damaged: ";
constexpr char kRefused[] = "refused: ";
constexpr char kUnread[] = "unread: ";
constexpr char kMissing[] = "missing: ";      // the manifest
constexpr char kForeign[] = "foreign";        // of another job, where only this one's count
constexpr char kForbidden[] = "forbidden: ";  // the manifest, where only this job's count
constexpr char kNotShared[] =
    ", where rank 0 has it: checkpoints belong in a folder that all nodes share, under one name";
constexpr char kPermit[] =
    "; let the user of the agent read it, or name another checkpoint.directory or "
    "checkpoint.resume";

// Ends the attempt, and the next one tries again. To go on from an older one instead would do the
// work of hours again, and the newer one would go as soon as others were written.
absl::Status Unread(absl::string_view why) {
  return Unavailable(why,
                     "; it may be whole, so a restart tries it again; remove it to begin at "
                     "an older one");
}

// An error of reading as the end of the attempt: whether another one may read what this one cannot.
absl::Status AsEnd(const absl::Status& status) {
  if (status.ok() || IsDamage(status)) return status;
  if (absl::IsPermissionDenied(status)) return PermissionDenied(status.message(), kPermit);
  return Unread(status.message());
}

enum class Verdict { kGood, kDamaged, kRefused, kUnread };

struct Finding {
  Verdict verdict = Verdict::kGood;
  std::string why = {};
};

Finding FindingFrom(absl::string_view word, bool rank_0_has_it) {
  if (absl::ConsumePrefix(&word, kMissing)) {
    // What rank 0 has is there: a node that does not see it may not have mounted the disk.
    if (rank_0_has_it) return {Verdict::kUnread, absl::StrCat(word, kNotShared)};
    return {Verdict::kDamaged, std::string(word)};
  }
  if (absl::ConsumePrefix(&word, kDamaged)) return {Verdict::kDamaged, std::string(word)};
  const bool is_refused =
      absl::ConsumePrefix(&word, kRefused) || absl::ConsumePrefix(&word, kForbidden);
  if (is_refused) return {Verdict::kRefused, std::string(word)};
  if (absl::ConsumePrefix(&word, kUnread)) return {Verdict::kUnread, std::string(word)};
  return {};
}

struct Candidates {
  std::vector<std::string> paths;  // newest first
  bool only_own = false;           // of this job
};

// Rank 0 lists; what others may see there later or earlier does not count.
absl::StatusOr<std::vector<std::string>> List(const RankConfig& config, const std::string& path) {
  if (config.rank != 0) return std::vector<std::string>();
  absl::StatusOr<std::vector<std::string>> paths = ListCheckpoints(path);
  RETURN_IF_ERROR(AsEnd(paths.status()));
  return paths;
}

absl::StatusOr<Candidates> CandidatesOf(const RankConfig& config, const JobSpec& job) {
  const CheckpointSpec& spec = job.checkpoint;
  Candidates candidates;
  // A restart goes on from what the job itself has written, whatever it began with.
  candidates.only_own = spec.resume != kResumeAuto;
  const bool may_have_own = config.is_restart || !candidates.only_own;
  if (spec.every_steps > 0 && may_have_own) {
    ASSIGN_OR_RETURN(candidates.paths, List(config, CheckpointDirectory(job)));
  }
  return candidates;
}

class Resumer {
 public:
  Resumer(const RankConfig& config, const JobSpec& job, const CheckpointManifest& wanted,
          Collectives* world, const Executor& executor, RankReporter& reporter)
      : config_(config),
        job_(job),
        wanted_(wanted),
        world_(world),
        executor_(executor),
        reporter_(reporter) {}

  absl::StatusOr<int64_t> Run() {
    ASSIGN_OR_RETURN(const Candidates own, CandidatesOf(config_, job_));
    ASSIGN_OR_RETURN(int64_t step, Try(own.paths, own.only_own));
    if (step == 0 && IsResumePath(job_.checkpoint.resume)) {
      ASSIGN_OR_RETURN(const std::vector<std::string> paths, List(config_, job_.checkpoint.resume));
      ASSIGN_OR_RETURN(step, Try(paths, /*only_own=*/false));
      if (step == 0) {
        return NotFound("checkpoint.resume: ", job_.checkpoint.resume,
                        " has no checkpoint that can be read", skipped_);
      }
    }
    if (step == 0 && !skipped_.empty()) {
      Report(CheckpointEvent::kResumed, 0, "", absl::StrCat("no checkpoint can be read", skipped_));
    } else if (step == 0 && config_.is_restart) {
      Report(CheckpointEvent::kResumed, 0, "", "there is no checkpoint");
    }
    return step;
  }

 private:
  absl::StatusOr<int64_t> Try(const std::vector<std::string>& paths, bool only_own) {
    for (size_t i = 0;; ++i) {
      const bool is_listed = config_.rank == 0 && i < paths.size();
      ASSIGN_OR_RETURN(const std::vector<std::string> listed,
                       GatherTexts(world_, is_listed ? paths[i] : ""));
      const std::string& path = listed[0];
      if (path.empty()) return 0;
      ASSIGN_OR_RETURN(const int64_t step, TryOne(path, only_own), "checkpoint ", path);
      if (step > 0) return step;
    }
  }

  // 0 where it is not to be used.
  absl::StatusOr<int64_t> TryOne(const std::string& path, bool only_own) {
    absl::StatusOr<CheckpointManifest> manifest = ReadManifest(path);
    ASSIGN_OR_RETURN(const std::vector<std::string> words,
                     GatherTexts(world_, Judge(path, manifest, only_own)));
    if (only_own && IsOfAnotherJob(path, words)) return 0;
    const bool rank_0_has_it = !absl::StartsWith(words[0], kMissing);
    std::string unread;
    for (size_t rank = 0; rank < words.size(); ++rank) {
      const Finding finding = FindingFrom(words[rank], rank_0_has_it);
      if (finding.verdict == Verdict::kRefused) return FailedPrecondition(finding.why);
      if (finding.verdict == Verdict::kUnread) {
        unread = absl::StrCat("rank ", rank, ": ", finding.why);
      }
      if (finding.verdict != Verdict::kDamaged) continue;
      absl::StrAppend(&skipped_, "; ", finding.why);
      Report(CheckpointEvent::kSkipped, manifest.ok() ? manifest->step : 0, path, finding.why);
      return 0;
    }
    if (!unread.empty()) return Unread(unread);
    RETURN_IF_ERROR(Load(path, *manifest));
    return manifest->step;
  }

  // One rank that has read the manifest knows. What no rank may read, none of this job has written:
  // it belongs to another user, who shares the folder.
  bool IsOfAnotherJob(const std::string& path, const std::vector<std::string>& words) const {
    if (std::ranges::count(words, kForeign) > 0) return true;
    const bool nobody_may_read = std::ranges::all_of(
        words, [](const std::string& word) { return absl::StartsWith(word, kForbidden); });
    if (nobody_may_read && config_.rank == 0) {
      LogWarning("checkpoint ", path, " is passed over as another job's: ", words[0]);
    }
    return nobody_may_read;
  }

  std::string Judge(const std::string& path, const absl::StatusOr<CheckpointManifest>& manifest,
                    bool only_own) const {
    if (absl::IsNotFound(manifest.status())) {
      return absl::StrCat(kMissing, manifest.status().message());
    }
    if (only_own && absl::IsPermissionDenied(manifest.status())) {
      return absl::StrCat(kForbidden, manifest.status().message(), kPermit);
    }
    if (!manifest.ok()) return Complaint(manifest.status());
    if (only_own && manifest->job_id != config_.job_id) return kForeign;
    const absl::Status matches =
        CheckMatches(*manifest, wanted_.settings, wanted_.tensors, job_.training.steps);
    if (!matches.ok()) return absl::StrCat(kRefused, matches.message());
    for (size_t i = config_.rank; i < manifest->files.size(); i += config_.world_size) {
      const absl::Status status = CheckFile(path, manifest->files[i]);
      if (!status.ok()) return Complaint(status);
    }
    return kGood;
  }

  static std::string Complaint(const absl::Status& status) {
    if (absl::IsPermissionDenied(status)) {
      return absl::StrCat(kRefused, status.message(), kPermit);
    }
    return absl::StrCat(IsDamage(status) ? kDamaged : kUnread, status.message());
  }

  absl::Status Load(const std::string& path, const CheckpointManifest& manifest) {
    const auto start = std::chrono::steady_clock::now();
    const absl::StatusOr<CheckpointReader> checkpoint = CheckpointReader::Open(path, manifest);
    RETURN_IF_ERROR(AsEnd(checkpoint.status()));
    RETURN_IF_ERROR(LoadCheckpoint(
        *checkpoint, [&](const std::string& name) { return HeldBy(executor_, name); }));
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    LogInfo("goes on after step ", manifest.step, " from ", path, ", loaded in ", seconds, " s");
    const bool is_same_plan = manifest.plan_digest == wanted_.plan_digest;
    std::string message = skipped_.empty() ? "" : skipped_.substr(2);
    if (!is_same_plan) {
      absl::StrAppend(&message, message.empty() ? "" : "; ",
                      "it was written under another plan, so sums may be rounded differently");
    }
    Report(CheckpointEvent::kResumed, manifest.step, path, message);
    return absl::OkStatus();
  }

  void Report(CheckpointEvent event, int64_t step, const std::string& path,
              const std::string& message) {
    if (event == CheckpointEvent::kSkipped) LogWarning("checkpoint ", path, ": skipped: ", message);
    if (config_.rank != 0) return;
    reporter_.Checkpoint({.event = event, .step = step, .path = path, .message = message});
  }

  const RankConfig& config_;
  const JobSpec& job_;
  const CheckpointManifest& wanted_;
  Collectives* const world_;
  const Executor& executor_;
  RankReporter& reporter_;
  std::string skipped_;  // "; why" of each damaged one
};

}  // namespace

absl::StatusOr<int64_t> Resume(const RankConfig& config, const JobSpec& job,
                               const CheckpointManifest& wanted, Collectives* world,
                               const Executor& executor, RankReporter& reporter) {
  return Resumer(config, job, wanted, world, executor, reporter).Run();
}

}  // namespace autosp
