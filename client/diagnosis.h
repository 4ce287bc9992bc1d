// All that `autosp-cli doctor` finds: this machine, and what its coordinator says of the others.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/coordinator_client.h"
#include "client/doctor.h"

namespace autosp {

// InvalidArgument: `listen` cannot be read.
absl::StatusOr<std::vector<Finding>> Diagnose(const std::string& program_folder,
                                              const ServerAddress& server,
                                              const ListenOptions& listen = {});

// Of the coordinator, by a question to it, and of every node that it knows.
std::vector<ClockFact> CompareClocks(CoordinatorClient& client, const std::vector<v1::Node>& nodes);

}  // namespace autosp
