"""A Prometheus scrapes the real programs while they train; every query of every panel has data."""

import json
import math
import pathlib
import subprocess
import sys
import time
import unittest
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "process"))

from cluster import Cluster, Workspace, free_port, wait_until  # noqa: E402
from lab import DASHBOARDS, RULES, need  # noqa: E402

PROMETHEUS, = need("prometheus")

# The ranks here are on CPUs, whose kind states no peak.
OF_GPUS = ("autosp_job_model_flops_utilization_ratio",)

RATE_INTERVAL = "6s"  # Grafana takes four scrapes or more; these are a second apart.
TIMEOUT_S = 90


class MeasuredCluster(Cluster):
    """Both programs serve metrics."""

    def __init__(self, workspace):
        super().__init__(workspace)
        self.metrics_ports = {"autosp-coordinator": free_port(), "autosp-agent": free_port()}

    def _start(self, program, log, *arguments, wrapper=()):
        return super()._start(program, log, *arguments, "--metrics-port",
                              self.metrics_ports[program], wrapper=wrapper)


class Prometheus:
    def __init__(self, folder, targets):
        self.port = free_port()
        config = folder / "prometheus.json"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for name, port in targets.items()],
        }))
        self.log = open(folder / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, expr, since):
        """The series that have had a finite value since then."""
        result = self.get("query_range", query=expr, start=since, end=time.time(), step="1s")
        return [series for series in result["result"]
                if any(math.isfinite(float(value)) for _, value in series["values"])]

    def is_up(self):
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        return len(targets) == 2 and all(target["health"] == "up" for target in targets)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        self.log.close()


def panels():
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                if any(metric in target["expr"] for metric in OF_GPUS):
                    continue
                yield f"{path.stem}: {panel['title']}", target["expr"]


class DashboardsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = Workspace()
        self.addCleanup(self.workspace.close)
        self.cluster = MeasuredCluster(self.workspace)
        self.cluster.start()
        self.addCleanup(self.cluster.stop)
        self.prometheus = Prometheus(self.workspace.folder, self.cluster.metrics_ports)
        self.addCleanup(self.prometheus.stop)
        wait_until(self.prometheus.is_up, 30, "Prometheus scrapes both programs")

    def train(self):
        """One job to its end, so that counters have begun; then one that goes on."""
        sections = {"data": {"validation": {"fraction": 0.1, "every_steps": 2}},
                    "checkpoint": {"every_steps": 10}, "verify": "always"}
        first = self.cluster.submit(self.workspace.job("first", **sections))
        self.assertEqual("succeeded", self.cluster.await_end(first, 60)["state"])
        self.cluster.cli("status", "no-such-job")
        time.sleep(2)
        second = self.cluster.submit(
            self.workspace.job("second", **sections, training={"steps": 100000}))
        self.cluster.await_step(second, 10)
        self.cluster.cli("status", "no-such-job")
        return second

    def test_every_query_of_every_panel_has_data(self):
        since = time.time()
        job_id = self.train()
        pending = {(where, expr.replace("$job_id", job_id)
                    .replace("$__rate_interval", RATE_INTERVAL)) for where, expr in panels()}
        count = len(pending)

        def has_all():
            pending.difference_update(
                [item for item in pending if self.prometheus.series(item[1], since)])
            return not pending
        try:
            wait_until(has_all, TIMEOUT_S, "data for every query")
        except AssertionError:
            self.fail("no data for:\n" + "\n".join(f"  {w}: {e}" for w, e in sorted(pending)))
        print(f"{count} queries have data")
        self.check_ranks(job_id, since)
        self.check_rules()
        self.cluster.cli("cancel", job_id)
        self.assertEqual("cancelled", self.cluster.await_end(job_id, 30)["state"])

    def check_ranks(self, job_id, since):
        """The heat map has a row for each rank, and each measured account a prediction."""
        by_rank = f'autosp_rank_step_duration_seconds_count{{job_id="{job_id}"}}'
        self.assertEqual({"0", "1"}, {series["metric"]["rank"]
                                      for series in self.prometheus.series(by_rank, since)})
        measured, predicted = [
            {series["metric"]["account"] for series in self.prometheus.series(
                f'{metric}{{job_id="{job_id}"}} > 0', since)}
            for metric in ("autosp_job_memory_peak_bytes",
                           "autosp_job_memory_predicted_peak_bytes")]
        self.assertIn("device", measured)
        self.assertLessEqual(measured, predicted)

    def check_rules(self):
        """Rules evaluate, and a healthy run raises no alert."""
        for group in self.prometheus.get("rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual("ok", rule["health"], rule)
                self.assertNotEqual("firing", rule.get("state"), rule)

    def test_a_query_of_what_is_not_there_has_none(self):
        since = time.time()
        wait_until(lambda: self.prometheus.series("autosp_nodes", since), 20, "nodes")
        self.assertEqual([], self.prometheus.series('autosp_job_loss{job_id="none"}', since))


if __name__ == "__main__":
    unittest.main()
