#include "server/service/agent_from_proto.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/tcp.h"
#include "proto/rank_state_to_proto.h"
#include "proto/verification_to_proto.h"
#include "server/service/limits.h"

namespace autosp {
namespace {

constexpr size_t kMaxNameBytes = 200;

template <typename... Parts>
absl::Status Refuse(absl::string_view field, const Parts&... parts) {
  return WithErrorInfo(InvalidArgument(field, ": ", parts...),
                       {.reason = "INVALID_REQUEST", .subject = std::string(field)});
}

template <typename Id>
absl::StatusOr<Id> ParseId(absl::string_view field, const std::string& text) {
  absl::StatusOr<Id> id = Id::Parse(text);
  if (!id.ok()) return Refuse(field, id.status().message());
  return id;
}

// A duration that can be added up.
double SecondsFrom(double seconds) { return std::isfinite(seconds) ? std::max(seconds, 0.0) : 0; }

// At most `limit` bytes, without half a character at the end: protobuf refuses broken UTF-8.
std::string Cut(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return text.substr(0, limit);
}

absl::StatusOr<std::string> NameFrom(absl::string_view field, const std::string& text) {
  if (text.empty()) return Refuse(field, "it is empty");
  if (text.size() > kMaxNameBytes) {
    return Refuse(field, text.size(), " bytes are above the limit of ", kMaxNameBytes);
  }
  return text;
}

absl::StatusOr<AttemptId> AttemptFrom(const v1::AttemptRef& proto) {
  AttemptId attempt;
  ASSIGN_OR_RETURN(attempt.job, ParseId<JobId>("attempt.job_id", proto.job_id()));
  if (proto.generation() < 1 || proto.generation() > kMaxGeneration) {
    return Refuse("attempt.generation", proto.generation(), " is not within 1 and ",
                  kMaxGeneration);
  }
  attempt.generation = Generation(proto.generation());
  return attempt;
}

// The last ones.
template <typename List>
std::vector<std::string> LogLinesFrom(const List& protos) {
  std::vector<std::string> lines;
  const int first = std::max(0, protos.size() - kMaxLogLines);
  for (int i = first; i < protos.size(); ++i) {
    lines.push_back(Cut(protos.Get(i), kMaxLogLineBytes));
  }
  return lines;
}

RankExit ExitFrom(const v1::RankExit& proto) {
  RankExit exit;
  exit.exit_code = proto.exit_code();
  exit.signal_number = proto.signal_number();
  exit.log_lines = LogLinesFrom(proto.log_lines());
  if (proto.has_failure()) {
    exit.has_failure = true;
    exit.status_code = proto.failure().status_code();
    exit.message = Cut(proto.failure().message(), kMaxRankMessageBytes);
    exit.instruction = Cut(proto.failure().instruction(), kMaxRankMessageBytes);
    exit.step = proto.failure().step();
    exit.is_peer_lost = proto.failure().is_peer_lost();
  }
  return exit;
}

absl::StatusOr<Rank> RankFrom(int32_t rank) {
  if (rank < 0 || rank >= kMaxWorldSize) {
    return Refuse("rank", rank, " is not within 0 and ", kMaxWorldSize - 1);
  }
  return Rank(rank);
}

absl::StatusOr<RankStatus> RankStatusFrom(const v1::RankStatus& proto) {
  RankStatus status;
  ASSIGN_OR_RETURN(status.rank, RankFrom(proto.rank()));
  const std::optional<RankState> state = RankStateFromProto(proto.state());
  if (!state) return Refuse("rank.state", static_cast<int>(proto.state()), " is no rank state");
  status.state = *state;
  status.pid = proto.pid();
  status.last_step = proto.last_step();
  if (proto.has_exit()) status.exit = ExitFrom(proto.exit());
  status.log_lines = LogLinesFrom(proto.log_lines());
  if (proto.outputs_size() > kMaxOutputsPerRank) {
    return Refuse("outputs", proto.outputs_size(), " are above the limit of ", kMaxOutputsPerRank);
  }
  for (const v1::OutputFile& output : proto.outputs()) {
    status.outputs.push_back({.kind = Cut(output.kind(), kMaxNameBytes),
                              .path = Cut(output.path(), kMaxUriBytes),
                              .sha256 = Cut(output.sha256(), kMaxNameBytes),
                              .size_bytes = output.size_bytes()});
  }
  if (proto.has_verification()) {
    VerificationResult& result = status.verification.emplace();
    result = VerificationFromProto(proto.verification());
    result.worst = Cut(result.worst, kMaxReasonBytes);
    result.num_gradients = std::max<int64_t>(result.num_gradients, 0);
    result.seconds = SecondsFrom(result.seconds);
  }
  return status;
}

absl::StatusOr<AttemptStatus::Phase> PhaseFrom(v1::AttemptStatus::Phase phase) {
  switch (phase) {
    case v1::AttemptStatus::PHASE_PREPARED:
      return AttemptStatus::Phase::kPrepared;
    case v1::AttemptStatus::PHASE_RUNNING:
      return AttemptStatus::Phase::kRunning;
    case v1::AttemptStatus::PHASE_ENDED:
      return AttemptStatus::Phase::kEnded;
    default:
      return Refuse("attempt.phase", static_cast<int>(phase), " is no phase");
  }
}

template <typename List>
absl::StatusOr<std::vector<AttemptStatus>> AttemptsFrom(const List& protos) {
  if (protos.size() > kMaxAttemptsPerAgent) {
    return Refuse("attempts", protos.size(), " are above the limit of ", kMaxAttemptsPerAgent);
  }
  std::vector<AttemptStatus> attempts;
  for (const v1::AttemptStatus& proto : protos) {
    AttemptStatus status;
    ASSIGN_OR_RETURN(status.attempt, AttemptFrom(proto.attempt()));
    ASSIGN_OR_RETURN(status.phase, PhaseFrom(proto.phase()));
    status.end_reason = Cut(proto.end_reason(), kMaxReasonBytes);
    for (const v1::RankStatus& rank : proto.ranks()) {
      ASSIGN_OR_RETURN(RankStatus rank_status, RankStatusFrom(rank));
      if (rank_status.state == RankState::kStopped) rank_status.stop_reason = status.end_reason;
      status.ranks.push_back(std::move(rank_status));
    }
    attempts.push_back(std::move(status));
  }
  return attempts;
}

absl::StatusOr<StepReport> StepFrom(const v1::StepReport& proto) {
  if (proto.step() < 1 || proto.step() > kMaxStep) {
    return Refuse("step", proto.step(), " is not within 1 and ", kMaxStep);
  }
  if (proto.memory_size() > kMaxUsesPerStep || proto.collectives_size() > kMaxUsesPerStep) {
    return Refuse("step", "more than ", kMaxUsesPerStep, " accounts or collectives");
  }
  StepReport report;
  report.step = proto.step();
  report.loss = proto.loss();
  report.tokens = std::clamp<int64_t>(proto.tokens(), 0, kMaxTokensPerStep);
  report.step_seconds = SecondsFrom(proto.step_seconds());
  report.learning_rate = proto.learning_rate();
  if (proto.has_grad_norm()) report.grad_norm = proto.grad_norm();
  if (proto.has_validation_loss()) report.validation_loss = proto.validation_loss();
  for (const v1::MemoryUse& use : proto.memory()) {
    report.memory.push_back({.account = Cut(use.account(), kMaxNameBytes),
                             .current_bytes = use.current_bytes(),
                             .peak_bytes = use.peak_bytes()});
  }
  for (const v1::CollectiveUse& use : proto.collectives()) {
    report.collectives.push_back({.kind = Cut(use.kind(), kMaxNameBytes),
                                  .phase = Cut(use.phase(), kMaxNameBytes),
                                  .calls = use.calls(),
                                  .bytes_received = std::max<int64_t>(use.bytes_received(), 0),
                                  .seconds = SecondsFrom(use.seconds())});
  }
  return report;
}

absl::StatusOr<CheckpointNote::Event> EventFrom(v1::CheckpointReport::Event event) {
  switch (event) {
    case v1::CheckpointReport::EVENT_COMMITTED:
      return CheckpointNote::Event::kCommitted;
    case v1::CheckpointReport::EVENT_NOT_WRITTEN:
      return CheckpointNote::Event::kNotWritten;
    case v1::CheckpointReport::EVENT_RESUMED:
      return CheckpointNote::Event::kResumed;
    case v1::CheckpointReport::EVENT_SKIPPED:
      return CheckpointNote::Event::kSkipped;
    default:
      return Refuse("checkpoint.event", static_cast<int>(event), " is no event");
  }
}

absl::StatusOr<CheckpointNote> CheckpointFrom(const v1::CheckpointReport& proto) {
  if (proto.step() < 0 || proto.step() > kMaxStep) {
    return Refuse("checkpoint.step", proto.step(), " is not within 0 and ", kMaxStep);
  }
  CheckpointNote note;
  ASSIGN_OR_RETURN(note.event, EventFrom(proto.event()));
  note.step = proto.step();
  note.path = Cut(proto.path(), kMaxUriBytes);
  note.message = Cut(proto.message(), kMaxRankMessageBytes);
  note.size_bytes = std::max<int64_t>(proto.size_bytes(), 0);
  note.seconds = SecondsFrom(proto.seconds());
  return note;
}

absl::StatusOr<RankReport> RankReportFrom(const v1::AttemptRankReport& proto) {
  RankReport report;
  ASSIGN_OR_RETURN(report.attempt, AttemptFrom(proto.attempt()));
  ASSIGN_OR_RETURN(report.rank, RankFrom(proto.rank()));
  switch (proto.report_case()) {
    case v1::AttemptRankReport::kStep: {
      ASSIGN_OR_RETURN(report.report, StepFrom(proto.step()));
      return report;
    }
    case v1::AttemptRankReport::kStatus: {
      ASSIGN_OR_RETURN(RankStatus status, RankStatusFrom(proto.status()));
      status.rank = report.rank;
      report.report = std::move(status);
      return report;
    }
    case v1::AttemptRankReport::kCheckpoint: {
      ASSIGN_OR_RETURN(report.report, CheckpointFrom(proto.checkpoint()));
      return report;
    }
    default:
      return Refuse("report", "it is neither a step nor a status nor of a checkpoint");
  }
}

}  // namespace

v1::AttemptRef AttemptToProto(const AttemptId& attempt) {
  v1::AttemptRef proto;
  proto.set_job_id(attempt.job.value());
  proto.set_generation(attempt.generation.value());
  return proto;
}

absl::StatusOr<AgentRegistered> AgentRegisteredFromProto(const v1::RegisterAgentRequest& request) {
  AgentRegistered event;
  AgentInfo& info = event.info;
  ASSIGN_OR_RETURN(info.node, ParseId<NodeId>("node_id", request.node_id()));
  ASSIGN_OR_RETURN(info.instance, NameFrom("agent_instance_id", request.agent_instance_id()));
  ASSIGN_OR_RETURN(info.address, NameFrom("agent_address", request.agent_address()));
  info.version = Cut(request.agent_version(), kMaxNameBytes);
  if (request.device_kind() != v1::DEVICE_KIND_CPU &&
      request.device_kind() != v1::DEVICE_KIND_CUDA) {
    return Refuse("device_kind", static_cast<int>(request.device_kind()), " is unknown");
  }
  info.device_kind = request.device_kind() == v1::DEVICE_KIND_CPU ? "cpu" : "cuda";
  if (request.num_devices() < 1 || request.num_devices() > kMaxDevices) {
    return Refuse("num_devices", request.num_devices(), " is not within 1 and ", kMaxDevices);
  }
  info.num_devices = request.num_devices();
  info.device_memory_bytes = request.device_memory_bytes();
  info.start_ms = request.agent_start_ms();
  ASSIGN_OR_RETURN(event.attempts, AttemptsFrom(request.attempts()));
  event.is_ending = request.is_ending();
  return event;
}

absl::StatusOr<AgentHeartbeat> AgentHeartbeatFromProto(const v1::HeartbeatRequest& request) {
  AgentHeartbeat event;
  ASSIGN_OR_RETURN(event.node, ParseId<NodeId>("node_id", request.node_id()));
  ASSIGN_OR_RETURN(event.instance, NameFrom("agent_instance_id", request.agent_instance_id()));
  event.sequence = request.sequence();
  event.last_answer_token = request.last_answer_token();
  event.is_ending = request.is_ending();
  ASSIGN_OR_RETURN(event.attempts, AttemptsFrom(request.attempts()));
  return event;
}

// The message was on its way for a part of a round trip; which part is not known.
std::optional<ClockDifference> ClockFromProto(const v1::HeartbeatRequest& request, absl::Time now) {
  if (request.sent_time_us() <= 0 || request.last_round_trip_us() <= 0) return std::nullopt;
  const absl::Duration half = absl::Microseconds(request.last_round_trip_us()) / 2;
  return ClockDifference{.ahead = absl::FromUnixMicros(request.sent_time_us()) - now + half,
                         .uncertainty = half};
}

absl::StatusOr<RanksReported> RanksReportedFromProto(const v1::ReportRanksRequest& request) {
  RanksReported event;
  ASSIGN_OR_RETURN(event.node, ParseId<NodeId>("node_id", request.node_id()));
  ASSIGN_OR_RETURN(event.instance, NameFrom("agent_instance_id", request.agent_instance_id()));
  if (request.reports_size() > kMaxReportsPerRequest) {
    return Refuse("reports", request.reports_size(), " are above the limit of ",
                  kMaxReportsPerRequest);
  }
  for (const v1::AttemptRankReport& proto : request.reports()) {
    ASSIGN_OR_RETURN(RankReport report, RankReportFrom(proto));
    event.reports.push_back(std::move(report));
  }
  return event;
}

absl::StatusOr<std::vector<RankAddress>> RankAddressesFromProto(const v1::PrepareResponse& proto,
                                                                const PrepareRanks& command) {
  std::vector<RankAddress> addresses;
  for (const v1::RankAddress& entry : proto.rank_addresses()) {
    const bool is_ordered =
        std::ranges::count(command.ranks, Rank(entry.rank()), &RankAssignment::rank) == 1;
    if (!is_ordered) {
      return Refuse("rank_addresses", "rank ", entry.rank(), " is not of node ", command.node);
    }
    if (entry.address().size() > kMaxNameBytes || !ParseHostPort(entry.address()).ok()) {
      return Refuse("rank_addresses", "the address of rank ", entry.rank(),
                    " is not of the form host:port");
    }
    addresses.push_back({.rank = Rank(entry.rank()), .address = entry.address()});
  }
  for (const RankAssignment& rank : command.ranks) {
    if (std::ranges::count(addresses, rank.rank, &RankAddress::rank) == 1) continue;
    return Refuse("rank_addresses", "the agent of node ", command.node,
                  " says not, or twice, where rank ", rank.rank,
                  " listens; it may be older than jobs over several nodes: update it");
  }
  return addresses;
}

}  // namespace autosp
