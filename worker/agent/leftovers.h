// What an earlier life of the agent may have left: ranks that the kernel did not kill with it,
// shared memory, rendezvous files, a model that was half written. And what ended attempts leave:
// folders that nobody will read again.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "worker/agent/attempt_files.h"

namespace autosp::agent {

// Removes the shared memory whose names start with `prefix` ("/autosp-<job>-<generation>"); the
// prefix of another attempt that merely starts the same ("...-1" and "...-12") is not touched.
// Returns how many there were.
int RemoveSharedMemory(const std::string& prefix);

// After the last process of an attempt has ended.
void CleanUpAttemptFiles(const AttemptFiles& files, const AttemptKey& key);

// On start, before any device is offered: kills what still runs of attempts that were live, waits
// until it is gone, and cleans up after it. DEADLINE_EXCEEDED when a process cannot be killed.
absl::Status CleanUpEarlierLife(const AttemptFiles& files);

// Removes the folders of the attempts that ended longest ago, until kMaxKeptAttempts are left.
void PruneAttemptFolders(const AttemptFiles& files);

}  // namespace autosp::agent
