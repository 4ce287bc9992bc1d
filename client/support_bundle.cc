#include "client/support_bundle.h"

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/coordinator_client.h"
#include "client/diagnosis.h"
#include "client/format.h"
#include "client/job_text.h"
#include "client/message_json.h"
#include "common/status_macros.h"
#include "common/version.h"

namespace autosp {
namespace {

// A job that has ended has all of its events; of others those are taken that come by then.
constexpr absl::Duration kEventsOfEnded = absl::Minutes(2);
constexpr absl::Duration kEventsOfRunning = absl::Seconds(3);
constexpr absl::Duration kLogTimeout = absl::Seconds(20);
constexpr int64_t kLogLines = 20'000;

std::string Dump(const nlohmann::json& json, int indent) {
  return absl::StrCat(json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace),
                      "\n");
}

// Ends the calls of `client` when the time is over.
class StreamLimit {
 public:
  StreamLimit(CoordinatorClient& client, absl::Duration limit)
      : thread_([this, &client, limit] {
          const auto status = done_.get_future().wait_for(absl::ToChronoNanoseconds(limit));
          if (status == std::future_status::timeout) client.CancelCalls();
        }) {}
  ~StreamLimit() {
    done_.set_value();
    thread_.join();
  }
  StreamLimit(const StreamLimit&) = delete;
  StreamLimit& operator=(const StreamLimit&) = delete;

 private:
  std::promise<void> done_;
  std::thread thread_;
};

class Collector {
 public:
  Collector(ServerAddress server, v1::Job job)
      : server_(std::move(server)), client_(server_), job_(std::move(job)) {}

  SupportBundle Collect(const std::string& program_folder) {
    Add("job.json", Dump(MessageToJson(job_), 2));
    Add("job.txt", JobPage(job_, absl::Now()));
    AddOr("job.yaml", client_.GetJobFile(job_.job_id()));
    AddPlan();
    AddHistory();
    AddLogs();
    AddNodes();
    AddDoctor(program_folder);
    bundle_.entries.insert(bundle_.entries.begin(), {"contents.txt", Contents()});
    return std::move(bundle_);
  }

 private:
  void Add(const std::string& name, absl::string_view data, size_t limit = kMaxPartBytes) {
    bundle_.entries.push_back({name, KeepEnd(data, limit)});
  }

  void Miss(const std::string& name, const absl::Status& why) {
    bundle_.missing.push_back(absl::StrCat(name, ": ", why.message()));
  }

  void AddOr(const std::string& name, const absl::StatusOr<std::string>& data) {
    data.ok() ? Add(name, *data) : Miss(name, data.status());
  }

  void AddPlan() {
    const absl::StatusOr<v1::Plan> plan =
        client_.GetPlan(job_.job_id(), /*include_program_text=*/true);
    if (!plan.ok()) return Miss("plan.txt, program.txt", plan.status());
    Add("plan.txt", plan->summary_text());
    Add("program.txt", plan->program_text());
  }

  // Steps apart: they are many, and tools read them.
  void AddHistory() {
    CoordinatorClient client(server_);
    const bool has_ended = IsTerminal(job_.state());
    const StreamLimit limit(client, has_ended ? kEventsOfEnded : kEventsOfRunning);
    std::string events;
    std::string steps;
    const absl::Status status = client.WatchJob(job_.job_id(), [&](const v1::JobEvent& event) {
      std::string& lines = event.has_step_finished() ? steps : events;
      if (lines.size() < 2 * kMaxPartBytes) lines += Dump(MessageToJson(event), -1);
    });
    Add("events.jsonl", events);
    Add("steps.jsonl", steps);
    if (!status.ok() && (has_ended || !absl::IsCancelled(status))) {
      Miss("the end of events.jsonl and steps.jsonl", status);
    }
  }

  std::vector<int> RanksByNeed() const {
    std::vector<int> ranks;
    for (const v1::RankPlacement& rank : job_.ranks()) ranks.push_back(rank.rank());
    const int failed = job_.has_cause() ? job_.cause().rank() : -1;
    std::ranges::stable_partition(ranks, [failed](int rank) { return rank == failed; });
    return ranks;
  }

  void AddLogs() {
    const std::vector<int> ranks = RanksByNeed();
    for (size_t i = 0; i < ranks.size(); ++i) {
      const std::string name = absl::StrCat("logs/rank", ranks[i], ".log");
      if (i >= kMaxLogs) {
        Miss(name, absl::ResourceExhaustedError(absl::StrCat(
                       "only ", kMaxLogs, " logs are taken; `autosp-cli logs` has it")));
        continue;
      }
      AddLog(name, ranks[i]);
    }
  }

  void AddLog(const std::string& name, int rank) {
    CoordinatorClient client(server_);
    const StreamLimit limit(client, kLogTimeout);
    v1::GetLogsRequest request;
    request.set_job_id(job_.job_id());
    request.set_rank(rank);
    request.set_tail_lines(kLogLines);
    std::string log;
    const absl::Status status = client.GetLogs(request, [&log](absl::string_view data) {
      absl::StrAppend(&log, data);
      if (log.size() > 2 * kMaxLogBytes) log = KeepEnd(log, kMaxLogBytes);
    });
    if (!log.empty() || status.ok()) Add(name, log, kMaxLogBytes);
    if (!status.ok()) Miss(name, status);
  }

  void AddNodes() {
    const absl::StatusOr<v1::GetServerInfoResponse> info = client_.GetServerInfo();
    const absl::StatusOr<std::vector<v1::Node>> nodes = client_.ListNodes();
    nlohmann::json versions = {{"autosp-cli", kVersion}, {"agents", nlohmann::json::object()}};
    if (info.ok()) versions["autosp-coordinator"] = info->version();
    if (!info.ok()) Miss("the coordinator's version", info.status());
    if (nodes.ok()) {
      nlohmann::json list = nlohmann::json::array();
      for (const v1::Node& node : *nodes) {
        list.push_back(MessageToJson(node));
        versions["agents"][node.node_id()] = node.agent_version();
      }
      Add("nodes.json", Dump({{"nodes", list}}, 2));
      Add("nodes.txt", NodeTable(*nodes, absl::Now()));
    } else {
      Miss("nodes.json, nodes.txt", nodes.status());
    }
    Add("versions.json", Dump(versions, 2));
  }

  void AddDoctor(const std::string& program_folder) {
    const absl::StatusOr<std::vector<Finding>> findings = Diagnose(program_folder, server_);
    if (!findings.ok()) return Miss("doctor.json", findings.status());
    Add("doctor.json", Dump({{"findings", ToJson(*findings)}}, 2));
  }

  std::string Contents() const {
    std::string text = absl::StrCat(
        "Support bundle of job ", job_.job_id(), " (", job_.name(), "), ",
        FormatState(job_.state()), ", made by autosp-cli ", kVersion, " at ",
        absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()),
        "\n\nIt has the job file with the names of its files, and the logs of ranks. It has no "
        "secrets, no environment,\nno data and no weights.\n\n");
    for (const FileToZip& entry : bundle_.entries) {
      absl::StrAppend(&text, "  ", entry.name, "  ", entry.data.size(), " bytes\n");
    }
    if (bundle_.missing.empty()) return text;
    absl::StrAppend(&text, "\nMissing:\n");
    for (const std::string& each : bundle_.missing) absl::StrAppend(&text, "  ", each, "\n");
    return text;
  }

  const ServerAddress server_;
  CoordinatorClient client_;
  const v1::Job job_;
  SupportBundle bundle_;
};

}  // namespace

std::string KeepEnd(absl::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  absl::string_view end = text.substr(text.size() - limit);
  const size_t line = end.find('\n');
  if (line != end.npos) end.remove_prefix(line + 1);
  return absl::StrCat("(", text.size() - end.size(), " bytes before this are left out)\n", end);
}

absl::StatusOr<SupportBundle> MakeSupportBundle(const ServerAddress& server,
                                                const std::string& job_id,
                                                const std::string& program_folder) {
  ASSIGN_OR_RETURN(v1::Job job, CoordinatorClient(server).GetJob(job_id));
  return Collector(server, std::move(job)).Collect(program_folder);
}

}  // namespace autosp
