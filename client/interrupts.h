// Ctrl-C, SIGTERM and SIGHUP as calls on an ordinary thread, where anything may be done.
#pragma once

#include <functional>
#include <thread>

#include "common/file.h"

namespace autosp {

// While it lives, each of these signals, unless it was ignored before, calls `on_interrupt(n)`, n
// counting from 1, on a thread of its own. At most one lives at a time. The handlers from before
// come back with its end.
class Interrupts {
 public:
  explicit Interrupts(std::function<void(int count)> on_interrupt);
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  void Run();

  std::function<void(int)> on_interrupt_;
  UniqueFd read_end_;
  std::thread thread_;
};

}  // namespace autosp
