// Before the first attempt that trains: does the plan compute what the model does on one device?
//
// A verification is an attempt like any other, of one rank on one node, so that generations,
// leases, lists and stops need no rules of their own. What is lost with a node is tried again; a
// plan that differs ends the job.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/count_noun.h"
#include "server/coordinator/failure.h"

namespace autosp {

bool Coordinator::MayNeedVerification(const Job& job) {
  return !job.is_verified && !job.request->verification_digest.empty();
}

bool Coordinator::NeedsVerification(Job& job) {
  if (!MayNeedVerification(job)) return false;
  if (job.request->verify_always) return true;
  const std::string& digest = job.request->verification_digest;
  const std::optional<JobId> known = finished_->FindVerified(digest);
  if (!known) return true;
  job.is_verified = true;
  NoteVerification(job, {.outcome = VerificationNote::Outcome::kKnown, .known_from = *known});
  return false;
}

void Coordinator::NoteVerification(Job& job, VerificationNote note) {
  note.digest = job.request->verification_digest;
  job.verification = note;
  Record(job, std::move(note));
}

// Requires: the job is verifying, and its rank has finished.
void Coordinator::FinishVerification(Job& job) {
  Attempt& attempt = *job.attempt;
  if (!attempt.verification) {
    RankStatus status{.rank = Rank(0), .state = RankState::kFailed};
    status.exit.emplace().message = "it has finished without a result";
    return BeginStop(job, AttemptOutcome::kFault, RankCause(attempt, status));
  }
  const VerificationResult result = *attempt.verification;
  if (!result.is_equal) {
    NoteVerification(job, {.outcome = VerificationNote::Outcome::kDiffers, .result = result});
    return BeginStop(job, AttemptOutcome::kFault, PlanDiffersCause(attempt, result));
  }
  NoteVerification(job, {.outcome = VerificationNote::Outcome::kEqual, .result = result});
  job.is_verified = true;
  job.num_failed_starts = 0;
  attempt.outcome = AttemptOutcome::kFinished;
  Move(job, JobTrigger::kAllRanksFinished,
       absl::StrCat("the plan is verified: loss and ", CountNoun(result.num_gradients, "gradient"),
                    " are those of the model on one device (", result.WorstText(), ")"));
  // It is about to exit by itself. Only if it does not is it stopped, by the resend.
  attempt.resend_at = now_ + options_.stop_grace;
  EndAttemptIfGone(job);
}

// Requires: nothing of the verification is left.
void Coordinator::EndVerification(Job& job) {
  Move(job, JobTrigger::kStoppedAfterVerification,
       absl::StrFormat("the plan is verified, in %.2g s", job.verification->result.seconds));
}

}  // namespace autosp
