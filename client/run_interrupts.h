// What Ctrl-C does in each stage of `autosp-cli run`.
#pragma once

#include <mutex>
#include <string>

#include "client/coordinator_client.h"
#include "client/interrupts.h"

namespace autosp {

// Before BeginSubmission an interrupt is only remembered. Thread-safe.
class RunInterrupts {
 public:
  RunInterrupts() : interrupts_([this](int count) { OnInterrupt(count); }) {}

  bool is_interrupted();

  // From now on, until EndJob, an interrupt breaks off the calls of `client`, as does one that came
  // before: no job runs yet.
  void BeginSubmission(CoordinatorClient* client);

  // From now on the first interrupt cancels the job of the coordinator at `address`, so that its
  // end can be watched, and the next breaks off the calls.
  void BeginJob(const std::string& address, const std::string& job_id);

  void EndJob();

 private:
  void OnInterrupt(int count);

  // Requires: mutex_ is held.
  bool CancelJob();

  std::mutex mutex_;  // Guards the next four.
  int count_ = 0;
  std::string address_;
  std::string job_id_;  // empty: there is none
  CoordinatorClient* client_ = nullptr;
  Interrupts interrupts_;  // last: its thread uses the others
};

}  // namespace autosp
