#include "worker/agent/agent_service.h"

#include <functional>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "proto/grpc_status.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/log_reader.h"
#include "worker/agent/metrics.h"
#include "worker/agent/order_from_proto.h"

namespace autosp::agent {
namespace {

// Runs a handler, measures it and maps its status.
grpc::Status Handle(const char* method, MetricRegistry& registry,
                    const std::function<absl::Status()>& handler) {
  const Clock& clock = Clock::Real();
  const absl::Duration start = clock.Steady();
  const absl::Status status = handler();
  registry.Observe(kRpcDuration, {method, absl::StatusCodeToString(status.code())},
                   absl::ToDoubleSeconds(clock.Steady() - start));
  if (!status.ok()) LogInfo(method, " refused: ", status.message());
  return ToGrpcStatus(status);
}

}  // namespace

grpc::Status AgentServiceImpl::Prepare(grpc::ServerContext* /*context*/,
                                       const v1::PrepareRequest* request,
                                       v1::PrepareResponse* response) {
  return Handle("Prepare", registry_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const AttemptOrder order, OrderFromProto(*request));
    ASSIGN_OR_RETURN(const RankAddresses addresses, agent_.Prepare(order));
    for (const auto& [rank, address] : addresses) {
      v1::RankAddress& entry = *response->add_rank_addresses();
      entry.set_rank(static_cast<int32_t>(rank.value()));
      entry.set_address(address);
    }
    return absl::OkStatus();
  });
}

grpc::Status AgentServiceImpl::Commit(grpc::ServerContext* /*context*/,
                                      const v1::CommitRequest* request,
                                      v1::CommitResponse* /*response*/) {
  return Handle("Commit", registry_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const AttemptKey key, KeyFromProto(request->attempt()));
    ASSIGN_OR_RETURN(const PeersOrder peers, PeersFromProto(*request));
    return agent_.Commit(NodeId(request->node_id()), key, peers);
  });
}

grpc::Status AgentServiceImpl::Abort(grpc::ServerContext* /*context*/,
                                     const v1::AbortRequest* request,
                                     v1::AbortResponse* /*response*/) {
  return Handle("Abort", registry_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const AttemptKey key, KeyFromProto(request->attempt()));
    return agent_.Abort(NodeId(request->node_id()), key);
  });
}

grpc::Status AgentServiceImpl::StopAttempt(grpc::ServerContext* /*context*/,
                                           const v1::StopAttemptRequest* request,
                                           v1::StopAttemptResponse* /*response*/) {
  return Handle("StopAttempt", registry_, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const AttemptKey key, KeyFromProto(request->attempt()));
    ASSIGN_OR_RETURN(const absl::Duration grace, GraceFromProto(request->grace_ms()));
    return agent_.Stop(NodeId(request->node_id()), key, grace, request->reason());
  });
}

grpc::Status AgentServiceImpl::ReadLog(grpc::ServerContext* context,
                                       const v1::ReadLogRequest* request,
                                       grpc::ServerWriter<v1::ReadLogResponse>* writer) {
  return ToGrpcStatus(DoReadLog(*context, *request, *writer));
}

absl::Status AgentServiceImpl::DoReadLog(const grpc::ServerContext& context,
                                         const v1::ReadLogRequest& request,
                                         grpc::ServerWriter<v1::ReadLogResponse>& writer) {
  ASSIGN_OR_RETURN(const AttemptKey key, KeyFromProto(request.attempt()));
  if (request.rank() < 0) return InvalidArgument("rank (", request.rank(), ") is negative");
  if (request.tail_lines() < 0) {
    return InvalidArgument("tail_lines (", request.tail_lines(), ") is negative");
  }
  const absl::Cleanup leave = [this] { --num_log_readers_; };
  if (++num_log_readers_ > kMaxLogReaders) {
    return ResourceExhausted(kMaxLogReaders, " logs are being read on this node; try again later");
  }
  const Rank rank(request.rank());
  LogReadOptions options;
  options.tail_lines = request.tail_lines();
  if (request.follow()) {
    options.is_growing = [&] { return agent_.IsLogGrowing(key, rank); };
  }
  options.is_cancelled = [&] { return context.IsCancelled(); };
  return ReadRankLog(agent_.LogPath(key, rank), options, [&](absl::string_view data) {
    v1::ReadLogResponse response;
    response.set_data(data.data(), data.size());
    return writer.Write(response);
  });
}

}  // namespace autosp::agent
