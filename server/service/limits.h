// Bounds of the coordinator's services. Everything that a caller could make grow or hang has one.
//
// The deadline rule: a call without a deadline gets none from gRPC, so each handler bounds its own
// waiting; calls to agents always carry one of the deadlines below.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace autosp {

// A program is text inside Prepare; everything else is small.
inline constexpr int kMaxMessageBytes = 64 << 20;

inline constexpr size_t kMaxJobYamlBytes = 1 << 20;
inline constexpr int kMaxFiles = 100'000;
inline constexpr size_t kMaxUriBytes = 4096;
inline constexpr size_t kMaxReasonBytes = 1024;
inline constexpr int32_t kDefaultPageSize = 50;
inline constexpr int32_t kMaxPageSize = 500;

// Compiling takes a core and memory; others wait their turn, up to the time after it.
inline constexpr int kMaxCompiles = 2;
inline constexpr absl::Duration kMaxCompileWait = absl::Seconds(60);
// Each that waits holds a thread, and agents need some as well: more are refused at once.
inline constexpr int kMaxCompileWaiters = 32;

// A watcher or a reader of logs holds a thread.
inline constexpr int kMaxStreams = 64;
inline constexpr int kMaxServerThreads = 256;
inline constexpr int64_t kHistoryBatch = 200;
inline constexpr absl::Duration kWatchPoll = absl::Milliseconds(500);

// What agents send.
inline constexpr int kMaxDevices = 1024;
inline constexpr int kMaxAttemptsPerAgent = 1024;
inline constexpr int kMaxReportsPerRequest = 4096;
inline constexpr int64_t kMaxWorldSize = 1 << 16;
// Far above anything real, and far enough from overflow.
inline constexpr int64_t kMaxGeneration = 1'000'000'000;
inline constexpr int64_t kMaxStep = int64_t{1} << 50;
inline constexpr int64_t kMaxTokensPerStep = int64_t{1} << 40;
inline constexpr int kMaxLogLines = 20;
inline constexpr size_t kMaxLogLineBytes = 400;
inline constexpr size_t kMaxRankMessageBytes = 16 << 10;
inline constexpr int kMaxUsesPerStep = 256;
inline constexpr int kMaxOutputsPerRank = 1024;

// Calls to agents.
inline constexpr absl::Duration kPrepareDeadline = absl::Seconds(60);
inline constexpr absl::Duration kCommandDeadline = absl::Seconds(10);
inline constexpr absl::Duration kProbeDeadline = absl::Seconds(1);
inline constexpr size_t kMaxQueuedCommands = 1000;  // per node
// A node to which nothing was sent for so long holds no thread and no connection.
inline constexpr absl::Duration kCommanderIdle = absl::Seconds(10);

inline constexpr absl::Duration kTickInterval = absl::Milliseconds(100);

// How long the last values of a job that has ended stay on /metrics, so that they are scraped.
inline constexpr absl::Duration kMetricsRetention = absl::Minutes(10);

}  // namespace autosp
