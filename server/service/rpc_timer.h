// Measures every call that is not a stream, for autosp_rpc_duration_seconds.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "common/metrics_exporter.h"

namespace autosp {

class RpcTimerFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // The registry has the metrics of server/metrics.h and outlives the server.
  explicit RpcTimerFactory(MetricRegistry& metrics) : metrics_(metrics) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  MetricRegistry& metrics_;
};

}  // namespace autosp
