// Bounds of an agent: sizes of messages, queues and logs, and how long things may take. Everything
// that could grow or hang has one.

#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace autosp::agent {

// A program is text inside Prepare; everything else is small.
inline constexpr int kMaxOrderBytes = 64 << 20;
inline constexpr int kMaxRankReportBytes = 1 << 20;

// Who follows a log holds a thread of the server; orders of the coordinator need some too.
inline constexpr int kMaxServerThreads = 64;
inline constexpr int kMaxLogReaders = 32;

inline constexpr int kMaxDevices = 1024;
inline constexpr int64_t kMaxWorldSize = 1 << 16;
inline constexpr absl::Duration kMaxCommitTimeout = absl::Minutes(10);
inline constexpr absl::Duration kMaxStopGrace = absl::Minutes(10);

// How long an order waits for the lease that the answer to a heartbeat brings.
inline constexpr absl::Duration kLeaseWait = absl::Seconds(2);

// How long the first word of a rank waits for the end of its own start.
inline constexpr absl::Duration kStartedPatience = absl::Seconds(10);

// When a heartbeat's answer orders a stop, which names no grace of its own.
inline constexpr absl::Duration kListedStopGrace = absl::Seconds(5);
// When the agent itself is asked to end.
inline constexpr absl::Duration kShutdownGrace = absl::Seconds(3);
inline constexpr absl::Duration kRendezvousTimeout = absl::Seconds(60);

// How often the agent's loop looks for ended processes and passed deadlines.
inline constexpr absl::Duration kTickInterval = absl::Milliseconds(20);

// A rank's log is at most two files of this size: the current one and the one before.
inline constexpr int64_t kMaxLogFileBytes = int64_t{16} << 20;
inline constexpr size_t kNumTailLines = 20;
// Of a rank that runs, with each heartbeat.
inline constexpr size_t kNumLiveTailLines = 5;
inline constexpr size_t kMaxTailLineBytes = 400;
inline constexpr size_t kLogChunkBytes = size_t{64} << 10;

// How long the last values of a job that has left stay on /metrics, so that they are scraped.
inline constexpr absl::Duration kMetricsRetention = absl::Minutes(10);

// Folders of attempts that have ended, kept for their logs.
inline constexpr size_t kMaxKeptAttempts = 100;

}  // namespace autosp::agent
