#include "proto/dial.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

namespace autosp {

std::shared_ptr<grpc::Channel> Dial(const std::string& address, grpc::ChannelArguments arguments) {
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace autosp
