// Channels between the programs of this project.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

namespace autosp {

// To a coordinator or an agent, past a proxy of the environment, which is for the web.
std::shared_ptr<grpc::Channel> Dial(const std::string& address,
                                    grpc::ChannelArguments arguments = {});

}  // namespace autosp
