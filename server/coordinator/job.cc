#include "server/coordinator/job.h"

#include <algorithm>

#include "common/check.h"

namespace autosp {

NodePart* Attempt::FindNode(const NodeId& node) {
  auto part = std::ranges::find(nodes, node, &NodePart::node);
  return part == nodes.end() ? nullptr : &*part;
}

const NodePart* Attempt::FindNode(const NodeId& node) const {
  auto part = std::ranges::find(nodes, node, &NodePart::node);
  return part == nodes.end() ? nullptr : &*part;
}

bool Attempt::IsGone() const {
  return std::ranges::all_of(nodes, [](const NodePart& n) { return n.phase == NodePhase::kEnded; });
}

bool Attempt::IsAttached() const {
  return std::ranges::all_of(nodes, [](const NodePart& n) { return n.is_attached; });
}

const NodeId* AttemptPlace::NodeOf(Rank rank) const {
  int64_t left = rank.value();
  for (const Share& share : shares) {
    if (left < share.num_ranks) return &share.node;
    left -= share.num_ranks;
  }
  return nullptr;
}

const AttemptPlace* Job::FindPlace(Generation of) const {
  auto place = std::ranges::find(places, of, &AttemptPlace::generation);
  return place == places.end() ? nullptr : &*place;
}

void Job::NotePlace(Generation of, const std::vector<RankPart>& of_ranks) {
  AttemptPlace& place = places.emplace_back();
  place.generation = of;
  for (const RankPart& rank : of_ranks) {
    const bool is_next = place.shares.empty() || place.shares.back().node != rank.node;
    if (is_next) place.shares.push_back({.node = rank.node});
    ++place.shares.back().num_ranks;
  }
  if (places.size() > kMaxPlaces) places.erase(places.begin());
}

absl::string_view ToString(CheckpointNote::Event event) {
  switch (event) {
    case CheckpointNote::Event::kCommitted:
      return "committed";
    case CheckpointNote::Event::kNotWritten:
      return "not_written";
    case CheckpointNote::Event::kResumed:
      return "resumed";
    case CheckpointNote::Event::kSkipped:
      return "skipped";
  }
  AUTOSP_CHECK(false, "checkpoint event ", static_cast<int>(event));
}

absl::string_view ToString(VerificationNote::Outcome outcome) {
  switch (outcome) {
    case VerificationNote::Outcome::kEqual:
      return "equal";
    case VerificationNote::Outcome::kDiffers:
      return "differs";
    case VerificationNote::Outcome::kNoResult:
      return "no_result";
    case VerificationNote::Outcome::kKnown:
      return "known";
  }
  AUTOSP_CHECK(false, "verification outcome ", static_cast<int>(outcome));
}

absl::string_view ToString(AttemptKind kind) {
  switch (kind) {
    case AttemptKind::kTraining:
      return "training";
    case AttemptKind::kVerification:
      return "verification";
  }
  AUTOSP_CHECK(false, "attempt kind ", static_cast<int>(kind));
}

absl::string_view ToString(NodePhase phase) {
  switch (phase) {
    case NodePhase::kPreparing:
      return "preparing";
    case NodePhase::kPrepared:
      return "prepared";
    case NodePhase::kCommitting:
      return "committing";
    case NodePhase::kCommitted:
      return "committed";
    case NodePhase::kEnded:
      return "ended";
  }
  AUTOSP_CHECK(false, "node phase ", static_cast<int>(phase));
}

absl::string_view ToString(AttemptOutcome outcome) {
  switch (outcome) {
    case AttemptOutcome::kUndecided:
      return "undecided";
    case AttemptOutcome::kRetryStart:
      return "retry_start";
    case AttemptOutcome::kFinished:
      return "finished";
    case AttemptOutcome::kFault:
      return "fault";
    case AttemptOutcome::kCancelled:
      return "cancelled";
  }
  AUTOSP_CHECK(false, "attempt outcome ", static_cast<int>(outcome));
}

absl::string_view ToString(FailureCause::Kind kind) {
  switch (kind) {
    case FailureCause::Kind::kRankLost:
      return "rank_lost";
    case FailureCause::Kind::kRankFailed:
      return "rank_failed";
    case FailureCause::Kind::kAgentLost:
      return "agent_lost";
    case FailureCause::Kind::kHung:
      return "hung";
    case FailureCause::Kind::kStartFailed:
      return "start_failed";
    case FailureCause::Kind::kCancelled:
      return "cancelled";
    case FailureCause::Kind::kNotReattached:
      return "not_reattached";
    case FailureCause::Kind::kPlanDiffers:
      return "plan_differs";
  }
  AUTOSP_CHECK(false, "failure kind ", static_cast<int>(kind));
}

absl::string_view ToString(PendingReason::Code code) {
  switch (code) {
    case PendingReason::Code::kDevices:
      return "waiting_for_devices";
    case PendingReason::Code::kNodes:
      return "waiting_for_nodes";
    case PendingReason::Code::kBehindJob:
      return "waiting_behind_job";
    case PendingReason::Code::kReattach:
      return "waiting_for_reattach";
    case PendingReason::Code::kRetryStart:
      return "waiting_to_retry_start";
    case PendingReason::Code::kRestart:
      return "waiting_to_restart";
  }
  AUTOSP_CHECK(false, "pending code ", static_cast<int>(code));
}

}  // namespace autosp
