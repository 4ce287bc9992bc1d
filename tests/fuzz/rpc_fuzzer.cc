// Messages from anywhere: the first byte says of which call, the rest is its request. Checking must
// not crash; what passes goes through the state machine while a job runs, and what that decides
// must be storable.
#include <cstdint>
#include <memory>
#include <string>

#include "common/check.h"
#include "server/coordinator/coordinator.h"
#include "server/service/agent_from_proto.h"
#include "server/service/job_to_proto.h"
#include "server/service/request_from_proto.h"
#include "server/store/job_json.h"

namespace autosp {
namespace {

class NothingFinished final : public FinishedJobs {
 public:
  bool IsFinished(const JobId&) const override { return false; }
  std::optional<SubmittedJob> FindByRequest(const RequestId&) const override {
    return std::nullopt;
  }
  std::optional<JobId> FindVerified(const std::string&) const override { return std::nullopt; }
};

// What a decision changes must read back as it was, and be showable.
void CheckDecision(const Decision& decision) {
  for (const Job& job : decision.changed_jobs) {
    const std::string json = JobToJson(job);
    const absl::StatusOr<Job> read = JobFromJson(json);
    AUTOSP_CHECK(read.ok(), read.status().message());
    AUTOSP_CHECK(JobToJson(*read) == json, json);
    AUTOSP_CHECK(!JobToProto(*read).SerializeAsString().empty());
  }
  for (const HistoryEntry& entry : decision.history) {
    const absl::StatusOr<HistoryEntry> read = HistoryEntryFromJson(HistoryEntryToJson(entry));
    AUTOSP_CHECK(read.ok(), read.status().message());
    AUTOSP_CHECK(!HistoryEntryToProto(*read).SerializeAsString().empty());
  }
}

// A coordinator with job "j" of two ranks committed on node "n", whose agent is "a".
class RunningCluster {
 public:
  RunningCluster() : coordinator_({}, {}, &finished_, now_) {
    AgentRegistered agent;
    agent.info = {.node = NodeId("n"),
                  .instance = "a",
                  .address = "n:1",
                  .device_kind = "cpu",
                  .num_devices = 2};
    Step(agent);
    auto request = std::make_shared<JobRequest>();
    request->request_id = RequestId("r");
    request->world_size = 2;
    Step(JobSubmitted{.job = JobId("j"), .request = request});
    Step(CommandDone{.node = NodeId("n"), .attempt = {JobId("j"), Generation(1)}});
  }

  void Step(const Event& event) {
    now_ += absl::Milliseconds(100);
    CheckDecision(coordinator_.Step(event, now_));
  }

 private:
  NothingFinished finished_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  Coordinator coordinator_;
};

template <typename Request, typename Parse>
void StepParsed(const std::string& bytes, Parse parse) {
  Request request;
  if (!request.ParseFromString(bytes)) return;
  const auto event = parse(request);
  if (!event.ok()) return;
  RunningCluster cluster;
  cluster.Step(*event);
  cluster.Step(*event);  // Twice, as the network may.
  cluster.Step(Tick());
}

template <typename Request, typename Parse>
void ParseOnly(const std::string& bytes, Parse parse) {
  Request request;
  if (request.ParseFromString(bytes)) parse(request).status().IgnoreError();
}

}  // namespace
}  // namespace autosp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace autosp;
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 's':
      ParseOnly<v1::SubmitJobRequest>(bytes, SubmissionFromProto);
      break;
    case 'c':
      ParseOnly<v1::CancelJobRequest>(bytes, CancellationFromProto);
      break;
    case 'l':
      ParseOnly<v1::ListJobsRequest>(bytes, JobPageFromProto);
      break;
    case 'n':
      ParseOnly<v1::ListNodesRequest>(bytes, NodePageFromProto);
      break;
    case 'g':
      ParseOnly<v1::GetLogsRequest>(bytes, LogQueryFromProto);
      break;
    case 'r':
      StepParsed<v1::RegisterAgentRequest>(bytes, AgentRegisteredFromProto);
      break;
    case 'h':
      StepParsed<v1::HeartbeatRequest>(bytes, AgentHeartbeatFromProto);
      break;
    case 'p':
      StepParsed<v1::ReportRanksRequest>(bytes, RanksReportedFromProto);
      break;
    default:
      break;
  }
  return 0;
}
