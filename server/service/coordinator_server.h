// The whole coordinator in one object: store, driver, services, metrics. main() and the tests use
// it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/config/cluster_spec.h"
#include "proto/credentials.h"
#include "server/coordinator/coordinator.h"
#include "server/service/job_intake.h"

namespace autosp {

struct CoordinatorServerOptions {
  std::string listen_address = "127.0.0.1:0";  // port 0 takes any free one
  std::string state_dir;                       // is created
  std::string metrics_address = {};            // host:port; empty: none
  std::optional<ClusterSpec> cluster = {};     // of the cluster file
  CoordinatorOptions coordinator = {};
  Credentials credentials = {};  // from Credentials::ForServer
  TlsClients tls_clients = TlsClients::kWithCertificate;
};

// The options that follow from a lease: the shorter it is, the more often agents must speak.
CoordinatorOptions OptionsForLease(absl::Duration lease);

// How long the end of the program may take. The last answers have two seconds, and the lease of
// running jobs is to be left for the next start.
inline constexpr absl::Duration kEndPatience = absl::Seconds(3);

// Ends the process after `patience`, whatever it still does. What has been answered is durable.
void ExitAfter(absl::Duration patience);

class CoordinatorServer {
 public:
  // Opens the store, takes up what it finds there, and listens.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(CoordinatorServerOptions options,
                                                                  JobCompiler compile);
  // Answers what has begun, then ends. Ranks are left running: their agents keep them for a lease.
  ~CoordinatorServer();

  int port() const;
  int metrics_port() const;  // 0: none

 private:
  struct Parts;
  explicit CoordinatorServer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace autosp
