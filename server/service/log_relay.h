// Forwards a rank's log from its agent to a user.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/status.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "proto/credentials.h"
#include "server/service/request_from_proto.h"

namespace autosp {

absl::Status RelayLog(grpc::ServerContext& context, const std::string& agent_address,
                      const Credentials& credentials, const LogQuery& query,
                      grpc::ServerWriter<v1::GetLogsResponse>& writer);

}  // namespace autosp
