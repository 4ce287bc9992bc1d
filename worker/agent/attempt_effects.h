// What AttemptTable asks of the world. Effects are data; the agent performs them.

#pragma once

#include <variant>
#include <vector>

#include "common/ids.h"
#include "worker/agent/attempt.h"

namespace autosp::agent {

// Start the rank's process, unless the rank is no longer wanted (AttemptTable::ShouldStart) by the
// time that the effect is performed.
struct StartRank {
  AttemptKey key;
  Rank rank;
  friend bool operator==(const StartRank&, const StartRank&) = default;
};

// Send a signal to the rank's process group. If the process has ended already, that is reported
// instead (AttemptTable::ProcessEnded), so that its own end is not mistaken for our doing.
struct SignalRank {
  AttemptKey key;
  Rank rank;
  int signal_number = 0;
  friend bool operator==(const SignalRank&, const SignalRank&) = default;
};

// Tell the coordinator the rank's new state.
struct ReportRank {
  AttemptKey key;
  Rank rank;
  friend bool operator==(const ReportRank&, const ReportRank&) = default;
};

// The attempt has ended: remove what it left outside of its own folder (shared memory).
struct CleanUpAttempt {
  AttemptKey key;
  friend bool operator==(const CleanUpAttempt&, const CleanUpAttempt&) = default;
};

// The coordinator knows how the attempt ended: drop what was kept for it (metrics, log tails).
struct ForgetAttempt {
  AttemptKey key;
  friend bool operator==(const ForgetAttempt&, const ForgetAttempt&) = default;
};

using Effect = std::variant<StartRank, SignalRank, ReportRank, CleanUpAttempt, ForgetAttempt>;
using Effects = std::vector<Effect>;

}  // namespace autosp::agent
