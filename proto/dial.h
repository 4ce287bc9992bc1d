// Channels between the programs of this project.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "proto/credentials.h"

namespace autosp {

// To a coordinator or an agent, past a proxy of the environment, which is for the web.
std::shared_ptr<grpc::Channel> Dial(const std::string& address, const Credentials& credentials,
                                    grpc::ChannelArguments arguments = {});

// Why nobody was found at `address` (host:port), and what to do about it, where that is for TLS;
// else empty. Connects there to see what it speaks, which takes a second at most.
std::string ExplainTls(const std::string& address, const Credentials& credentials);

}  // namespace autosp
