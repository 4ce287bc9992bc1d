// The metrics of the coordinator: jobs as a whole, nodes, calls. What single ranks do is with their
// agents (worker/agent/metrics.h).
#pragma once

#include <array>

#include "common/metrics.h"

namespace autosp {

inline constexpr MetricDef kJobs = {
    .name = "autosp_jobs",
    .kind = MetricKind::kGauge,
    .labels = {"state"},
    .help = "Jobs that have not ended, by state: queued, verifying, starting, running or stopping.",
};
inline constexpr MetricDef kJobTransitionsTotal = {
    .name = "autosp_job_transitions_total",
    .kind = MetricKind::kCounter,
    .labels = {"from", "to"},
    .help =
        "Job state changes. The labels are the states of docs/architecture-jobs.md; from is "
        "none for a new job.",
};
inline constexpr MetricDef kJobFaultsTotal = {
    .name = "autosp_job_faults_total",
    .kind = MetricKind::kCounter,
    .labels = {"kind"},
    .help =
        "Jobs that have failed for good, by kind of cause: rank_lost, rank_failed, agent_lost, "
        "hung, start_failed, not_reattached or plan_differs.",
};
inline constexpr MetricDef kJobRunning = {
    .name = "autosp_job_running",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "1 while every rank of the job is up, 0 while it waits, starts or stops, and after it.",
};
inline constexpr MetricDef kJobLastStep = {
    .name = "autosp_job_last_step",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Last step that every rank of the job has finished.",
};
inline constexpr MetricDef kJobStepsTotal = {
    .name = "autosp_job_steps_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id"},
    .help =
        "Steps that every rank of the job has finished since the coordinator started; those that "
        "are "
        "done again after a restart count again.",
};
inline constexpr MetricDef kJobStepDuration = {
    .name = "autosp_job_step_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"job_id"},
    .help =
        "Wall time of one training step on the slowest rank: data, forward, backward and "
        "optimizer.",
    .buckets = kStepSecondsBuckets,
};
inline constexpr MetricDef kJobTokensTotal = {
    .name = "autosp_job_tokens_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id"},
    .help = "Tokens that the job has trained on since the coordinator started.",
};
inline constexpr MetricDef kJobTokensPerSecond = {
    .name = "autosp_job_tokens_per_second",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Tokens per second of the last step, of the whole job.",
};
inline constexpr MetricDef kJobModelFlops = {
    .name = "autosp_job_model_flops_per_second",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help =
        "Floating point operations of the model per second of the last step, of the whole job: "
        "without padding, and without what is made again or done by several ranks.",
};
inline constexpr MetricDef kJobModelFlopsUtilization = {
    .name = "autosp_job_model_flops_utilization_ratio",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help =
        "The same as a part of what the job's devices could do at their peak in bf16 (MFU); only "
        "of devices whose kind says it.",
};
inline constexpr MetricDef kJobLoss = {
    .name = "autosp_job_loss",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Training loss of the last step, the mean over all valid tokens of the batch.",
};
inline constexpr MetricDef kJobValidationLoss = {
    .name = "autosp_job_validation_loss",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Loss of the held-out part when it was last evaluated.",
};
inline constexpr MetricDef kJobMemory = {
    .name = "autosp_job_memory_bytes",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "account"},
    .help = "Bytes in use at the end of the last step on the rank with most, by memory account.",
};
inline constexpr MetricDef kJobMemoryPeak = {
    .name = "autosp_job_memory_peak_bytes",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "account"},
    .help = "Most bytes that were in use at a time on any rank, by memory account.",
};
inline constexpr MetricDef kJobMemoryPredicted = {
    .name = "autosp_job_memory_predicted_peak_bytes",
    .kind = MetricKind::kGauge,
    .labels = {"job_id", "account"},
    .help = "What the plan says that the peak will be, per rank and by memory account.",
};
inline constexpr MetricDef kJobCollectiveBytesTotal = {
    .name = "autosp_job_collective_received_bytes_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "kind", "phase"},
    .help = "Bytes that one rank (the one with most) received in collectives, by kind and phase.",
};
inline constexpr MetricDef kJobCollectiveSecondsTotal = {
    .name = "autosp_job_collective_seconds_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "kind", "phase"},
    .help = "Time that one rank (the one with most) spent in collectives, by kind and phase.",
};

inline constexpr MetricDef kJobRestarts = {
    .name = "autosp_job_restarts",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Times that the job has started again after the loss of a rank or an agent.",
};
inline constexpr MetricDef kJobCheckpointStep = {
    .name = "autosp_job_checkpoint_step",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Step of the job's last checkpoint that is on disk.",
};
inline constexpr MetricDef kJobCheckpointsTotal = {
    .name = "autosp_job_checkpoints_total",
    .kind = MetricKind::kCounter,
    .labels = {"job_id", "event"},
    .help =
        "Checkpoints by what has become of them: committed, not_written, resumed (training went "
        "on from it) or skipped (it was damaged).",
};
inline constexpr MetricDef kJobCheckpointSeconds = {
    .name = "autosp_job_checkpoint_write_seconds",
    .kind = MetricKind::kGauge,
    .labels = {"job_id"},
    .help = "Time from the copy of the state to the commit, of the job's last checkpoint.",
};

inline constexpr MetricDef kVerificationsTotal = {
    .name = "autosp_verifications_total",
    .kind = MetricKind::kCounter,
    .labels = {"outcome"},
    .help =
        "Verifications of plans before training, by outcome: equal, differs, no_result (lost, "
        "failed or too slow) or known (an earlier job had the same plan).",
};
inline constexpr MetricDef kVerificationSeconds = {
    .name = "autosp_verification_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {},
    .help = "Time that a node took to verify a plan, of those verifications that had a result.",
    .buckets = kStepSecondsBuckets,
};

inline constexpr MetricDef kCompiles = {
    .name = "autosp_compiles",
    .kind = MetricKind::kGauge,
    .labels = {"state"},
    .help = "Submitted jobs that are being compiled, by state: running, or waiting for a turn.",
};
inline constexpr MetricDef kCompileDuration = {
    .name = "autosp_compile_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"outcome"},
    .help =
        "Time that compiling a job took, by outcome: planned, refused (for what is in the job), "
        "failed (the compiler crashed, or took too much time or memory) or unwanted (nobody waited "
        "for it any more).",
    .buckets = kStepSecondsBuckets,
};

inline constexpr MetricDef kNodes = {
    .name = "autosp_nodes",
    .kind = MetricKind::kGauge,
    .labels = {"state"},
    .help =
        "Nodes by state: expected, ready, ending, suspect or lost. A lost node is forgotten a day "
        "after its last heartbeat.",
};
inline constexpr MetricDef kDevices = {
    .name = "autosp_devices",
    .kind = MetricKind::kGauge,
    .labels = {"state"},
    .help = "Devices of the nodes that are neither lost nor ending, by state: free or taken.",
};
inline constexpr MetricDef kRpcDuration = {
    .name = "autosp_rpc_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"method", "code"},
    .help =
        "Time that the coordinator took for a call that is not a stream, by method and gRPC "
        "code.",
    .buckets = kRpcSecondsBuckets,
};
inline constexpr MetricDef kStoreWriteDuration = {
    .name = "autosp_store_write_duration_seconds",
    .kind = MetricKind::kHistogram,
    .labels = {"result"},
    .help = "Time to make a decision durable, by result: ok or failed.",
    .buckets = kRpcSecondsBuckets,
};

inline constexpr MetricDef kCertificateExpiry = {
    .name = "autosp_certificate_expiry_timestamp_seconds",
    .kind = MetricKind::kGauge,
    .labels = {"file"},
    .help =
        "When the coordinator's files of TLS expire, as Unix time: certificate, with what is "
        "between it "
        "and the CA, or ca, of which the one that lasts longest counts; 0 for what cannot be used. "
        "Absent without TLS.",
};

// One list, so that /metrics, docs/metrics.md and the dashboard check cannot disagree.
inline constexpr std::array kCoordinatorMetrics = {
    &kJobs,
    &kJobTransitionsTotal,
    &kJobFaultsTotal,
    &kJobRunning,
    &kJobLastStep,
    &kJobStepsTotal,
    &kJobStepDuration,
    &kJobTokensTotal,
    &kJobTokensPerSecond,
    &kJobModelFlops,
    &kJobModelFlopsUtilization,
    &kJobLoss,
    &kJobValidationLoss,
    &kJobMemory,
    &kJobMemoryPeak,
    &kJobMemoryPredicted,
    &kJobCollectiveBytesTotal,
    &kJobCollectiveSecondsTotal,
    &kJobRestarts,
    &kJobCheckpointStep,
    &kJobCheckpointsTotal,
    &kJobCheckpointSeconds,
    &kVerificationsTotal,
    &kVerificationSeconds,
    &kCompiles,
    &kCompileDuration,
    &kNodes,
    &kDevices,
    &kRpcDuration,
    &kStoreWriteDuration,
    &kCertificateExpiry,
};

}  // namespace autosp
