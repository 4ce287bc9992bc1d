"""What a kill -9 of each kind of process does to a running job, and what a cancel does.

Real processes and real time. A lease shorter than the default is used only where the test waits for
it to pass.
"""

import os
import signal
import time
import unittest

import cluster

NODE = "node-a"
DETECTION_S = 15
SHORT_LEASE_S = 4
MANY_STEPS = {"steps": 1000000, "max_restarts": 0}  # Restarts: restarts_test.py.


class KillsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.job_ids = []

    def start(self, lease_s=15, training=None):
        """A cluster whose two devices run a job that has finished a step."""
        self.cluster = cluster.Cluster(self.workspace, lease_s)
        self.cluster.start()
        job_id = self.cluster.submit(self.workspace.job(training=training or MANY_STEPS))
        self.job_ids.append(job_id)
        return self.cluster.await_step(job_id)

    def kill(self, process):
        process.kill()
        process.wait(timeout=10)

    def expect_ranks_gone(self, within_s):
        cluster.wait_until(lambda: not self.workspace.ranks(), within_s, "the ranks are gone")

    def expect_free_devices(self):
        def are_free():
            return [node["num_devices_free"] for node in self.cluster.ready_nodes()] == [2]
        cluster.wait_until(are_free, 20, "the devices are free")

    def stop_all(self):
        self.cluster.stop()
        self.workspace.expect_nothing_left(self.job_ids)

    def expect_cause(self, job, kind, rank, *words):
        cause = job["cause"]
        self.assertEqual((job["state"], cause["kind"]), ("failed", kind), cause)
        self.assertEqual((cause["node_id"], cause["rank"]), (NODE, rank), cause)
        self.assertGreaterEqual(cause["last_step"], 1)
        for word in (NODE, "after step", *words):
            self.assertIn(word, cause["message"])
        return cause

    def test_a_killed_rank_fails_the_job_with_its_last_words(self):
        job = self.start()
        victim = next(rank for rank in job["ranks"] if rank["rank"] == 1)
        began = time.monotonic()
        os.kill(victim["pid"], signal.SIGKILL)
        job = self.cluster.await_end(job["job_id"], DETECTION_S)
        cause = self.expect_cause(job, "rank_lost", 1, "rank 1", "SIGKILL")
        self.assertTrue(any("step" in line for line in cause["log_lines"]), cause)
        self.expect_ranks_gone(DETECTION_S - (time.monotonic() - began))
        self.expect_free_devices()
        # The same is what a person sees, with the exit code of a failed job.
        shown = self.cluster.cli("watch", job["job_id"])
        self.assertEqual(shown.returncode, 1, shown.stderr)
        self.assertIn(cause["message"], shown.stdout)
        self.stop_all()

    def test_a_killed_agent_takes_its_ranks_along(self):
        job = self.start()
        self.kill(self.cluster.agents[NODE])
        self.expect_ranks_gone(5)
        job = self.cluster.await_end(job["job_id"], DETECTION_S)
        self.expect_cause(job, "agent_lost", 0, "ranks 0, 1")
        # A new agent of that node clears up, and is given work.
        self.cluster.start_agent()
        self.expect_free_devices()
        self.stop_all()

    def test_an_agent_killed_while_ranks_start_leaves_no_shared_memory(self):
        self.cluster = cluster.Cluster(self.workspace)
        self.cluster.start()
        self.job_ids.append(self.cluster.submit(self.workspace.job(training=MANY_STEPS)))
        cluster.wait_until(self.workspace.ranks, 30, "a rank starts")
        self.kill(self.cluster.agents[NODE])
        self.expect_ranks_gone(5)
        # What ranks that were killed before they could attach have left, the next agent removes.
        self.cluster.start_agent()
        self.expect_free_devices()
        self.stop_all()

    def test_a_coordinator_that_comes_back_finds_its_job_running(self):
        job = self.start(training={"steps": 400})
        self.kill(self.cluster.coordinator)
        self.assertEqual(len(self.workspace.ranks()), 2)
        self.cluster.start_coordinator()
        job = self.cluster.await_end(job["job_id"], 60)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual((job["generation"], job["progress"]["last_step"]), (1, 400))
        self.assertTrue((self.workspace.folder / "out-job" / "model.safetensors").exists())
        self.expect_free_devices()
        self.stop_all()

    def test_without_a_coordinator_ranks_run_on_for_the_lease_and_end(self):
        job = self.start(lease_s=SHORT_LEASE_S)
        self.kill(self.cluster.coordinator)
        killed = time.monotonic()
        # They go on for a good part of it: the last heartbeat renewed it less than a third ago.
        while time.monotonic() < killed + SHORT_LEASE_S / 3:
            self.assertEqual(len(self.workspace.ranks()), 2)
            time.sleep(0.1)
        self.expect_ranks_gone(SHORT_LEASE_S + 3)
        self.cluster.start_coordinator()
        job = self.cluster.await_end(job["job_id"], DETECTION_S)
        cause = self.expect_cause(job, "rank_lost", job["cause"]["rank"], "stopped by its agent")
        self.assertIn(f"silent for {SHORT_LEASE_S}s, which is the lease", cause["message"])
        self.assertTrue(cause["log_lines"], cause)
        self.expect_free_devices()
        self.stop_all()

    def test_a_cancelled_job_leaves_nothing(self):
        job = self.start()
        answer = self.cluster.cli("cancel", job["job_id"], "--reason", "no longer wanted")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        job = self.cluster.await_end(job["job_id"], DETECTION_S)
        self.assertEqual(job["state"], "cancelled")
        self.assertIn("no longer wanted", job["cause"]["message"])
        self.expect_ranks_gone(DETECTION_S)
        self.expect_free_devices()
        self.assertEqual(self.cluster.cli("watch", job["job_id"]).returncode, 5)
        self.assertFalse((self.workspace.folder / "out-job" / "model.safetensors").exists())
        self.stop_all()


if __name__ == "__main__":
    unittest.main(verbosity=2)
