"""Writes the Grafana dashboards into helm/autosp/dashboards: make_dashboards.py [--check].

With --check it writes nothing, and fails where a file is not what it would write.
"""

import json
import pathlib
import sys

from panels import WIDTH, dashboard, heat_map, lines, number, query, variable

TARGET = pathlib.Path(__file__).resolve().parents[2] / "helm" / "autosp" / "dashboards"


def rate(metric, labels=""):
    return f"rate({metric}{labels}[$__rate_interval])"


def quantile(q, metric, by="", labels=""):
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({groups}) ({rate(metric + '_bucket', labels)}))"


def cluster():
    devices = 'autosp_devices{state="taken"}'
    return dashboard(
        "autosp-cluster", "AutoSP / Cluster", "Nodes, devices and jobs as a whole.", [
            number("Nodes that are ready", "none", 'sum(autosp_nodes{state="ready"})'),
            number("Nodes that are lost", "none", 'sum(autosp_nodes{state="lost"})'),
            number("Devices that are taken", "percentunit",
                   f"sum({devices}) / clamp_min(sum(autosp_devices), 1)"),
            number("Jobs that run", "none", 'sum(autosp_jobs{state="running"})'),
            number("Jobs that wait", "none", 'sum(autosp_jobs{state="queued"})'),
            number("Tokens per second", "none",
                   "sum(autosp_job_tokens_per_second * on (job_id) autosp_job_running)"),
            lines("Devices", "none", [query("sum by (state) (autosp_devices)", "{{state}}")],
                  stacked=True),
            lines("Jobs", "none", [query("sum by (state) (autosp_jobs)", "{{state}}")],
                  stacked=True),
            lines("Nodes", "none", [query("sum by (state) (autosp_nodes)", "{{state}}")],
                  stacked=True),
            lines("Tokens per second by job", "none",
                  [query("autosp_job_tokens_per_second * on (job_id) autosp_job_running",
                         "{{job_id}}")], stacked=True),
            lines("Jobs that failed, by cause", "none",
                  [query("sum by (kind) (increase(autosp_job_faults_total[1h]))", "{{kind}}")],
                  description="Within the hour before."),
            lines("Plans that were verified", "none",
                  [query("sum by (outcome) (increase(autosp_verifications_total[1h]))",
                         "{{outcome}}")], description="Within the hour before."),
            lines("Time to verify a plan", "s",
                  [query(quantile(0.9, "autosp_verification_seconds"), "90 % are below")]),
            lines("Ends of ranks", "none",
                  [query("sum by (state) (increase(autosp_agent_rank_ends_total[1h]))",
                         "{{state}}")], description="Within the hour before."),
            lines("Devices taken by node", "none",
                  [query('autosp_agent_devices{state="taken"}', "{{instance}}")]),
            lines("Attempts on the nodes", "none",
                  [query("sum by (phase) (autosp_agent_attempts)", "{{phase}}")]),
            lines("Heartbeats that fail", "none",
                  [query(rate("autosp_agent_heartbeats_total", '{result="failed"}'),
                         "{{instance}}")], description="By node, per second."),
            lines("Leases lost and reports dropped", "none",
                  [query("sum(increase(autosp_agent_lease_losses_total[1h]))", "leases"),
                   query("sum(increase(autosp_agent_reports_dropped_total[1h]))", "reports")],
                  description="Within the hour before."),
            lines("Calls to agents, p99", "s",
                  [query(quantile(0.99, "autosp_agent_rpc_duration_seconds", "method"),
                         "{{method}}")]),
            lines("Targets that answer Prometheus", "none",
                  [query('sum by (job) (up{job=~"autosp-.*"})', "{{job}}")]),
        ])


JOB = '{job_id="$job_id"}'
# Of accounts of memory: buffers of exchanges are a part of the device.
APART = '{job_id="$job_id",account!="communication"}'


def job_progress():
    return [
        number("Step", "none", f"autosp_job_last_step{JOB}"),
        number("Loss", "none", f"autosp_job_loss{JOB}"),
        number("Tokens per second", "none", f"autosp_job_tokens_per_second{JOB}"),
        number("Seconds per step", "s",
               f"autosp_job_step_duration_seconds_sum{JOB}"
               f" / autosp_job_step_duration_seconds_count{JOB}"),
        number("Tokens", "none", f"autosp_job_tokens_total{JOB}"),
        number("Runs", "bool_yes_no", f"autosp_job_running{JOB}"),
        lines("Loss", "none", [query(f"autosp_job_loss{JOB}", "training"),
                               query(f"autosp_job_validation_loss{JOB}", "validation")]),
        lines("Tokens per second", "none", [query(rate("autosp_job_tokens_total", JOB), "tokens")]),
        lines("Time of a step", "s",
              [query(quantile(q, "autosp_job_step_duration_seconds", labels=JOB), name)
               for q, name in ((0.5, "p50"), (0.99, "p99"))],
              description="On the slowest rank, from the histogram's buckets."),
        lines("Operations of the model per second", "flops",
              [query(f"autosp_job_model_flops_per_second{JOB}", "whole job")],
              description="Without padding and what is made again."),
        lines("Share of the devices' peak", "percentunit",
              [query(f"autosp_job_model_flops_utilization_ratio{JOB}", "MFU")],
              description="Of the peak in bf16. CPUs have no stated peak, and no line."),
        lines("Norm of the gradients", "none",
              [query(f"max(autosp_rank_grad_norm{JOB})", "before clipping")]),
        lines("Learning rate", "none", [query(f"max(autosp_rank_learning_rate{JOB})", "rate")]),
        lines("Restarts of this job", "none", [query(f"autosp_job_restarts{JOB}", "restarts")],
              description="After losing a rank or an agent; see training.max_restarts."),
        lines("Step of the newest checkpoint", "none",
              [query(f"autosp_job_checkpoint_step{JOB}", "committed"),
               query(f"autosp_job_last_step{JOB}", "trained")]),
        lines("Checkpoints", "none",
              [query(rate("autosp_job_checkpoints_total", JOB), "{{event}} per second")]),
        lines("Time to write a checkpoint", "s",
              [query(f"autosp_job_checkpoint_write_seconds{JOB}", "copy to commit")]),
        lines("Attempts begun anew, all jobs", "none",
              [query('sum(increase(autosp_job_transitions_total{from="stopping",to="queued"}[1h]))'
                     ' - (sum(increase(autosp_verifications_total{outcome="equal"}[1h]))'
                     ' or vector(0))', "restarts")], description="Within the hour before."),
    ]


def job_memory():
    return [
        lines("Peak memory of a rank, predicted and measured", "bytes",
              [query(f"autosp_job_memory_predicted_peak_bytes{JOB}", "{{account}} predicted"),
               query(f"autosp_job_memory_peak_bytes{JOB}", "{{account}} measured")],
              description="By account. Measured on the rank that needed most."),
        lines("Measured over predicted peak", "percentunit",
              [query(f"autosp_job_memory_peak_bytes{JOB}"
                     f" / (autosp_job_memory_predicted_peak_bytes{JOB} > 0)", "{{account}}")]),
        lines("Peak memory by rank", "bytes",
              [query(f"sum by (rank) (autosp_rank_memory_peak_bytes{APART})", "rank {{rank}}")],
              description="Of device and host."),
        lines("Memory at the end of a step, by rank", "bytes",
              [query(f"sum by (rank) (autosp_rank_memory_bytes{APART})", "rank {{rank}}")],
              description="Of device and host."),
    ]


def job_ranks():
    step_sum = rate("autosp_rank_step_duration_seconds_sum", JOB)
    step_count = rate("autosp_rank_step_duration_seconds_count", JOB)
    in_collectives = f"sum by (rank) ({rate('autosp_rank_collective_seconds_total', JOB)})"
    return [
        heat_map("Time of a step, by rank", "s",
                 f"sum by (rank) ({step_sum}) / sum by (rank) ({step_count})", "rank {{rank}}"),
        heat_map("Share of the time outside collectives, by rank", "percentunit",
                 f"1 - {in_collectives} / sum by (rank) ({step_sum})", "rank {{rank}}",
                 description="The rank with the largest share is the one that others wait for."),
        lines("Bytes received by kind of collective", "Bps",
              [query(f"sum by (kind) ({rate('autosp_rank_collective_received_bytes_total', JOB)})",
                     "{{kind}}")], stacked=True, description="Of all ranks."),
        lines("Time in collectives by kind", "percentunit",
              [query(f"avg by (kind) (sum by (kind, rank) ("
                     f"{rate('autosp_rank_collective_seconds_total', JOB)}))", "{{kind}}")],
              stacked=True, description="Of a rank's time, the mean over ranks."),
        lines("Bytes received by phase", "Bps",
              [query(f"sum by (phase) ({rate('autosp_rank_collective_received_bytes_total', JOB)})",
                     "{{phase}}")], stacked=True, description="Of all ranks."),
        lines("Collectives per second", "none",
              [query(f"sum by (kind) ({rate('autosp_rank_collective_calls_total', JOB)})",
                     "{{kind}}")], description="Of all ranks."),
        lines("Steps that a rank is ahead of the last one", "none",
              [query(f"autosp_rank_last_step{JOB}"
                     f" - on (job_id) group_left () min by (job_id) (autosp_rank_last_step{JOB})",
                     "rank {{rank}}")]),
        lines("Since a rank's last step", "s",
              [query(f"time() - autosp_rank_last_step_timestamp_seconds{JOB}", "rank {{rank}}")]),
    ]


def job():
    return dashboard(
        "autosp-job", "AutoSP / Job", "One job: progress, memory, ranks and what they exchange.",
        job_progress() + job_memory() + job_ranks(),
        [variable("job_id", "Job", "label_values(autosp_job_last_step, job_id)")])


def coordinator():
    failed = '{code!~"OK|NOT_FOUND|ALREADY_EXISTS|INVALID_ARGUMENT|FAILED_PRECONDITION"}'
    return dashboard(
        "autosp-coordinator", "AutoSP / Coordinator", "Calls, the store, and the flow of jobs.", [
            lines("Calls per second", "none",
                  [query(f"sum by (method) ({rate('autosp_rpc_duration_seconds_count')})",
                         "{{method}}")]),
            lines("Calls that are refused or fail, per second", "none",
                  [query("sum by (method, code) ("
                         + rate("autosp_rpc_duration_seconds_count", '{code!="OK"}') + ")",
                         "{{method}} {{code}}")]),
            lines("Calls, p50", "s",
                  [query(quantile(0.5, "autosp_rpc_duration_seconds", "method"), "{{method}}")]),
            lines("Calls, p99", "s",
                  [query(quantile(0.99, "autosp_rpc_duration_seconds", "method"), "{{method}}")]),
            lines("Share of calls that fail", "percentunit",
                  [query(f"(sum({rate('autosp_rpc_duration_seconds_count', failed)}) or vector(0))"
                         f" / sum({rate('autosp_rpc_duration_seconds_count')})", "failed")],
                  description="Without those that the caller is to blame for."),
            lines("Time of a write to the store", "s",
                  [query(quantile(q, "autosp_store_write_duration_seconds"), name)
                   for q, name in ((0.5, "p50"), (0.99, "p99"))]),
            lines("Writes per second", "none",
                  [query(f"sum by (result) ({rate('autosp_store_write_duration_seconds_count')})",
                         "{{result}}")]),
            lines("Jobs that are compiled", "none",
                  [query("sum by (outcome) (increase(autosp_compile_duration_seconds_count[1h]))",
                         "{{outcome}}")], description="Within the hour before."),
            lines("Time to compile a job", "s",
                  [query(quantile(q, "autosp_compile_duration_seconds"), name)
                   for q, name in ((0.5, "p50"), (0.99, "p99"))]),
            lines("Compilations", "none",
                  [query("sum by (state) (autosp_compiles)", "{{state}}")], stacked=True),
            lines("Changes of state", "none",
                  [query("sum by (from, to) (increase(autosp_job_transitions_total[1h])) > 0",
                         "{{from}} to {{to}}")], description="Within the hour before."),
            lines("Jobs by state", "none", [query("sum by (state) (autosp_jobs)", "{{state}}")],
                  stacked=True, width=WIDTH),
        ])


def main():
    is_check = sys.argv[1:] == ["--check"]
    stale = []
    for name, content in (("cluster", cluster()), ("job", job()), ("coordinator", coordinator())):
        path = TARGET / f"{name}.json"
        text = json.dumps(content, indent=1) + "\n"
        if not is_check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; run python3 deploy/dashboards/make_dashboards.py")


if __name__ == "__main__":
    main()
