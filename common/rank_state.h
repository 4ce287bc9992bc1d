// How far the process of a rank has come: what agents see, report and the coordinator keeps.
#pragma once

#include "absl/strings/string_view.h"

namespace autosp {

enum class RankState {
  kPrepared,  // A device is reserved for it; there is no process.
  kSpawned,   // Its process exists.
  kRunning,   // It has said hello.
  kFinished,  // It has said that all is done.
  kFailed,    // It has said that it cannot go on.
  kLost,      // Its process ended without either.
  kStopped,   // It was ended on request.
};

// Finished, failed, lost and stopped: the state stays, and the rank does nothing any more, though
// its process may exist a little longer.
bool HasEnded(RankState state);

absl::string_view ToString(RankState state);

}  // namespace autosp
