// autosp-coordinator with a planner that takes any job, for the process tests.
//   fake_compile_coordinator LISTEN PORT_FILE STATE_DIR LEASE_SECONDS
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/log.h"
#include "server/service/coordinator_server.h"
#include "tests/server/service/fake_compile.h"

int main(int argc, char** argv) {
  using namespace autosp;
  if (argc != 5) return 2;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  InitLogging("coordinator");
  auto server =
      CoordinatorServer::Start({.listen_address = argv[1],
                                .state_dir = argv[3],
                                .coordinator = OptionsForLease(absl::Seconds(std::atof(argv[4])))},
                               InThisProcess(FakeCompiler()));
  if (!server.ok()) {
    LogError(server.status().message());
    return 1;
  }
  if (!WriteFileAtomically(argv[2], absl::StrCat((*server)->port())).ok()) return 3;
  int number = 0;
  sigwait(&signals, &number);
  // Sooner than the real one, so that the lease of a test is long beside it.
  ExitAfter(absl::Seconds(1));
  return 0;
}
