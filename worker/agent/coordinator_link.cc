#include "worker/agent/coordinator_link.h"

#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/agent_protocol.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/log.h"
#include "common/version.h"
#include "proto/dial.h"
#include "proto/grpc_status.h"
#include "worker/agent/agent_errors.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/metrics.h"
#include "worker/agent/order_from_proto.h"

namespace autosp::agent {
namespace {

constexpr absl::Duration kShortestRpcTimeout = absl::Milliseconds(500);
constexpr absl::Duration kLongestRpcTimeout = absl::Seconds(4);
constexpr absl::Duration kFirstRetry = absl::Milliseconds(100);
constexpr absl::Duration kLongestRetry = absl::Seconds(2);
constexpr absl::Duration kDefaultHeartbeatInterval = absl::Seconds(1);
constexpr absl::Duration kShortestHeartbeatInterval = absl::Milliseconds(20);
constexpr char kAnswers[] = "answers";
constexpr char kIsAway[] = "is away";

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const Credentials& credentials) {
  grpc::ChannelArguments arguments;
  // A coordinator that has restarted is found again well within the lease.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // How long one attempt to connect may take, whatever the name says.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetMaxSendMessageSize(-1);
  return Dial(address, credentials, std::move(arguments));
}

std::vector<AttemptKey> KeysFrom(const google::protobuf::RepeatedPtrField<v1::AttemptRef>& refs) {
  std::vector<AttemptKey> keys;
  for (const v1::AttemptRef& ref : refs) {
    if (const auto key = KeyFromProto(ref); key.ok()) keys.push_back(*key);
  }
  return keys;
}

bool IsWorthARetry(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kNotFound:  // Not registered; the heartbeat thread sees to that.
      return true;
    default:
      return false;
  }
}

}  // namespace

CoordinatorLink::CoordinatorLink(const LinkOptions& options, Agent& agent, ReportQueue& queue,
                                 MetricRegistry& registry)
    : options_(options),
      instance_id_(RandomId("agent")),
      start_time_(Clock::Real().Now()),
      agent_(agent),
      queue_(queue),
      registry_(registry),
      stub_(v1::CoordinatorAgentService::NewStub(
          MakeChannel(options.coordinator_address, options.credentials))),
      backoff_(kFirstRetry, kLongestRetry),
      heartbeat_interval_(kDefaultHeartbeatInterval) {
  heartbeat_thread_ = std::thread([this] { HeartbeatLoop(); });
  report_thread_ = std::thread([this] { ReportLoop(); });
}

CoordinatorLink::~CoordinatorLink() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
    changed_.notify_all();
  }
  queue_.Close();
  heartbeat_thread_.join();
  report_thread_.join();
}

void CoordinatorLink::SetDeadline(grpc::ClientContext& context) const {
  // A call that hangs leaves time for another one before the lease is over.
  const absl::Duration timeout =
      std::clamp(options_.max_lease / 3, kShortestRpcTimeout, kLongestRpcTimeout);
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

void CoordinatorLink::SendHeartbeatNow() {
  const std::lock_guard lock(mutex_);
  is_wanted_now_ = true;
  ++num_wanted_;
  changed_.notify_all();
}

void CoordinatorLink::Flush(absl::Duration timeout) {
  const Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + timeout;
  queue_.WaitUntilEmpty(timeout);
  SendHeartbeatNow();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(deadline - clock.Steady()),
                    [this] { return num_answered_ >= num_wanted_; });
}

bool CoordinatorLink::WaitFor(absl::Duration duration) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(duration),
                    [this] { return is_ending_ || is_wanted_now_; });
  is_wanted_now_ = false;
  return !is_ending_;
}

void CoordinatorLink::HeartbeatLoop() {
  while (WaitFor(Beat())) {
  }
}

absl::Duration CoordinatorLink::Beat() {
  int64_t num_wanted = 0;
  {
    const std::lock_guard lock(mutex_);
    num_wanted = num_wanted_;
  }
  const grpc::Status result = is_registered_ ? SendHeartbeat() : Register();
  registry_.Increment(kHeartbeatsTotal, {result.ok() ? "answered" : "failed"});
  if (result.ok()) {
    if (IsNews(kAnswers)) {
      LogInfo("the coordinator at ", options_.coordinator_address, " answers");
    }
    backoff_.Reset();
    const std::lock_guard lock(mutex_);
    num_answered_ = num_wanted;
    changed_.notify_all();
    return heartbeat_interval_;
  }
  HandleRefusal(FromGrpcStatus(result));
  const double random = absl::Uniform(random_, 0.0, 1.0);
  return std::min(backoff_.Next(random), heartbeat_interval_);
}

void CoordinatorLink::HandleRefusal(const absl::Status& status) {
  const std::string reason = GetErrorInfo(status).reason;
  if (reason == kReasonAgentNotRegistered) {
    LogInfo("the coordinator does not know this agent; registering again");
    SetRegistered(false);
    return;
  }
  if (reason == kReasonStaleAgent) {
    agent_.RequestShutdown(std::string(status.message()));
    return;
  }
  // What gRPC says of a server that is away differs from try to try; what the coordinator says is
  // worth a line each time that it says something else.
  if (IsNews(reason.empty() ? kIsAway : std::string(status.message()))) {
    const std::string why =
        reason.empty() ? ExplainTls(options_.coordinator_address, options_.credentials) : "";
    LogWarning("the coordinator at ", options_.coordinator_address,
               " is away or refuses: ", status.message(), "; ", why, why.empty() ? "" : "; ",
               "trying again");
  }
}

bool CoordinatorLink::IsNews(const std::string& contact) {
  return std::exchange(last_contact_, contact) != contact;
}

void CoordinatorLink::SetRegistered(bool is_registered) {
  is_registered_ = is_registered;
  options_.on_registered(is_registered);
}

grpc::Status CoordinatorLink::Register() {
  v1::RegisterAgentRequest request;
  request.set_node_id(options_.node_id.value());
  request.set_agent_instance_id(instance_id_);
  request.set_agent_address(options_.agent_address);
  request.set_agent_version(kVersion);
  request.set_device_kind(options_.has_gpus ? v1::DEVICE_KIND_CUDA : v1::DEVICE_KIND_CPU);
  request.set_num_devices(options_.num_devices);
  request.set_device_memory_bytes(options_.device_memory_bytes);
  request.set_agent_start_ms(absl::ToUnixMillis(start_time_));
  request.set_is_ending(agent_.is_ending());
  auto attempts = agent_.Statuses();
  if (!attempts.ok()) return ToGrpcStatus(attempts.status());
  for (v1::AttemptStatus& attempt : *attempts) *request.add_attempts() = std::move(attempt);

  grpc::ClientContext context;
  SetDeadline(context);
  const absl::Duration sent_at = Clock::Real().Steady();
  v1::RegisterAgentResponse response;
  const grpc::Status status = stub_->RegisterAgent(&context, request, &response);
  if (!status.ok()) return status;
  SetRegistered(true);
  Accept(response, sent_at);
  return status;
}

grpc::Status CoordinatorLink::SendHeartbeat() {
  v1::HeartbeatRequest request;
  request.set_node_id(options_.node_id.value());
  request.set_agent_instance_id(instance_id_);
  request.set_sequence(++sequence_);
  // Before the list is made: the list takes into account at least what came before this answer.
  request.set_last_answer_token(answer_token_);
  request.set_is_ending(agent_.is_ending());
  auto attempts = agent_.Statuses();
  if (!attempts.ok()) return ToGrpcStatus(attempts.status());
  for (v1::AttemptStatus& attempt : *attempts) *request.add_attempts() = std::move(attempt);

  grpc::ClientContext context;
  SetDeadline(context);
  request.set_last_round_trip_us(absl::ToInt64Microseconds(last_round_trip_));
  request.set_sent_time_us(absl::ToUnixMicros(Clock::Real().Now()));
  const absl::Duration sent_at = Clock::Real().Steady();
  v1::HeartbeatResponse response;
  const grpc::Status status = stub_->Heartbeat(&context, request, &response);
  if (!status.ok()) return status;
  last_round_trip_ = Clock::Real().Steady() - sent_at;
  Accept(response, sent_at);
  return status;
}

template <typename Response>
void CoordinatorLink::Accept(const Response& response, absl::Duration sent_at) {
  answer_token_ = response.answer_token();
  // A shorter lease than the coordinator's is always safe: ranks end before their devices are
  // given away.
  absl::Duration lease = options_.max_lease;
  if (response.lease_ms() > 0) lease = std::min(lease, absl::Milliseconds(response.lease_ms()));
  agent_.RenewLease(sent_at, lease);
  // Two heartbeats may be lost before the lease is.
  const absl::Duration wanted = absl::Milliseconds(response.heartbeat_interval_ms());
  heartbeat_interval_ = std::max(std::min(wanted, lease / 3), kShortestHeartbeatInterval);
  if (response.stop_attempts_size() > 0) agent_.StopListed(KeysFrom(response.stop_attempts()));
  if (response.release_attempts_size() > 0) agent_.Release(KeysFrom(response.release_attempts()));
}

void CoordinatorLink::ReportLoop() {
  Backoff backoff(kFirstRetry, kLongestRetry);
  absl::BitGen random;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (is_ending_) return;
    }
    if (SendReports()) {
      backoff.Reset();
    } else {
      Clock::Real().Sleep(backoff.Next(absl::Uniform(random, 0.0, 1.0)));
    }
  }
}

bool CoordinatorLink::SendReports() {
  std::vector<v1::AttemptRankReport> reports = queue_.Peek(kMaxReportsInBatch, absl::Seconds(1));
  if (reports.empty()) return true;
  if (!is_registered_) return false;
  v1::ReportRanksRequest request;
  request.set_node_id(options_.node_id.value());
  request.set_agent_instance_id(instance_id_);
  const bool has_end = std::any_of(reports.begin(), reports.end(),
                                   [](const auto& report) { return report.status().has_exit(); });
  for (v1::AttemptRankReport& report : reports) *request.add_reports() = std::move(report);
  grpc::ClientContext context;
  SetDeadline(context);
  v1::ReportRanksResponse response;
  const absl::Status status = FromGrpcStatus(stub_->ReportRanks(&context, request, &response));
  if (!status.ok() && IsWorthARetry(status)) return false;
  if (!status.ok()) {
    // Sending it again would be refused again. States are in every heartbeat as well.
    LogWarning("the coordinator refuses ", request.reports_size(), " reports: ", status.message());
  }
  queue_.Ack();
  // The end of an attempt may have waited for these.
  if (has_end) SendHeartbeatNow();
  if (response.stop_attempts_size() > 0) agent_.StopListed(KeysFrom(response.stop_attempts()));
  return true;
}

}  // namespace autosp::agent
