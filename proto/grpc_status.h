// absl::Status on one side of the wire, grpc::Status on the other. The only place that converts.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace autosp {

// Code, message and, as details, a StatusDetails with the ErrorInfo of `status`. An error without
// reason gets the name of its code ("INVALID_ARGUMENT"), so that clients always find one. Long
// texts lose their middle, and say so: they travel as headers, of which clients take 8 KiB; where
// there are more, the caller would be told that alone.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse. An error of gRPC itself (no connection, deadline) has an empty ErrorInfo.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace autosp
