// Runs tests/golden/coordinator/*.txt. Only commit a rewritten script if you understand what
// changed it and it is wanted.
//
// Commands (times are Go-like durations; `holds` and `rank` are explained at ParseHolds):
//   options lease=15s expected=a:2,b:2   new coordinator; other durations by their option's name
//   submit job= ranks= [steps=] [request=] [digest=] [kind=cpu] [restarts=0]
//     [verify=always|new-plan plan=DIGEST]
//   cancel job= [reason=]
//   register node= devices= [instance=] [start=] [holds=] [reason=]
//     [ending=0]
//   heartbeat node= [instance=] [sequence=] [token=latest] [holds=] [reason=of the ends]
//     [ending=0]
//   prepared|committed|aborted|stopped node= job= [gen=1] [error=CODE:message] [why=REASON]
//     [at=0@host:port,... of the ranks that were prepared]
//   rank job= [gen=1] rank= state= [node=] [step=] [code=] [signal=] [status=CODE] [message=]
//        [log=] [echo=1] [equal=0|1 worst= error=] [output=PATH]
//   step job= [gen=1] ranks=0,1 step= [loss=] [seconds=] [node=]
//   checkpoint job= [gen=1] event= step= [rank=0] [path=] [message=] [node=]
//   probed node= [instance=] refused=0|1 [asked=0s ago]
//   tick 5s [every=1s]
//   restart                       from what is stored
//   forget                        lose the store as well
//   show                          jobs and nodes
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/error_info.h"
#include "gtest/gtest.h"
#include "tests/server/coordinator/fake_store.h"
#include "tests/server/coordinator/golden_script.h"

namespace autosp {
namespace {

bool g_rewrite = false;

absl::Duration DurationFrom(const std::string& text) {
  absl::Duration duration;
  EXPECT_TRUE(absl::ParseDuration(text, &duration)) << text;
  return duration;
}

RankState RankStateFrom(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(RankState::kStopped); ++i) {
    if (ToString(static_cast<RankState>(i)) == name) return static_cast<RankState>(i);
  }
  ADD_FAILURE() << "no rank state " << name;
  return RankState::kLost;
}

absl::Status StatusFrom(const std::string& text) {
  if (text.empty()) return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  for (int code = 1; code <= 16; ++code) {
    const auto status_code = static_cast<absl::StatusCode>(code);
    if (absl::StatusCodeToString(status_code) == parts[0]) return {status_code, parts.back()};
  }
  ADD_FAILURE() << "no status code " << parts[0];
  return absl::InternalError(text);
}

VerificationResult EqualResult() {
  return {.is_equal = true, .worst = "loss", .bound = 1e-5, .num_gradients = 7, .seconds = 2};
}

// "j1/1:running:0=finished@7,1=spawned;j2/3:prepared": attempts with their phase and ranks, and
// the last steps of those. "finished/equal" is a verification's.
std::vector<AttemptStatus> ParseHolds(const std::string& text, const std::string& reason) {
  std::vector<AttemptStatus> attempts;
  for (absl::string_view part : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(part, ':');
    const std::vector<std::string> id = absl::StrSplit(fields[0], '/');
    int64_t generation = 0;
    EXPECT_TRUE(absl::SimpleAtoi(id.at(1), &generation));
    AttemptStatus status{.attempt = {JobId(id[0]), Generation(generation)}};
    status.end_reason = reason;
    if (fields.at(1) == "running") status.phase = AttemptStatus::Phase::kRunning;
    if (fields.at(1) == "ended") status.phase = AttemptStatus::Phase::kEnded;
    if (fields.size() > 2) {
      for (absl::string_view rank : absl::StrSplit(fields[2], ',')) {
        const std::vector<std::string> pair = absl::StrSplit(rank, '=');
        int64_t index = 0;
        EXPECT_TRUE(absl::SimpleAtoi(pair[0], &index));
        const bool is_equal = absl::EndsWith(pair.at(1), "/equal");
        const std::vector<std::string> state =
            absl::StrSplit(absl::StripSuffix(pair[1], "/equal"), '@');
        int64_t step = 0;
        EXPECT_TRUE(state.size() == 1 || absl::SimpleAtoi(state[1], &step));
        status.ranks.push_back(
            {.rank = Rank(index), .state = RankStateFrom(state[0]), .last_step = step});
        if (is_equal) status.ranks.back().verification = EqualResult();
        if (state[0] == "stopped") status.ranks.back().stop_reason = reason;
      }
    }
    attempts.push_back(std::move(status));
  }
  return attempts;
}

// "0@a:7001,1@b:7001": ranks and where they listen.
std::vector<RankAddress> ParseAddresses(const std::string& text) {
  std::vector<RankAddress> addresses;
  for (absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(part, '@');
    int64_t rank = 0;
    EXPECT_TRUE(absl::SimpleAtoi(fields[0], &rank)) << part;
    addresses.push_back({.rank = Rank(rank), .address = fields.at(1)});
  }
  return addresses;
}

std::string Print(const AttemptId& attempt) {
  return absl::StrCat(attempt.job, "/", attempt.generation);
}

std::string Print(const Effect& effect) {
  if (const auto* prepare = std::get_if<PrepareRanks>(&effect)) {
    return absl::StrCat(prepare->kind == AttemptKind::kVerification ? "verify " : "prepare ",
                        Print(prepare->attempt), " on ", prepare->node, ": ",
                        absl::StrJoin(prepare->ranks, ", ",
                                      [](std::string* out, const RankAssignment& r) {
                                        absl::StrAppend(out, "rank ", r.rank, " on device ",
                                                        r.device_index);
                                      }),
                        prepare->is_first_training ? "" : ", as a restart");
  }
  if (const auto* command = std::get_if<CommandAttempt>(&effect)) {
    const char* name = command->command == AgentCommand::kCommit  ? "commit "
                       : command->command == AgentCommand::kAbort ? "abort "
                                                                  : "stop ";
    std::string text = absl::StrCat(name, Print(command->attempt), " on ", command->node);
    const bool has_address = std::ranges::any_of(
        command->rank_addresses, [](const std::string& address) { return !address.empty(); });
    if (has_address) {
      absl::StrAppend(&text, ": ranks at ", absl::StrJoin(command->rank_addresses, ", "));
    }
    return text;
  }
  return absl::StrCat("probe ", std::get<ProbeAgent>(effect).node);
}

std::string Print(const HistoryEntry& entry) {
  if (const auto* change = std::get_if<StateChange>(&entry.what)) {
    std::string text = absl::StrCat(entry.job, ": ", ToString(change->to), ": ", change->reason);
    if (change->cause) {
      absl::StrAppend(&text, " [", ToString(change->cause->kind),
                      change->cause->is_echo ? ", echo" : "",
                      change->cause->log_lines.empty() ? "" : "; log: ",
                      absl::StrJoin(change->cause->log_lines, " | "), "]");
    }
    return text;
  }
  if (const auto* step = std::get_if<StepDone>(&entry.what)) {
    return absl::StrCat(entry.job, ": step ", step->report.step, " loss ", step->report.loss,
                        " in ", step->report.step_seconds, " s, slowest rank ", step->slowest_rank);
  }
  if (const auto* note = std::get_if<CheckpointNote>(&entry.what)) {
    return absl::StrCat(entry.job, ": checkpoint ", ToString(note->event), ", step ", note->step,
                        note->message.empty() ? "" : ": ", note->message);
  }
  if (const auto* note = std::get_if<VerificationNote>(&entry.what)) {
    return absl::StrCat(entry.job, ": verification ", ToString(note->outcome),
                        note->result.worst.empty() ? "" : ", ", note->result.worst,
                        note->known_from.value().empty() ? "" : " from ", note->known_from.value());
  }
  const auto& reason = std::get<ReasonChange>(entry.what);
  return absl::StrCat(entry.job, ": ",
                      reason.pending ? absl::StrCat(ToString(reason.pending->code), ": ") : "",
                      reason.reason);
}

class Script {
 public:
  Script() { Restart(); }

  std::string Run(const ScriptCommand& command) {
    if (command.name == "options") return SetOptions(command);
    if (command.name == "tick") return Ticks(command);
    if (command.name == "show") return Show();
    if (command.name == "forget") store_.Clear();
    if (command.name == "forget" || command.name == "restart") {
      Restart();
      return "";
    }
    return Step(EventFrom(command));
  }

 private:
  void Restart() {
    coordinator_ = std::make_unique<Coordinator>(options_, store_.ActiveJobs(), &store_, now_);
  }

  std::string SetOptions(const ScriptCommand& command) {
    for (const auto& [key, value] : command.args) {
      if (key == "lease") options_.lease = DurationFrom(value);
      if (key == "forget_lost_after") options_.forget_lost_after = DurationFrom(value);
      if (key == "prepare_timeout") options_.prepare_timeout = DurationFrom(value);
      if (key == "verify_timeout") options_.verify_timeout = DurationFrom(value);
      if (key == "join_timeout") options_.join_timeout = DurationFrom(value);
      if (key == "hang_timeout") options_.hang_timeout = DurationFrom(value);
      if (key == "setup_timeout") options_.setup_timeout = DurationFrom(value);
      if (key != "expected") continue;
      for (absl::string_view node : absl::StrSplit(value, ',')) {
        const std::vector<std::string> parts = absl::StrSplit(node, ':');
        options_.expected_nodes.push_back(
            {.node = NodeId(parts[0]), .device_kind = "cpu", .num_devices = std::stoll(parts[1])});
      }
    }
    Restart();
    return "";
  }

  std::string Ticks(const ScriptCommand& command) {
    const absl::Time end = now_ + DurationFrom(command.positional);
    const absl::Duration every = DurationFrom(command.Get("every", command.positional));
    std::string output;
    while (now_ < end) {
      now_ = std::min(end, now_ + every);
      output += Step(Tick());
    }
    return output;
  }

  Event EventFrom(const ScriptCommand& c) {
    const AttemptId attempt{JobId(c.Get("job")), Generation(c.GetInt("gen", 1))};
    const NodeId node(c.Get("node", "a"));
    const std::string instance = c.Get("instance", node.value() + "1");
    if (c.name == "submit") return Submit(c);
    if (c.name == "cancel") return CancelRequested{attempt.job, c.Get("reason")};
    if (c.name == "register") {
      return AgentRegistered{.info = {.node = node,
                                      .instance = instance,
                                      .address = node.value() + ":7000",
                                      .device_kind = c.Get("kind", "cpu"),
                                      .num_devices = c.GetInt("devices"),
                                      .start_ms = c.GetInt("start")},
                             .attempts = ParseHolds(c.Get("holds"), c.Get("reason")),
                             .is_ending = c.GetInt("ending") != 0};
    }
    if (c.name == "heartbeat") {
      return AgentHeartbeat{.node = node,
                            .instance = instance,
                            .sequence = c.GetInt("sequence", ++sequence_),
                            .last_answer_token = c.GetInt("token", token_),
                            .attempts = ParseHolds(c.Get("holds"), c.Get("reason")),
                            .clock = std::nullopt,
                            .is_ending = c.GetInt("ending") != 0};
    }
    if (c.name == "probed") {
      return AgentProbed{.node = node,
                         .instance = instance,
                         .asked_at = now_ - DurationFrom(c.Get("asked", "0s")),
                         .is_refused = c.GetInt("refused") != 0};
    }
    if (c.name == "rank") return RankEvent(c, attempt, node, instance);
    if (c.name == "step") return StepEvent(c, attempt, node, instance);
    if (c.name == "checkpoint") return CheckpointEvent(c, attempt, node, instance);
    static const std::map<std::string, AgentCommand> kCommands = {
        {"prepared", AgentCommand::kPrepare},
        {"committed", AgentCommand::kCommit},
        {"aborted", AgentCommand::kAbort},
        {"stopped", AgentCommand::kStop}};
    auto found = kCommands.find(c.name);
    EXPECT_NE(found, kCommands.end()) << "no command " << c.name;
    return CommandDone{
        .node = node,
        .attempt = attempt,
        .command = found->second,
        .status = WithErrorInfo(StatusFrom(c.Get("error")), {.reason = c.Get("why")}),
        .rank_addresses = ParseAddresses(c.Get("at"))};
  }

  Event Submit(const ScriptCommand& c) {
    auto request = std::make_shared<JobRequest>();
    request->request_id = RequestId(c.Get("request", "r-" + c.Get("job")));
    request->request_digest = c.Get("digest");
    request->name = c.Get("job");
    request->world_size = c.GetInt("ranks", 1);
    request->device_kind = c.Get("kind", "cpu");
    request->num_steps = c.GetInt("steps", 10);
    request->max_restarts = c.GetInt("restarts");
    request->verification_digest = c.Get("plan");
    request->verify_always = c.Get("verify") == "always";
    return JobSubmitted{.job = JobId(c.Get("job")), .request = request};
  }

  Event RankEvent(const ScriptCommand& c, const AttemptId& attempt, const NodeId& node,
                  const std::string& instance) {
    RankStatus status{.rank = Rank(c.GetInt("rank")),
                      .state = RankStateFrom(c.Get("state")),
                      .last_step = c.GetInt("step")};
    if (HasEnded(status.state)) {
      RankExit& exit = status.exit.emplace();
      exit.exit_code = c.GetInt("code");
      exit.signal_number = c.GetInt("signal");
      exit.message = c.Get("message");
      exit.has_failure = !exit.message.empty();
      if (!c.Get("status").empty()) {
        exit.status_code = static_cast<int64_t>(StatusFrom(c.Get("status") + ":").code());
      }
      exit.is_peer_lost = c.GetInt("echo") != 0;
    }
    if (!c.Get("equal").empty()) {
      status.verification = EqualResult();
      status.verification->is_equal = c.GetInt("equal") != 0;
      status.verification->worst = c.Get("worst", "loss");
      status.verification->error = std::stod(c.Get("error", "0"));
    }
    if (!c.Get("output").empty()) status.outputs.push_back({.path = c.Get("output")});
    if (!c.Get("log").empty()) {
      (status.exit ? status.exit->log_lines : status.log_lines) = absl::StrSplit(c.Get("log"), '|');
    }
    return RanksReported{.node = node,
                         .instance = instance,
                         .reports = {{.attempt = attempt, .rank = status.rank, .report = status}}};
  }

  Event StepEvent(const ScriptCommand& c, const AttemptId& attempt, const NodeId& node,
                  const std::string& instance) {
    RanksReported event{.node = node, .instance = instance, .reports = {}};
    const std::vector<std::string> ranks = absl::StrSplit(c.Get("ranks", "0"), ',');
    for (const std::string& rank : ranks) {
      StepReport report;
      report.step = c.GetInt("step");
      report.loss = std::stod(c.Get("loss", "1"));
      // Later ranks are slower, so that the slowest is known.
      report.step_seconds = std::stod(c.Get("seconds", "1")) + std::stod(rank) / 4;
      report.tokens = 64;
      event.reports.push_back(
          {.attempt = attempt, .rank = Rank(std::stoll(rank)), .report = report});
    }
    return event;
  }

  Event CheckpointEvent(const ScriptCommand& c, const AttemptId& attempt, const NodeId& node,
                        const std::string& instance) {
    CheckpointNote note{
        .step = c.GetInt("step"), .path = c.Get("path"), .message = c.Get("message")};
    while (ToString(note.event) != c.Get("event")) {
      note.event = static_cast<CheckpointNote::Event>(static_cast<int>(note.event) + 1);
    }
    return RanksReported{
        .node = node,
        .instance = instance,
        .reports = {{.attempt = attempt, .rank = Rank(c.GetInt("rank")), .report = note}}};
  }

  std::string Step(const Event& event) {
    const Decision decision = coordinator_->Step(event, now_);
    store_.Apply(decision);
    std::string output;
    if (!decision.status.ok()) {
      absl::StrAppend(&output, "error: ", absl::StatusCodeToString(decision.status.code()), ": ",
                      decision.status.message(), "\n");
    }
    if (decision.was_duplicate) absl::StrAppend(&output, "duplicate of ", decision.job, "\n");
    for (const HistoryEntry& entry : decision.history) {
      absl::StrAppend(&output, Print(entry), "\n");
    }
    for (const Effect& effect : decision.effects) {
      absl::StrAppend(&output, "  -> ", Print(effect), "\n");
    }
    for (const AttemptId& attempt : decision.answer.stop_attempts) {
      absl::StrAppend(&output, "  answer: stop ", Print(attempt), "\n");
    }
    for (const AttemptId& attempt : decision.answer.release_attempts) {
      absl::StrAppend(&output, "  answer: release ", Print(attempt), "\n");
    }
    if (decision.answer.answer_token > 0) token_ = decision.answer.answer_token;
    return output;
  }

  std::string Show() {
    std::string output;
    for (const auto& [id, job] : store_.jobs()) {
      absl::StrAppend(&output, id, ": ", ToString(job.state), ", generation ", job.generation,
                      ", step ", job.progress.last_step, "\n");
      for (size_t i = 0; i < job.ranks().size(); ++i) {
        const RankPart& rank = job.ranks()[i];
        absl::StrAppend(&output, "  rank ", i, ": ", ToString(rank.state), " on ", rank.node,
                        " device ", rank.device_index, "\n");
      }
      if (job.progress.checkpoint_step > 0 || job.restarts.total > 0) {
        absl::StrAppend(&output, "  checkpoint ", job.progress.checkpoint_step, ", restarts ",
                        job.restarts.used, " of ", job.request->max_restarts, ", ",
                        job.restarts.total, " in all\n");
      }
      for (const OutputFile& file : job.outputs) {
        absl::StrAppend(&output, "  output: ", file.path, "\n");
      }
      if (job.cause) absl::StrAppend(&output, "  cause: ", job.cause->message, "\n");
      if (job.cause && !job.cause->log_lines.empty()) {
        absl::StrAppend(&output, "  log: ", absl::StrJoin(job.cause->log_lines, " | "), "\n");
      }
    }
    for (const auto& [node, agent] : coordinator_->agents().all()) {
      absl::StrAppend(&output, "node ", node, agent.is_lost ? " (lost)" : "", ": free devices [",
                      absl::StrJoin(coordinator_->FreeDevices(node), ", "), "]\n");
    }
    return output;
  }

  CoordinatorOptions options_;
  FakeStore store_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  int64_t token_ = 0;
  int64_t sequence_ = 0;
  std::unique_ptr<Coordinator> coordinator_;
};

std::vector<std::string> ScriptPaths() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(AUTOSP_SOURCE_DIR) +
                                                               "/tests/golden/coordinator")) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(CoordinatorGolden, Scripts) {
  ASSERT_FALSE(ScriptPaths().empty());
  for (const std::string& path : ScriptPaths()) {
    SCOPED_TRACE(path);
    Script script;
    RunGoldenScript(path, g_rewrite,
                    [&](const ScriptCommand& command) { return script.Run(command); });
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::g_rewrite = std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--rewrite") autosp::g_rewrite = true;
  }
  return RUN_ALL_TESTS();
}
