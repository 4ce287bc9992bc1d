"""Ranks on several hosts train as on one, and a link that fails ends the job and is named.

Hosts are network namespaces (netns.py): needs root. The test is skipped where they cannot be made.
"""

import re
import subprocess
import sys
import time
import unittest

import cluster
import netns

DETECTION_S = 15
MANY_STEPS = {"steps": 1000000, "max_restarts": 0}  # Restarts: restarts_test.py.


class HostCluster(cluster.Cluster):
    """A coordinator here, and an agent on each host."""

    def __init__(self, workspace, hosts):
        super().__init__(workspace)
        self.hosts = hosts
        self.server = f"{hosts.coordinator_address()}:{self.port}"

    def start_coordinator(self):
        self.coordinator = self._start(
            "autosp-coordinator", "coordinator.log", "--listen", self.server, "--state-dir",
            "coordinator", "--lease-seconds", self.lease_s)

    def start_agent(self, name="a", devices=1, wrapper=()):
        self.agents[name] = self._start(
            "autosp-agent", f"{name}.log", "--coordinator", self.server, "--node-name", name,
            "--listen", f"{self.hosts.control_address(name)}:0", "--rank-address",
            self.hosts.data_address(name), "--rank-ports", "7000-7009", "--devices", devices,
            "--state-dir", name, wrapper=[*self.hosts.inside(name), *self.core_of(name)])

    def core_of(self, name):
        """Each host has its own part of the cores, so that ranks have as many threads as when all
        are on one host: sums within an operator depend on that."""
        cores = sorted(cluster.os.sched_getaffinity(0))
        half = max(1, len(cores) // 2)
        own = cores[:half] if name == "a" else cores[-half:]
        return ["taskset", "-c", ",".join(map(str, own))]

    def start(self, devices=1):
        self.start_coordinator()
        for name in "ab":
            self.start_agent(name, devices)
        cluster.wait_until(lambda: len(self.ready_nodes()) == 2, 30, "two nodes are ready")

    def cli(self, *arguments):
        return self.workspace.cli("--server", self.server, *arguments)

    def kill(self):
        for process in [*self.agents.values(), self.coordinator]:
            if process is not None:
                process.kill()
                process.wait()


def numbers_of(events):
    """Step -> loss and norm, as JSON has them: all digits."""
    steps = [event["step_finished"]["report"] for event in events if "step_finished" in event]
    return {step["step"]: (step["loss"], step["grad_norm"]) for step in steps}


def bytes_of(events):
    """(step, kind, phase) -> bytes received."""
    found = {}
    for event in events:
        if "step_finished" not in event:
            continue
        report = event["step_finished"]["report"]
        for use in report["collectives"]:
            key = (report["step"], use["kind"], use["phase"])
            found[key] = int(use.get("bytes_received", 0))
    return found


class HostsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.hosts = netns.Hosts()
        self.addCleanup(self.hosts.close)
        self.cluster = HostCluster(self.workspace, self.hosts)
        self.addCleanup(self.cluster.kill)

    def train_here(self, name, mesh):
        """On one host, over shared memory."""
        path = self.workspace.job(name, parallelism=mesh)
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        return events, (self.workspace.folder / f"out-{name}" / "model.safetensors").read_bytes()

    def train_on_hosts(self, name, mesh, devices):
        self.cluster.start(devices)
        job_id = self.cluster.submit(self.workspace.job(name, parallelism=mesh))
        job = self.cluster.await_end(job_id, 90)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual({rank["node_id"] for rank in job["ranks"]}, {"a", "b"})
        events = self.cluster.events(job_id)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])
        return events, (self.workspace.folder / f"out-{name}" / "model.safetensors").read_bytes()

    def check_equal(self, mesh, devices):
        here, weights_here = self.train_here("here", mesh)
        there, weights_there = self.train_on_hosts("there", mesh, devices)
        self.assertEqual(sorted(numbers_of(here)), [1, 2, 3, 4, 5])
        self.assertEqual(numbers_of(there), numbers_of(here))
        self.assertEqual(bytes_of(there), bytes_of(here))
        self.assertEqual(weights_there, weights_here)

    def test_two_hosts_with_a_rank_each(self):
        self.check_equal({"ranks": 2, "ulysses": 2}, devices=1)

    def test_two_hosts_with_two_ranks_each(self):
        self.check_equal({"ranks": 4, "ulysses": 4}, devices=2)

    def test_groups_on_a_host_and_groups_between_hosts(self):
        self.check_equal({"ranks": 4, "dp": 2, "ulysses": 2}, devices=2)

    def start_job(self, devices=1, mesh=None):
        self.cluster.start(devices)
        job_id = self.cluster.submit(
            self.workspace.job(training=MANY_STEPS, parallelism=mesh or {"ranks": 2, "ulysses": 2}))
        return self.cluster.await_step(job_id)

    def expect_link_failure(self, job_id, began, how="cannot be reached any more"):
        job = self.cluster.await_end(job_id, DETECTION_S)
        elapsed = time.monotonic() - began
        self.assertEqual(job["state"], "failed", job)
        message = job["cause"]["message"]
        print(f"{self.id()}: {elapsed:.1f} s: {message}", file=sys.stderr)
        self.assertRegex(message, r"^rank \d on node [ab] failed after step \d+: .*"
                                  rf"rank \d on node [ab] ({how})")
        # Who noticed it, and, behind what others may have passed on, whom it could not reach.
        nodes = re.findall(r"rank \d on node ([ab])", message)
        self.assertEqual(set(nodes), {"a", "b"}, message)

    def test_a_cable_that_is_cut_ends_the_job(self):
        job = self.start_job()
        began = time.monotonic()
        self.hosts.cut("a")
        self.expect_link_failure(job["job_id"], began)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def test_a_link_that_swallows_packets_ends_the_job(self):
        job = self.start_job(devices=2, mesh={"ranks": 4, "ulysses": 4})
        began = time.monotonic()
        self.hosts.swallow("a")
        self.hosts.swallow("b")
        self.expect_link_failure(job["job_id"], began)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def test_half_a_link_ends_the_job(self):
        job = self.start_job()
        began = time.monotonic()
        self.hosts.swallow("b")
        # The end of the one that has noticed still reaches the other, which may be heard first.
        self.expect_link_failure(job["job_id"], began,
                                 "cannot be reached any more|has died: it closed its connection")
        self.cluster.stop()

    def test_a_host_that_is_cut_off_altogether_ends_the_job(self):
        job = self.start_job()
        began = time.monotonic()
        self.hosts.cut("b")
        self.hosts.cut("b", "control")
        # Which is said first, that the rank cannot be reached or that its agent is silent, is a
        # matter of tenths of a second; the lease has to pass before its devices are free.
        def is_stopping():
            job_now = self.cluster.job(job["job_id"])
            return job_now if job_now.get("state") in ("stopping", "failed") else None
        stopping = cluster.wait_until(is_stopping, DETECTION_S + 1, "the attempt ends")
        print(f"{self.id()}: {time.monotonic() - began:.1f} s: {stopping['cause']['message']}",
              file=sys.stderr)
        self.assertIn("node b", stopping["cause"]["message"])
        job = self.cluster.await_end(job["job_id"], 2 * DETECTION_S)
        self.assertEqual(job["state"], "failed", job)

    def test_a_slow_link_is_no_failure(self):
        if netns.shutil.which("tc") is None:
            self.skipTest("needs tc of iproute2")
        job = self.start_job()
        self.hosts.slow("a", "2mbit")
        self.hosts.slow("b", "2mbit")
        before = self.cluster.job(job["job_id"])["progress"]["last_step"]
        time.sleep(DETECTION_S + 5)
        job = self.cluster.job(job["job_id"])
        self.assertEqual(job["state"], "running", job)
        self.assertGreater(job["progress"]["last_step"], before)
        self.assertEqual(self.cluster.cli("cancel", job["job_id"]).returncode, 0)
        self.cluster.await_end(job["job_id"], DETECTION_S)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def test_a_killed_rank_is_the_cause_on_all_hosts(self):
        job = self.start_job()
        victim = next(rank for rank in job["ranks"] if rank["rank"] == 1)
        cluster.os.kill(victim["pid"], cluster.signal.SIGKILL)
        job = self.cluster.await_end(job["job_id"], DETECTION_S)
        self.assertEqual((job["state"], job["cause"]["kind"]), ("failed", "rank_lost"), job)
        self.assertIn("rank 1", job["cause"]["message"])
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def test_a_stranger_is_refused_while_ranks_run(self):
        job = self.start_job()
        knock = ("import socket, sys\n"
                 "for port in range(7000, 7010):\n"
                 "    try:\n"
                 "        socket.create_connection((sys.argv[1], port), 2).close()\n"
                 "        print(port)\n"
                 "    except ConnectionRefusedError:\n"
                 "        pass\n")
        knocked = subprocess.run(
            [*self.hosts.inside("a"), sys.executable, "-c", knock, self.hosts.data_address("b")],
            capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(knocked.stdout, "", "a port is open while no rank is awaited")
        last_step = self.cluster.job(job["job_id"])["progress"]["last_step"]
        self.cluster.await_step(job["job_id"], last_step + 1)
        self.cluster.stop()


if __name__ == "__main__":
    reason = netns.skip_reason()
    if reason is not None:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(77)
    cluster.run_at_once(3)
