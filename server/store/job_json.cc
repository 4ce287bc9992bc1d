#include "server/store/job_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "common/errors.h"

namespace autosp {
namespace {

using Json = nlohmann::json;

// --- Leaves ---

Json ToJson(absl::Time time) {
  if (time == absl::InfiniteFuture()) return "never";
  if (time == absl::InfinitePast()) return nullptr;
  return absl::ToUnixMicros(time);
}

absl::Time TimeFrom(const Json& json) {
  if (json.is_string()) return absl::InfiniteFuture();
  if (json.is_null()) return absl::InfinitePast();
  return absl::FromUnixMicros(json.get<int64_t>());
}

// JSON has no NaN or infinity, and a diverging run has both.
Json ToJson(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : (value > 0 ? "inf" : "-inf");
}

double DoubleFrom(const Json& json) {
  if (!json.is_string()) return json.get<double>();
  const auto text = json.get<std::string>();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  return text == "inf" ? infinity : -infinity;
}

Json ToJson(const std::optional<double>& value) { return value ? ToJson(*value) : Json(nullptr); }

std::optional<double> OptionalDoubleFrom(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return DoubleFrom(json);
}

// The enumerator of that name. Throws like the JSON library: both mean a damaged row.
template <typename Enum>
Enum EnumFrom(const Json& json, Enum last) {
  const auto name = json.get<std::string>();
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    if (ToString(static_cast<Enum>(i)) == name) return static_cast<Enum>(i);
  }
  throw std::invalid_argument("unknown name '" + name + "'");
}

template <typename Enum>
Json NameOf(Enum value) {
  return std::string(ToString(value));
}

// Missing keys leave the default.
template <typename T>
void Get(const Json& json, const char* key, T& out) {
  if (auto found = json.find(key); found != json.end()) out = found->get<T>();
}

const Json& At(const Json& json, const char* key) {
  static const Json* const kNull = new Json(nullptr);
  auto found = json.find(key);
  return found == json.end() ? *kNull : *found;
}

template <typename T, typename Fn>
Json ListToJson(const std::vector<T>& items, Fn to_json) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(to_json(item));
  return list;
}

template <typename T, typename Fn>
std::vector<T> ListFrom(const Json& json, Fn from_json) {
  std::vector<T> items;
  if (json.is_null()) return items;
  for (const Json& item : json) items.push_back(from_json(item));
  return items;
}

// --- Parts of a job ---

Json RequestToJson(const JobRequest& request) {
  return {{"request_id", request.request_id.value()},
          {"request_digest", request.request_digest},
          {"name", request.name},
          {"world_size", request.world_size},
          {"device_kind", request.device_kind},
          {"num_steps", request.num_steps},
          {"tokens_per_step", request.tokens_per_step},
          {"model_flops", request.model_flops},
          {"peak_flops_per_second", request.peak_flops_per_second},
          {"plan_digest", request.plan_digest},
          {"output_directory", request.output_directory},
          {"secret", request.secret},
          {"max_restarts", request.max_restarts},
          {"verification_digest", request.verification_digest},
          {"verify_always", request.verify_always}};
}

JobRequest RequestFrom(const Json& json) {
  JobRequest request;
  request.request_id = RequestId(json.at("request_id").get<std::string>());
  Get(json, "request_digest", request.request_digest);
  Get(json, "name", request.name);
  Get(json, "world_size", request.world_size);
  Get(json, "device_kind", request.device_kind);
  Get(json, "num_steps", request.num_steps);
  Get(json, "tokens_per_step", request.tokens_per_step);
  Get(json, "model_flops", request.model_flops);
  Get(json, "peak_flops_per_second", request.peak_flops_per_second);
  Get(json, "plan_digest", request.plan_digest);
  Get(json, "output_directory", request.output_directory);
  Get(json, "secret", request.secret);
  Get(json, "max_restarts", request.max_restarts);
  Get(json, "verification_digest", request.verification_digest);
  Get(json, "verify_always", request.verify_always);
  return request;
}

Json RankToJson(const RankPart& rank) {
  return {{"node", rank.node.value()},
          {"local_rank", rank.local_rank},
          {"device_index", rank.device_index},
          {"state", NameOf(rank.state)},
          {"pid", rank.pid},
          {"last_step", rank.last_step},
          {"address", rank.address}};
}

RankPart RankFrom(const Json& json) {
  RankPart rank;
  rank.node = NodeId(json.at("node").get<std::string>());
  Get(json, "local_rank", rank.local_rank);
  Get(json, "device_index", rank.device_index);
  rank.state = EnumFrom(json.at("state"), RankState::kStopped);
  Get(json, "pid", rank.pid);
  Get(json, "last_step", rank.last_step);
  Get(json, "address", rank.address);
  return rank;
}

// {"generation": 2, "shares": [["node-a", 8], ["node-b", 4]]}
Json PlaceToJson(const AttemptPlace& place) {
  Json shares = Json::array();
  for (const AttemptPlace::Share& share : place.shares) {
    shares.push_back({share.node.value(), share.num_ranks});
  }
  return {{"generation", place.generation.value()}, {"shares", std::move(shares)}};
}

AttemptPlace PlaceFrom(const Json& json) {
  AttemptPlace place;
  place.generation = Generation(json.at("generation").get<int64_t>());
  for (const Json& share : json.at("shares")) {
    place.shares.push_back(
        {.node = NodeId(share.at(0).get<std::string>()), .num_ranks = share.at(1).get<int64_t>()});
  }
  return place;
}

Json NodeToJson(const NodePart& node) {
  return {{"node", node.node.value()},
          {"agent_instance", node.agent_instance},
          {"phase", NameOf(node.phase)}};
}

NodePart NodeFrom(const Json& json) {
  NodePart node;
  node.node = NodeId(json.at("node").get<std::string>());
  Get(json, "agent_instance", node.agent_instance);
  node.phase = EnumFrom(json.at("phase"), NodePhase::kEnded);
  return node;
}

Json AttemptToJson(const Attempt& attempt) {
  return {{"generation", attempt.generation.value()},
          {"kind", NameOf(attempt.kind)},
          {"outcome", NameOf(attempt.outcome)},
          {"is_committed", attempt.is_committed},
          {"has_begun", attempt.has_begun},
          {"has_stepped", attempt.has_stepped},
          {"checkpoint_noted", attempt.checkpoint_noted},
          {"nodes", ListToJson(attempt.nodes, NodeToJson)},
          {"ranks", ListToJson(attempt.ranks, RankToJson)}};
}

Attempt AttemptFrom(const Json& json) {
  Attempt attempt;
  attempt.generation = Generation(json.at("generation").get<int64_t>());
  if (json.contains("kind")) {
    attempt.kind = EnumFrom(json.at("kind"), AttemptKind::kVerification);
  }
  attempt.outcome = EnumFrom(json.at("outcome"), AttemptOutcome::kCancelled);
  Get(json, "is_committed", attempt.is_committed);
  Get(json, "has_begun", attempt.has_begun);
  Get(json, "has_stepped", attempt.has_stepped);
  Get(json, "checkpoint_noted", attempt.checkpoint_noted);
  attempt.nodes = ListFrom<NodePart>(At(json, "nodes"), NodeFrom);
  attempt.ranks = ListFrom<RankPart>(At(json, "ranks"), RankFrom);
  return attempt;
}

Json CauseToJson(const FailureCause& cause) {
  return {{"kind", NameOf(cause.kind)},
          {"message", cause.message},
          {"rank", cause.rank ? Json(cause.rank->value()) : Json(nullptr)},
          {"node", cause.node.value()},
          {"last_step", cause.last_step},
          {"generation", cause.generation.value()},
          {"log_lines", cause.log_lines},
          {"status_code", cause.status_code},
          {"instruction", cause.instruction},
          {"time", ToJson(cause.time)},
          {"is_echo", cause.is_echo}};
}

FailureCause CauseFrom(const Json& json) {
  FailureCause cause;
  cause.kind = EnumFrom(json.at("kind"), FailureCause::Kind::kPlanDiffers);
  Get(json, "message", cause.message);
  if (!At(json, "rank").is_null()) cause.rank = Rank(json.at("rank").get<int64_t>());
  cause.node = NodeId(json.at("node").get<std::string>());
  Get(json, "last_step", cause.last_step);
  cause.generation = Generation(json.at("generation").get<int64_t>());
  Get(json, "log_lines", cause.log_lines);
  Get(json, "status_code", cause.status_code);
  Get(json, "instruction", cause.instruction);
  cause.time = TimeFrom(At(json, "time"));
  Get(json, "is_echo", cause.is_echo);
  return cause;
}

Json PendingToJson(const PendingReason& pending) {
  return {{"code", NameOf(pending.code)},
          {"message", pending.message},
          {"devices_needed", pending.devices_needed},
          {"devices_free", pending.devices_free},
          {"devices_total", pending.devices_total},
          {"nodes_registered", pending.nodes_registered},
          {"queue_position", pending.queue_position},
          {"blocking_job", pending.blocking_job.value()}};
}

PendingReason PendingFrom(const Json& json) {
  PendingReason pending;
  pending.code = EnumFrom(json.at("code"), PendingReason::Code::kRestart);
  Get(json, "message", pending.message);
  Get(json, "devices_needed", pending.devices_needed);
  Get(json, "devices_free", pending.devices_free);
  Get(json, "devices_total", pending.devices_total);
  Get(json, "nodes_registered", pending.nodes_registered);
  Get(json, "queue_position", pending.queue_position);
  pending.blocking_job = JobId(json.at("blocking_job").get<std::string>());
  return pending;
}

Json ProgressToJson(const JobProgress& progress) {
  return {{"last_step", progress.last_step},
          {"first_loss", ToJson(progress.first_loss)},
          {"last_loss", ToJson(progress.last_loss)},
          {"last_validation_loss", ToJson(progress.last_validation_loss)},
          {"step_seconds", ToJson(progress.step_seconds)},
          {"tokens_of_last_step", progress.tokens_of_last_step},
          {"tokens_total", progress.tokens_total},
          {"peak_bytes", progress.peak_bytes},
          {"last_step_time", ToJson(progress.last_step_time)},
          {"checkpoint_step", progress.checkpoint_step},
          {"checkpoint_path", progress.checkpoint_path},
          {"num_failed_checkpoints", progress.num_failed_checkpoints}};
}

JobProgress ProgressFrom(const Json& json) {
  JobProgress progress;
  Get(json, "last_step", progress.last_step);
  progress.first_loss = DoubleFrom(json.at("first_loss"));
  progress.last_loss = DoubleFrom(json.at("last_loss"));
  progress.last_validation_loss = OptionalDoubleFrom(At(json, "last_validation_loss"));
  progress.step_seconds = DoubleFrom(json.at("step_seconds"));
  Get(json, "tokens_of_last_step", progress.tokens_of_last_step);
  Get(json, "tokens_total", progress.tokens_total);
  Get(json, "peak_bytes", progress.peak_bytes);
  progress.last_step_time = TimeFrom(At(json, "last_step_time"));
  Get(json, "checkpoint_step", progress.checkpoint_step);
  Get(json, "checkpoint_path", progress.checkpoint_path);
  Get(json, "num_failed_checkpoints", progress.num_failed_checkpoints);
  return progress;
}

Json RestartsToJson(const JobRestarts& restarts) {
  return {{"used", restarts.used},
          {"total", restarts.total},
          {"best_checkpoint_step", restarts.best_checkpoint_step},
          {"last_reason", restarts.last_reason}};
}

JobRestarts RestartsFrom(const Json& json) {
  JobRestarts restarts;
  Get(json, "used", restarts.used);
  Get(json, "total", restarts.total);
  Get(json, "best_checkpoint_step", restarts.best_checkpoint_step);
  Get(json, "last_reason", restarts.last_reason);
  return restarts;
}

Json OutputToJson(const OutputFile& output) {
  return {{"kind", output.kind},
          {"path", output.path},
          {"sha256", output.sha256},
          {"size_bytes", output.size_bytes}};
}

OutputFile OutputFrom(const Json& json) {
  OutputFile output;
  Get(json, "kind", output.kind);
  Get(json, "path", output.path);
  Get(json, "sha256", output.sha256);
  Get(json, "size_bytes", output.size_bytes);
  return output;
}

Json VerificationToJson(const VerificationNote& note) {
  const VerificationResult& result = note.result;
  return {{"outcome", NameOf(note.outcome)},
          {"digest", note.digest},
          {"known_from", note.known_from.value()},
          {"is_equal", result.is_equal},
          {"worst", result.worst},
          {"error", ToJson(result.error)},
          {"bound", ToJson(result.bound)},
          {"num_gradients", result.num_gradients},
          {"seconds", ToJson(result.seconds)}};
}

VerificationNote VerificationFrom(const Json& json) {
  VerificationNote note;
  note.outcome = EnumFrom(json.at("outcome"), VerificationNote::Outcome::kKnown);
  Get(json, "digest", note.digest);
  note.known_from = JobId(json.at("known_from").get<std::string>());
  Get(json, "is_equal", note.result.is_equal);
  Get(json, "worst", note.result.worst);
  note.result.error = DoubleFrom(json.at("error"));
  note.result.bound = DoubleFrom(json.at("bound"));
  Get(json, "num_gradients", note.result.num_gradients);
  note.result.seconds = DoubleFrom(json.at("seconds"));
  return note;
}

template <typename T, typename Fn>
Json OptionalToJson(const std::optional<T>& value, Fn to_json) {
  return value ? to_json(*value) : Json(nullptr);
}

template <typename T, typename Fn>
std::optional<T> OptionalFrom(const Json& json, Fn from_json) {
  if (json.is_null()) return std::nullopt;
  return from_json(json);
}

Job JobFrom(const Json& json) {
  Job job;
  job.id = JobId(json.at("id").get<std::string>());
  job.request = std::make_shared<const JobRequest>(RequestFrom(json.at("request")));
  job.state = EnumFrom(json.at("state"), JobState::kCancelled);
  Get(json, "reason", job.reason);
  job.pending = OptionalFrom<PendingReason>(At(json, "pending"), PendingFrom);
  job.cause = OptionalFrom<FailureCause>(At(json, "cause"), CauseFrom);
  job.generation = Generation(json.at("generation").get<int64_t>());
  job.revision = json.at("revision").get<int64_t>();
  job.last_sequence = json.at("last_sequence").get<int64_t>();
  Get(json, "num_failed_starts", job.num_failed_starts);
  job.restarts = RestartsFrom(At(json, "restarts"));
  // As versions before this one have stored it.
  job.may_have_trained = job.generation.value() > 0;
  Get(json, "may_have_trained", job.may_have_trained);
  Get(json, "is_verified", job.is_verified);
  job.verification = OptionalFrom<VerificationNote>(At(json, "verification"), VerificationFrom);
  job.attempt = OptionalFrom<Attempt>(At(json, "attempt"), AttemptFrom);
  job.last_ranks = ListFrom<RankPart>(At(json, "last_ranks"), RankFrom);
  job.places = ListFrom<AttemptPlace>(At(json, "places"), PlaceFrom);
  // As versions before this one have stored it.
  const bool has_no_place = job.places.empty() && !job.ranks().empty();
  if (has_no_place) job.NotePlace(job.generation, job.ranks());
  job.progress = ProgressFrom(json.at("progress"));
  job.outputs = ListFrom<OutputFile>(At(json, "outputs"), OutputFrom);
  job.create_time = TimeFrom(json.at("create_time"));
  job.start_time = TimeFrom(json.at("start_time"));
  job.end_time = TimeFrom(json.at("end_time"));
  return job;
}

// --- History ---

Json MemoryToJson(const ReportedMemory& use) {
  return {{"account", use.account}, {"current", use.current_bytes}, {"peak", use.peak_bytes}};
}

ReportedMemory MemoryFrom(const Json& json) {
  return {.account = json.at("account").get<std::string>(),
          .current_bytes = json.at("current").get<int64_t>(),
          .peak_bytes = json.at("peak").get<int64_t>()};
}

Json CollectiveToJson(const ReportedCollective& use) {
  return {{"kind", use.kind},
          {"phase", use.phase},
          {"calls", use.calls},
          {"bytes", use.bytes_received},
          {"seconds", ToJson(use.seconds)}};
}

ReportedCollective CollectiveFrom(const Json& json) {
  return {.kind = json.at("kind").get<std::string>(),
          .phase = json.at("phase").get<std::string>(),
          .calls = json.at("calls").get<int64_t>(),
          .bytes_received = json.at("bytes").get<int64_t>(),
          .seconds = DoubleFrom(json.at("seconds"))};
}

Json StepToJson(const StepDone& step) {
  const StepReport& report = step.report;
  return {{"step", report.step},
          {"loss", ToJson(report.loss)},
          {"tokens", report.tokens},
          {"step_seconds", ToJson(report.step_seconds)},
          {"learning_rate", ToJson(report.learning_rate)},
          {"grad_norm", ToJson(report.grad_norm)},
          {"validation_loss", ToJson(report.validation_loss)},
          {"memory", ListToJson(report.memory, MemoryToJson)},
          {"collectives", ListToJson(report.collectives, CollectiveToJson)},
          {"slowest_rank", step.slowest_rank.value()}};
}

StepDone StepFrom(const Json& json) {
  StepDone step;
  StepReport& report = step.report;
  report.step = json.at("step").get<int64_t>();
  report.loss = DoubleFrom(json.at("loss"));
  Get(json, "tokens", report.tokens);
  report.step_seconds = DoubleFrom(json.at("step_seconds"));
  report.learning_rate = DoubleFrom(json.at("learning_rate"));
  report.grad_norm = OptionalDoubleFrom(At(json, "grad_norm"));
  report.validation_loss = OptionalDoubleFrom(At(json, "validation_loss"));
  report.memory = ListFrom<ReportedMemory>(At(json, "memory"), MemoryFrom);
  report.collectives = ListFrom<ReportedCollective>(At(json, "collectives"), CollectiveFrom);
  step.slowest_rank = Rank(json.at("slowest_rank").get<int64_t>());
  return step;
}

Json CheckpointToJson(const CheckpointNote& note) {
  return {{"event", NameOf(note.event)},
          {"step", note.step},
          {"path", note.path},
          {"message", note.message},
          {"size_bytes", note.size_bytes},
          {"seconds", ToJson(note.seconds)}};
}

CheckpointNote CheckpointFrom(const Json& json) {
  CheckpointNote note;
  note.event = EnumFrom(json.at("event"), CheckpointNote::Event::kSkipped);
  note.step = json.at("step").get<int64_t>();
  Get(json, "path", note.path);
  Get(json, "message", note.message);
  Get(json, "size_bytes", note.size_bytes);
  note.seconds = DoubleFrom(json.at("seconds"));
  return note;
}

Json StateChangeToJson(const StateChange& change) {
  return {{"from", change.from ? NameOf(*change.from) : Json(nullptr)},
          {"to", NameOf(change.to)},
          {"reason", change.reason},
          {"cause", OptionalToJson(change.cause, CauseToJson)}};
}

StateChange StateChangeFrom(const Json& json) {
  StateChange change;
  if (!At(json, "from").is_null()) {
    change.from = EnumFrom(json.at("from"), JobState::kCancelled);
  }
  change.to = EnumFrom(json.at("to"), JobState::kCancelled);
  Get(json, "reason", change.reason);
  change.cause = OptionalFrom<FailureCause>(At(json, "cause"), CauseFrom);
  return change;
}

Json ReasonChangeToJson(const ReasonChange& change) {
  return {{"reason", change.reason}, {"pending", OptionalToJson(change.pending, PendingToJson)}};
}

ReasonChange ReasonChangeFrom(const Json& json) {
  ReasonChange change;
  Get(json, "reason", change.reason);
  change.pending = OptionalFrom<PendingReason>(At(json, "pending"), PendingFrom);
  return change;
}

HistoryEntry HistoryEntryFrom(const Json& json) {
  HistoryEntry entry;
  entry.job = JobId(json.at("job").get<std::string>());
  entry.sequence = json.at("sequence").get<int64_t>();
  entry.time = TimeFrom(json.at("time"));
  entry.generation = Generation(json.at("generation").get<int64_t>());
  if (json.contains("state")) {
    entry.what = StateChangeFrom(json.at("state"));
  } else if (json.contains("step")) {
    entry.what = StepFrom(json.at("step"));
  } else if (json.contains("checkpoint")) {
    entry.what = CheckpointFrom(json.at("checkpoint"));
  } else if (json.contains("verification")) {
    entry.what = VerificationFrom(json.at("verification"));
  } else {
    entry.what = ReasonChangeFrom(json.at("reason"));
  }
  return entry;
}

// The JSON library throws; its exceptions end here.
template <typename T, typename Fn>
absl::StatusOr<T> Parse(absl::string_view what, absl::string_view text, Fn from_json) {
  try {
    return from_json(Json::parse(text.begin(), text.end()));
  } catch (const std::exception& error) {
    return DataLoss("stored ", what, " cannot be read: ", error.what());
  }
}

// Log lines and messages come from other programs and need not be UTF-8.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string JobToJson(const Job& job) {
  return Dump({{"id", job.id.value()},
               {"request", RequestToJson(*job.request)},
               {"state", NameOf(job.state)},
               {"reason", job.reason},
               {"pending", OptionalToJson(job.pending, PendingToJson)},
               {"cause", OptionalToJson(job.cause, CauseToJson)},
               {"generation", job.generation.value()},
               {"revision", job.revision},
               {"last_sequence", job.last_sequence},
               {"num_failed_starts", job.num_failed_starts},
               {"restarts", RestartsToJson(job.restarts)},
               {"may_have_trained", job.may_have_trained},
               {"is_verified", job.is_verified},
               {"verification", OptionalToJson(job.verification, VerificationToJson)},
               {"attempt", OptionalToJson(job.attempt, AttemptToJson)},
               {"last_ranks", ListToJson(job.last_ranks, RankToJson)},
               {"places", ListToJson(job.places, PlaceToJson)},
               {"progress", ProgressToJson(job.progress)},
               {"outputs", ListToJson(job.outputs, OutputToJson)},
               {"create_time", ToJson(job.create_time)},
               {"start_time", ToJson(job.start_time)},
               {"end_time", ToJson(job.end_time)}});
}

absl::StatusOr<Job> JobFromJson(absl::string_view text) { return Parse<Job>("job", text, JobFrom); }

std::string HistoryEntryToJson(const HistoryEntry& entry) {
  Json json = {{"job", entry.job.value()},
               {"sequence", entry.sequence},
               {"time", ToJson(entry.time)},
               {"generation", entry.generation.value()}};
  if (const auto* state = std::get_if<StateChange>(&entry.what)) {
    json["state"] = StateChangeToJson(*state);
  } else if (const auto* step = std::get_if<StepDone>(&entry.what)) {
    json["step"] = StepToJson(*step);
  } else if (const auto* note = std::get_if<CheckpointNote>(&entry.what)) {
    json["checkpoint"] = CheckpointToJson(*note);
  } else if (const auto* verification = std::get_if<VerificationNote>(&entry.what)) {
    json["verification"] = VerificationToJson(*verification);
  } else {
    json["reason"] = ReasonChangeToJson(std::get<ReasonChange>(entry.what));
  }
  return Dump(json);
}

absl::StatusOr<HistoryEntry> HistoryEntryFromJson(absl::string_view text) {
  return Parse<HistoryEntry>("history entry", text, HistoryEntryFrom);
}

}  // namespace autosp
