// The metrics of an agent, and of its ranks, which report to it.

#pragma once

#include <array>

#include "common/metrics.h"

namespace autosp::agent {

inline constexpr MetricDef kDevices = {
    .name = "autosp_agent_devices",
    .kind = MetricKind::kGauge,
    .labels = {"state"},
    .help = "Devices of the node; state is taken or free.",
};
inline constexpr MetricDef kAttempts = {
    .name = "autosp_agent_attempts",
    .kind = MetricKind::kGauge,
    .labels = {"phase"},
    .help = "Attempts on the node by phase: preparing, prepared, running, stopping or ended.",
};
inline constexpr MetricDef kRankEndsTotal = {
    .name = "autosp_agent_rank_ends_total",
    .kind = MetricKind::kCounter,
    .labels = {"state"},
    .help = "Ranks that have ended, by state: finished, failed, lost or stopped.",
};
inline constexpr MetricDef kHeartbeatsTotal = {
    .name = "autosp_agent_heartbeats_total",
    .kind = MetricKind::kCounter,
    .labels = {"result"},
    .help = "Heartbeats and registrations by result: answered or failed.",
};
inline constexpr MetricDef kLeaseLossesTotal = {
    .name = "autosp_agent_lease_losses_total",
    .kind = MetricKind::kCounter,
    .help = "Times that the coordinator was silent for the lease.",
};
inline constexpr MetricDef kReportsDroppedTotal = {
    .name = "autosp_agent_reports_dropped_total",
    .kind = MetricKind::kCounter,
    .help = "Reports of steps that gave way to newer ones while the coordinator was away.",
};
inline constexpr MetricDef kRpcDuration = {
    .name = "autosp_agent_rpc_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"method", "code"},
    .help = "Time that the agent took for a call of the coordinator, by method and gRPC code.",
    .buckets = kRpcSecondsBuckets,
};

inline constexpr MetricDef kCertificateExpiry = {
    .name = "autosp_agent_certificate_expiry_timestamp_seconds",
    .kind = MetricKind::kGauge,
    .labels = {"file"},
    .help =
        "When the agent's files of TLS expire, as Unix time: certificate, with what is between it "
        "and the CA, or ca, of which the one that lasts longest counts; 0 for what cannot be used. "
        "Absent without TLS.",
};

inline constexpr MetricDef kRankLastStep = {
    .name = "autosp_rank_last_step",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "Last step that the rank has finished.",
};
inline constexpr MetricDef kRankLastStepTime = {
    .name = "autosp_rank_last_step_timestamp_seconds",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "When the rank finished its last step, in seconds since 1970.",
};
inline constexpr MetricDef kRankStepsTotal = {
    .name = "autosp_rank_steps_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "rank"},
    .help = "Steps that the rank has finished.",
};
inline constexpr MetricDef kRankStepDuration = {
    .name = "autosp_rank_step_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"job_id", "rank"},
    .help = "Wall time of one training step: data, forward, backward and optimizer.",
    .buckets = kStepSecondsBuckets,
};
inline constexpr MetricDef kRankTokensTotal = {
    .name = "autosp_rank_tokens_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "rank"},
    .help = "Tokens of the whole job in the steps that the rank has finished.",
};
inline constexpr MetricDef kRankLoss = {
    .name = "autosp_rank_loss",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "Training loss of the last step, the mean over all valid tokens of the batch.",
};
inline constexpr MetricDef kRankValidationLoss = {
    .name = "autosp_rank_validation_loss",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "Loss of the held-out part when it was last evaluated.",
};
inline constexpr MetricDef kRankGradNorm = {
    .name = "autosp_rank_grad_norm",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "Global norm of the gradients of the last step, before clipping.",
};
inline constexpr MetricDef kRankLearningRate = {
    .name = "autosp_rank_learning_rate",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank"},
    .help = "Learning rate of the last step.",
};
inline constexpr MetricDef kRankMemory = {
    .name = "autosp_rank_memory_bytes",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank", "account"},
    .help = "Bytes in use at the end of the last step, by memory account.",
};
inline constexpr MetricDef kRankMemoryPeak = {
    .name = "autosp_rank_memory_peak_bytes",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "rank", "account"},
    .help = "Most bytes that were in use at a time, by memory account.",
};
inline constexpr MetricDef kRankCollectiveCallsTotal = {
    .name = "autosp_rank_collective_calls_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "rank", "kind", "phase"},
    .help = "Collective operations, by kind (all_to_all, ...) and phase (forward, backward, ...).",
};
inline constexpr MetricDef kRankCollectiveBytesTotal = {
    .name = "autosp_rank_collective_received_bytes_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "rank", "kind", "phase"},
    .help = "Bytes that the rank received in collective operations, by kind and phase.",
};
inline constexpr MetricDef kRankCollectiveSecondsTotal = {
    .name = "autosp_rank_collective_seconds_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "rank", "kind", "phase"},
    .help = "Time that the rank spent in collective operations, by kind and phase.",
};

// One list, so that /metrics, docs/metrics.md and the dashboard check cannot disagree.
inline constexpr std::array kAgentMetrics = {
    &kDevices,
    &kAttempts,
    &kRankEndsTotal,
    &kHeartbeatsTotal,
    &kLeaseLossesTotal,
    &kReportsDroppedTotal,
    &kRpcDuration,
    &kCertificateExpiry,
    &kRankLastStep,
    &kRankLastStepTime,
    &kRankStepsTotal,
    &kRankStepDuration,
    &kRankTokensTotal,
    &kRankLoss,
    &kRankValidationLoss,
    &kRankGradNorm,
    &kRankLearningRate,
    &kRankMemory,
    &kRankMemoryPeak,
    &kRankCollectiveCallsTotal,
    &kRankCollectiveBytesTotal,
    &kRankCollectiveSecondsTotal,
};

}  // namespace autosp::agent
