#include "worker/agent/agent.h"

#include <algorithm>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/agent/agent_errors.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/leftovers.h"
#include "worker/agent/metrics.h"
#include "worker/agent/status_to_proto.h"
#include "worker/agent/step_metrics.h"

namespace autosp::agent {
namespace {

// The threads that clean up and start have nothing to do by themselves.
constexpr absl::Duration kIdleInterval = absl::Minutes(1);

absl::Duration Now() { return Clock::Real().Steady(); }

// Who reads the list from its start meets the cause before its echoes, and those before the ranks
// that were stopped for it.
std::vector<const RankRecord*> CausesFirst(const Attempt& attempt) {
  std::vector<const RankRecord*> ranks;
  for (const RankRecord& rank : attempt.ranks) ranks.push_back(&rank);
  const auto order = [](const RankRecord* rank) {
    if (rank->state == RankState::kLost) return 0;
    if (rank->state != RankState::kFailed) return 3;
    return rank->failure.has_value() && rank->failure->is_peer_lost ? 2 : 1;
  };
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](const RankRecord* a, const RankRecord* b) { return order(a) < order(b); });
  return ranks;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Agent>> Agent::Create(const AgentOptions& options,
                                                     MetricRegistry& registry, ReportQueue& queue) {
  const AttemptFiles files(options.state_dir);
  RETURN_IF_ERROR(MakeDirectories(files.JobsFolder()));
  RETURN_IF_ERROR(CleanUpEarlierLife(files));
  PruneAttemptFolders(files);
  ASSIGN_OR_RETURN(std::unique_ptr<LogPump> pump, LogPump::Start());
  return std::unique_ptr<Agent>(new Agent(options, std::move(pump), registry, queue));
}

Agent::Agent(const AgentOptions& options, std::unique_ptr<LogPump> pump, MetricRegistry& registry,
             ReportQueue& queue)
    : options_(options),
      files_(options.state_dir),
      registry_(registry),
      queue_(queue),
      listeners_(options.rank_listen),
      table_(options.node_id, options.num_devices),
      pump_(std::move(pump)),
      processes_(*pump_) {
  DeclareCounters(registry_);
  RecordTable(table_, registry_);
}

void Agent::Run() {
  std::thread cleaner([this] { cleaning_.Run(kIdleInterval, [] {}); });
  std::thread starter([this] { starting_.Run(kIdleInterval, [] {}); });
  loop_.Run(kTickInterval, [this] { Tick(); });
  for (EventLoop* loop : {&starting_, &cleaning_}) loop->Stop();
  starter.join();
  cleaner.join();
}

void Agent::RequestShutdown(const std::string& reason) {
  loop_.Post([this, reason] {
    const absl::Duration grace = is_shutting_down_ ? absl::ZeroDuration() : kShutdownGrace;
    LogInfo("ending: ", reason);
    is_shutting_down_ = true;
    on_news_();
    Effects effects;
    table_.StopAll(grace, reason, Now(), effects);
    Perform(std::move(effects));
  });
}

absl::Status Agent::Apply(const std::function<absl::Status(absl::Duration now, Effects&)>& change) {
  return loop_.Call([&] {
    Effects effects;
    const absl::Status status = change(Now(), effects);
    Perform(std::move(effects));
    return status;
  });
}

absl::Status Agent::CheckNode(const NodeId& node_id) const {
  if (node_id == options_.node_id) return absl::OkStatus();
  return WithReason(FailedPrecondition("this is the agent of node ", options_.node_id.value(),
                                       ", not of ", node_id.value()),
                    kReasonWrongNode);
}

absl::Status Agent::CheckRunning() const {
  if (!is_shutting_down_) return absl::OkStatus();
  return WithReason(Unavailable("the agent of node ", options_.node_id.value(), " is ending"),
                    kReasonAgentEnding);
}

absl::StatusOr<RankAddresses> Agent::Prepare(const AttemptOrder& order) {
  RETURN_IF_ERROR(CheckNode(order.node_id));
  ASSIGN_OR_RETURN(const ReserveResult result, Reserve(order.reservation));
  if (result == ReserveResult::kRepeated) return OpenListeners(order);
  const AttemptKey key = order.key();
  absl::StatusOr<RankAddresses> addresses = MakeReady(order);
  const absl::Status status = Apply([&](absl::Duration, Effects&) {
    if (addresses.ok()) return table_.FilesReady(key);
    table_.ReservationFailed(key);
    return addresses.status();
  });
  if (!status.ok()) {
    listeners_.Close(key);
    CleanUpAttemptFiles(files_, key);
    return status;
  }
  LogInfo(key.ToString(), ": prepared");
  return addresses;
}

absl::StatusOr<RankAddresses> Agent::MakeReady(const AttemptOrder& order) {
  RETURN_IF_ERROR(PrepareFiles(order));
  return OpenListeners(order);
}

absl::StatusOr<RankAddresses> Agent::OpenListeners(const AttemptOrder& order) {
  if (!order.SpansNodes()) return RankAddresses();
  return listeners_.Open(order.key(), order.reservation.slots);
}

absl::StatusOr<ReserveResult> Agent::Reserve(const Reservation& reservation) {
  Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + kLeaseWait;
  while (true) {
    ReserveResult result = ReserveResult::kReserved;
    const absl::Status status = Apply([&](absl::Duration now, Effects& effects) -> absl::Status {
      RETURN_IF_ERROR(CheckRunning());
      ASSIGN_OR_RETURN(result, table_.Reserve(reservation, now, effects));
      return absl::OkStatus();
    });
    if (status.ok()) return result;
    // The order may overtake the answer that grants the lease: it is on another connection.
    const bool is_early = GetErrorInfo(status).reason == kReasonNoLease;
    if (!is_early || clock.Steady() > deadline) return status;
    clock.Sleep(kTickInterval);
  }
}

absl::Status Agent::PrepareFiles(const AttemptOrder& order) const {
  RETURN_IF_ERROR(CheckAttempt(order, options_.programs, options_.host_memory_bytes));
  const AttemptKey& key = order.key();
  const int num_ranks = static_cast<int>(order.reservation.slots.size());
  const RankPlaces places = {
      .node_id = options_.node_id.value(),
      .program_path = files_.ProgramPath(key),
      .job_yaml_path = files_.JobYamlPath(key),
      .rendezvous_directory = files_.RendezvousFolder(key, order.rendezvous_id),
      .shm_prefix = SharedMemoryPrefix(key),
      .agent_socket_path = options_.socket_path,
      .peers_path = order.SpansNodes() ? files_.PeersPath(key) : "",
      .verification = order.verification ? files_.VerificationPathsOf(key, *order.verification)
                                         : VerificationFilePaths(),
      .num_threads = std::max(1, options_.num_cores / num_ranks)};
  std::vector<std::string> specs;
  for (const RankSlot& slot : order.reservation.slots) {
    ASSIGN_OR_RETURN(std::string spec, ToJson(RankSpecToProto(order, slot, places)));
    specs.push_back(std::move(spec));
  }
  return files_.Write(order, specs);
}

absl::Status Agent::Commit(const NodeId& node_id, const AttemptKey& key, const PeersOrder& peers) {
  RETURN_IF_ERROR(CheckNode(node_id));
  return Apply([&](absl::Duration now, Effects& effects) -> absl::Status {
    RETURN_IF_ERROR(CheckRunning());
    // Before the ranks, who read it when they start.
    const Attempt* attempt = table_.Find(key);
    if (attempt != nullptr && attempt->phase == AttemptPhase::kPrepared) {
      RETURN_IF_ERROR(WritePeers(key, peers));
    }
    return table_.Commit(key, now, effects);
  });
}

absl::Status Agent::WritePeers(const AttemptKey& key, const PeersOrder& peers) const {
  if (peers.addresses.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string json, ToJson(PeersToProto(peers)));
  return WritePeersFile(files_.PeersPath(key), json);
}

absl::Status Agent::Abort(const NodeId& node_id, const AttemptKey& key) {
  RETURN_IF_ERROR(CheckNode(node_id));
  return Apply([&](absl::Duration now, Effects& effects) {
    LogInfo(key.ToString(), ": abort");
    return table_.Abort(key, now, effects);
  });
}

absl::Status Agent::Stop(const NodeId& node_id, const AttemptKey& key, absl::Duration grace,
                         const std::string& reason) {
  RETURN_IF_ERROR(CheckNode(node_id));
  return Apply([&](absl::Duration now, Effects& effects) {
    LogInfo(key.ToString(), ": stop within ", absl::FormatDuration(grace), ": ", reason);
    return table_.Stop(key, grace, reason, now, effects);
  });
}

absl::Status Agent::Hello(const AttemptKey& key, Rank rank, int64_t pid) {
  Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + kStartedPatience;
  while (true) {
    bool is_starting = false;
    const absl::Status status = Apply([&](absl::Duration now, Effects& effects) -> absl::Status {
      is_starting = table_.IsStarting(key, rank);
      if (is_starting) return Unavailable("rank ", rank.value(), " is still being started");
      return table_.Hello(key, rank, pid, now, effects);
    });
    // A rank may speak before the thread that has started it has told the loop.
    if (!is_starting || clock.Steady() > deadline) return status;
    clock.Sleep(kTickInterval / 4);
  }
}

absl::Status Agent::StepDone(const AttemptKey& key, Rank rank, const v1::StepReport& step) {
  return Apply([&](absl::Duration now, Effects&) {
    RETURN_IF_ERROR(table_.StepDone(key, rank, step.step(), now));
    RecordStep(key.job_id, rank, step, Clock::Real().Now(), registry_);
    v1::AttemptRankReport report;
    *report.mutable_attempt() = RefToProto(key);
    report.set_rank(static_cast<int32_t>(rank.value()));
    *report.mutable_step() = step;
    if (!queue_.Push(std::move(report))) registry_.Increment(kReportsDroppedTotal, {});
    return absl::OkStatus();
  });
}

absl::Status Agent::CheckpointDone(const AttemptKey& key, Rank rank,
                                   const v1::CheckpointReport& checkpoint) {
  return Apply([&](absl::Duration now, Effects&) {
    RETURN_IF_ERROR(table_.ShowedSign(key, rank, now));
    v1::AttemptRankReport report;
    *report.mutable_attempt() = RefToProto(key);
    report.set_rank(static_cast<int32_t>(rank.value()));
    *report.mutable_checkpoint() = checkpoint;
    if (!queue_.Push(std::move(report))) registry_.Increment(kReportsDroppedTotal, {});
    return absl::OkStatus();
  });
}

absl::Status Agent::Finished(const AttemptKey& key, Rank rank, RankResult result) {
  return Apply([&](absl::Duration now, Effects& effects) {
    return table_.Finished(key, rank, std::move(result), now, effects);
  });
}

absl::Status Agent::Failed(const AttemptKey& key, Rank rank, RankFailureInfo failure) {
  return Apply([&](absl::Duration now, Effects& effects) {
    return table_.Failed(key, rank, std::move(failure), now, effects);
  });
}

void Agent::StreamClosed(const AttemptKey& key, Rank rank) {
  loop_.Post([this, key, rank] {
    Effects effects;
    table_.StreamClosed(key, rank, Now(), effects);
    Perform(std::move(effects));
  });
}

absl::StatusOr<std::vector<v1::AttemptStatus>> Agent::Statuses() {
  return loop_.Call([this]() -> absl::StatusOr<std::vector<v1::AttemptStatus>> {
    std::vector<v1::AttemptStatus> statuses;
    for (const auto& [key, attempt] : table_.attempts()) {
      v1::AttemptStatus status = AttemptToProto(attempt);
      // The end must not overtake the last steps: it is said once everything else has arrived.
      if (status.phase() == v1::AttemptStatus::PHASE_ENDED &&
          queue_.HasReportOf(status.attempt())) {
        status.set_phase(v1::AttemptStatus::PHASE_RUNNING);
      }
      for (const RankRecord* rank : CausesFirst(attempt))
        *status.add_ranks() = StatusOf(key, *rank);
      statuses.push_back(std::move(status));
    }
    return statuses;
  });
}

void Agent::RenewLease(absl::Duration sent_at, absl::Duration lease) {
  loop_.Post([this, sent_at, lease] { table_.RenewLease(sent_at, lease); });
}

void Agent::StopListed(std::vector<AttemptKey> keys) {
  loop_.Post([this, keys = std::move(keys)] {
    Effects effects;
    for (const AttemptKey& key : keys) {
      table_.StopListed(key, kListedStopGrace, "the coordinator has no use for it", Now(), effects);
    }
    Perform(std::move(effects));
  });
}

void Agent::Release(std::vector<AttemptKey> keys) {
  loop_.Post([this, keys = std::move(keys)] {
    Effects effects;
    for (const AttemptKey& key : keys) table_.Release(key, effects);
    Perform(std::move(effects));
  });
}

bool Agent::IsLogGrowing(const AttemptKey& key, Rank rank) {
  return loop_
      .Call([&]() -> absl::Status {
        const Attempt* attempt = table_.Find(key);
        const RankRecord* record = attempt == nullptr ? nullptr : attempt->FindRank(rank);
        if (record != nullptr && !record->is_settled) return absl::OkStatus();
        return NotFound("the rank has ended");
      })
      .ok();
}

}  // namespace autosp::agent
