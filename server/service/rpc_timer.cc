#include "server/service/rpc_timer.h"

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/metrics.h"

namespace autosp {
namespace {

class RpcTimer final : public grpc::experimental::Interceptor {
 public:
  RpcTimer(absl::string_view method, MetricRegistry& metrics)
      : method_(method.substr(method.rfind('/') + 1)), metrics_(metrics) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<absl::StatusCode>(methods->GetSendStatus().error_code());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
      metrics_.Observe(kRpcDuration, {method_, absl::StatusCodeToString(code)}, seconds.count());
    }
    methods->Proceed();
  }

 private:
  const std::string method_;
  MetricRegistry& metrics_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

grpc::experimental::Interceptor* RpcTimerFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  const bool is_unary = info->type() == grpc::experimental::ServerRpcInfo::Type::UNARY;
  return is_unary ? new RpcTimer(info->method(), metrics_) : nullptr;  // gRPC owns it.
}

}  // namespace autosp
