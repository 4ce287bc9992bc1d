#include "client/interrupts.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "common/check.h"

namespace autosp {
namespace {

// A signal handler can reach globals only, and do little more than write to a pipe.
std::atomic<int> g_write_fd = -1;
constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
std::array<struct sigaction, kSignals.size()> g_old_actions;

constexpr char kSignal = 's';
constexpr char kEnd = 'e';

void OnSignal(int /*signal_number*/) {
  const int saved_errno = errno;
  // The pipe is never full: it takes thousands of signals.
  [[maybe_unused]] const ssize_t written = write(g_write_fd.load(), &kSignal, 1);
  errno = saved_errno;
}

}  // namespace

Interrupts::Interrupts(std::function<void(int)> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)) {
  AUTOSP_CHECK(g_write_fd.load() < 0, "one at a time");
  int fds[2];
  AUTOSP_CHECK(pipe2(fds, O_CLOEXEC) == 0, "no pipe");
  read_end_.Reset(fds[0]);
  g_write_fd.store(fds[1]);
  thread_ = std::thread([this] { Run(); });
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &g_old_actions[i]);
    // What is ignored from the start stays so: by that nohup keeps a command, and a script one in
    // the background.
    if (g_old_actions[i].sa_handler == SIG_IGN) continue;
    sigaction(kSignals[i], &action, nullptr);
  }
}

Interrupts::~Interrupts() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &g_old_actions[i], nullptr);
  }
  [[maybe_unused]] const ssize_t written = write(g_write_fd.load(), &kEnd, 1);
  thread_.join();
  close(g_write_fd.exchange(-1));
}

void Interrupts::Run() {
  char byte = 0;
  int count = 0;
  while (true) {
    const ssize_t size = read(read_end_.get(), &byte, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || byte == kEnd) return;
    on_interrupt_(++count);
  }
}

}  // namespace autosp
