#include "server/service/agent_commander.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_info.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/tcp.h"
#include "proto/dial.h"
#include "proto/grpc_status.h"
#include "server/service/agent_from_proto.h"
#include "server/service/limits.h"
#include "server/service/prepare_to_proto.h"

namespace autosp {
namespace {

std::shared_ptr<grpc::Channel> DialAgent(const std::string& address,
                                         const Credentials& credentials) {
  grpc::ChannelArguments args;
  args.SetMaxSendMessageSize(kMaxMessageBytes);
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // An agent that restarts comes back at the same address within seconds.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return Dial(address, credentials, std::move(args));
}

// gRPC's own word, not an agent's.
bool IsFromNobody(const absl::Status& status) {
  return absl::IsUnavailable(status) && GetErrorInfo(status).reason.empty();
}

// Two effects of which the second says nothing new.
bool IsSame(const Effect& a, const Effect& b) {
  if (a.index() != b.index()) return false;
  if (const auto* command = std::get_if<CommandAttempt>(&a)) {
    const auto& other = std::get<CommandAttempt>(b);
    return command->command == other.command && command->attempt == other.attempt;
  }
  if (const auto* prepare = std::get_if<PrepareRanks>(&a)) {
    return prepare->attempt == std::get<PrepareRanks>(b).attempt;
  }
  return std::get<ProbeAgent>(a).instance == std::get<ProbeAgent>(b).instance;
}

// The error of a connect that takes at most `timeout`; 0 when it worked.
int TryConnect(const addrinfo& target, absl::Duration timeout) {
  UniqueFd fd(socket(target.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) return errno;
  if (connect(fd.get(), target.ai_addr, target.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd waiting{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  if (poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) <= 0) {
    return ETIMEDOUT;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

}  // namespace

bool RefusesConnections(const std::string& address, absl::Duration timeout) {
  const auto parsed = ParseHostPort(address);
  if (!parsed.ok()) return false;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(parsed->host.c_str(), absl::StrCat(parsed->port).c_str(), &hints, &found) != 0)
    return false;
  // Every address of the name must refuse.
  bool is_refused = found != nullptr;
  for (const addrinfo* target = found; target != nullptr; target = target->ai_next) {
    if (TryConnect(*target, timeout) != ECONNREFUSED) is_refused = false;
  }
  freeaddrinfo(found);
  return is_refused;
}

class AgentCommander::Worker {
 public:
  explicit Worker(AgentCommander& commander) : commander_(commander) {}

  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      is_stopped_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void Push(const Effect& effect) {
    const std::lock_guard lock(mutex_);
    const bool is_waiting =
        std::ranges::any_of(queue_, [&](const Effect& other) { return IsSame(effect, other); });
    // What does not fit is sent again by the coordinator's resends.
    if (!is_waiting && queue_.size() < kMaxQueuedCommands) queue_.push_back(effect);
    if (!is_working_) BeginWork();
    changed_.notify_all();
  }

  // Nothing is left to do, and its thread has ended.
  bool IsIdle() const {
    const std::lock_guard lock(mutex_);
    return !is_working_ && queue_.empty();
  }

  v1::AgentService::Stub& StubFor(const std::string& address) {
    if (stub_ == nullptr || address != address_) {
      address_ = address;
      stub_ = v1::AgentService::NewStub(DialAgent(address, commander_.credentials_));
    }
    return *stub_;
  }

  // Makes a call that the destructor can cancel.
  absl::Status Call(absl::Duration deadline,
                    const std::function<grpc::Status(grpc::ClientContext*)>& call) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(deadline));
    {
      const std::lock_guard lock(mutex_);
      if (is_stopped_) return absl::CancelledError("the coordinator is shutting down");
      context_ = &context;
    }
    const absl::Status status = FromGrpcStatus(call(&context));
    {
      const std::lock_guard lock(mutex_);
      context_ = nullptr;
    }
    if (!IsFromNobody(status)) return status;
    const std::string why = ExplainTls(address_, commander_.credentials_);
    return why.empty() ? status : Unavailable(status.message(), "; ", why);
  }

 private:
  // Requires mutex_.
  void BeginWork() {
    if (thread_.joinable()) thread_.join();  // It has ended.
    try {
      thread_ = std::thread([this] { Work(); });
      is_working_ = true;
    } catch (const std::system_error& error) {
      // What waits is tried again with the next effect for the node.
      LogWarning("no thread can be started to call an agent: ", error.what());
    }
  }

  void Work() {
    const auto idle = absl::ToChronoMilliseconds(commander_.idle_);
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait_for(lock, idle, [this] { return is_stopped_ || !queue_.empty(); });
      if (is_stopped_ || queue_.empty()) break;
      const Effect effect = queue_.front();
      queue_.pop_front();
      lock.unlock();
      commander_.Run(effect, *this);
      lock.lock();
    }
    stub_ = nullptr;
    is_working_ = false;
  }

  AgentCommander& commander_;
  std::string address_;  // Of the thread alone, as stub_.
  std::unique_ptr<v1::AgentService::Stub> stub_;

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Effect> queue_;
  grpc::ClientContext* context_ = nullptr;
  bool is_working_ = false;
  bool is_stopped_ = false;
  std::thread thread_;
};

AgentCommander::AgentCommander(CoordinatorDriver& driver, const JobStore& store,
                               Credentials credentials, absl::Duration idle)
    : driver_(driver), store_(store), credentials_(std::move(credentials)), idle_(idle) {}

AgentCommander::~AgentCommander() = default;

void AgentCommander::Perform(const Effect& effect) {
  if (const auto* prepare = std::get_if<PrepareRanks>(&effect)) {
    PushTo(prepare->node.value(), effect);
  } else if (const auto* command = std::get_if<CommandAttempt>(&effect)) {
    PushTo(command->node.value(), effect);
  } else {
    // Beside the node's calls: the one to a silent agent is what the node's own thread waits for.
    PushTo(absl::StrCat(std::get<ProbeAgent>(effect).node, "/probe"), effect);
  }
}

void AgentCommander::PushTo(const std::string& name, const Effect& effect) {
  const std::lock_guard lock(mutex_);
  if (!workers_.contains(name)) {
    // Of nodes that come and go under new names, the old ones leave nothing.
    std::erase_if(workers_, [](const auto& entry) { return entry.second->IsIdle(); });
    workers_[name] = std::make_unique<Worker>(*this);
  }
  workers_[name]->Push(effect);
}

void AgentCommander::Run(const Effect& effect, Worker& worker) {
  if (const auto* prepare = std::get_if<PrepareRanks>(&effect)) {
    auto addresses = Prepare(*prepare, worker);
    CommandDone done{prepare->node, prepare->attempt, AgentCommand::kPrepare, addresses.status()};
    if (addresses.ok()) done.rank_addresses = *std::move(addresses);
    driver_.Handle(done);
  } else if (const auto* command = std::get_if<CommandAttempt>(&effect)) {
    const absl::Status status = Command(*command, worker);
    driver_.Handle(CommandDone{.node = command->node,
                               .attempt = command->attempt,
                               .command = command->command,
                               .status = status});
  } else {
    const auto& probe = std::get<ProbeAgent>(effect);
    const bool is_refused = RefusesConnections(probe.address, kProbeDeadline);
    driver_.Handle(AgentProbed{probe.node, probe.instance, probe.asked_at, is_refused});
  }
}

absl::StatusOr<std::vector<RankAddress>> AgentCommander::Prepare(const PrepareRanks& command,
                                                                 Worker& worker) {
  ASSIGN_OR_RETURN(const Job job, store_.GetJob(command.attempt.job));
  ASSIGN_OR_RETURN(const JobInputs inputs, store_.GetInputs(command.attempt.job));
  ASSIGN_OR_RETURN(const v1::PrepareRequest request, PrepareToProto(command, job, inputs));
  v1::PrepareResponse response;
  RETURN_IF_ERROR(worker.Call(kPrepareDeadline, [&](grpc::ClientContext* context) {
    return worker.StubFor(command.address).Prepare(context, request, &response);
  }));
  const bool is_on_one_node =
      std::ranges::count(command.node_of_rank, command.node) == std::ssize(command.node_of_rank);
  if (is_on_one_node) return std::vector<RankAddress>();
  return RankAddressesFromProto(response, command);
}

absl::Status AgentCommander::Commit(const CommandAttempt& command, Worker& worker) {
  ASSIGN_OR_RETURN(const Job job, store_.GetJob(command.attempt.job));
  const v1::CommitRequest request = CommitToProto(command, job);
  return worker.Call(kCommandDeadline, [&](grpc::ClientContext* context) {
    v1::CommitResponse response;
    return worker.StubFor(command.address).Commit(context, request, &response);
  });
}

absl::Status AgentCommander::Command(const CommandAttempt& command, Worker& worker) {
  if (command.command == AgentCommand::kCommit) return Commit(command, worker);
  v1::AgentService::Stub& stub = worker.StubFor(command.address);
  return worker.Call(kCommandDeadline, [&](grpc::ClientContext* context) {
    if (command.command == AgentCommand::kAbort) {
      v1::AbortRequest request;
      v1::AbortResponse response;
      request.set_node_id(command.node.value());
      *request.mutable_attempt() = AttemptToProto(command.attempt);
      return stub.Abort(context, request, &response);
    }
    v1::StopAttemptRequest request;
    v1::StopAttemptResponse response;
    request.set_node_id(command.node.value());
    *request.mutable_attempt() = AttemptToProto(command.attempt);
    request.set_grace_ms(absl::ToInt64Milliseconds(command.grace));
    request.set_reason(command.reason);
    return stub.StopAttempt(context, request, &response);
  });
}

}  // namespace autosp
