"""A compiler that takes too long or too much, or dies: its submitter is told, and all else goes on.

The archive is one that takes seconds to plan; which signal ends the child, the test decides.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

import cluster

sys.path.insert(0, str(cluster.SOURCE / "bench"))
import plan_bench  # noqa: E402

NUM_LAYERS = 160
EXIT_FAILED = 1
# They map more than any limit, and keep what has been freed.
IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ


class CompileTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        archive = self.workspace.folder / "large.pt2"
        plan_bench.write_archive(archive, NUM_LAYERS)
        self.large = self.workspace.job("large", archive=archive)

    def start(self, *arguments):
        self.cluster = cluster.Cluster(self.workspace)
        self.cluster.start_coordinator(arguments)
        self.cluster.start_agent()
        cluster.wait_until(self.cluster.ready_nodes, 30, "a node is ready")

    def compilers(self):
        found = []
        for pid in self.workspace.processes():
            try:
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue  # It has ended.
            if name == "autosp-compile":
                found.append(pid)
        return found

    def expect_refused(self, result, *words):
        self.assertEqual(result.returncode, EXIT_FAILED, result.stderr)
        for word in ("job large was not planned", *words):
            self.assertIn(word, result.stderr)
        self.assertEqual(self.cluster.query("list")["jobs"], [])
        self.assertEqual(self.compilers(), [])

    def expect_service(self):
        """The coordinator that was there from the start trains a job to its end."""
        job_id = self.cluster.submit(self.workspace.job("small"))
        self.assertEqual(self.cluster.await_end(job_id, 60)["state"], "succeeded")
        self.assertIsNone(self.cluster.coordinator.poll())
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])

    def submit_large(self):
        """Returns `autosp-cli submit` and the process that compiles for it, which it has begun."""
        client = subprocess.Popen(
            [cluster.BIN / "autosp-cli", "--server", f"127.0.0.1:{self.cluster.port}", "submit",
             self.large], env=self.workspace.env, cwd=self.workspace.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        (compiler,) = cluster.wait_until(self.compilers, 30, "a plan is made")
        return client, compiler

    @unittest.skipIf(IS_SANITIZED, "sanitizers leave no room for a limit on memory")
    def test_memory_has_a_limit(self):
        self.start("--compile-memory", "64MiB")
        self.expect_refused(
            self.cluster.cli("submit", self.large),
            "needs more than 64.0 MiB of memory", "raise --compile-memory")
        self.expect_service()

    def test_time_has_a_limit(self):
        self.start("--compile-seconds", "0.2")
        self.expect_refused(
            self.cluster.cli("submit", self.large),
            "longer than 200ms", "raise --compile-seconds")
        self.assertEqual(len(self.cluster.ready_nodes()), 1)
        self.cluster.stop()
        self.workspace.expect_nothing_left()

    def test_a_crash_is_told_and_survived(self):
        self.start()
        client, compiler = self.submit_large()
        os.kill(compiler, signal.SIGABRT)
        _, stderr = client.communicate(timeout=cluster.COMMAND_TIMEOUT_S)
        self.expect_refused(
            subprocess.CompletedProcess([], client.returncode, "", stderr),
            "was killed by signal 6 (Aborted)", "this is a fault of AutoSP",
            "the coordinator's log")
        compilation = next(word for word in stderr.split() if word.startswith("compile-"))
        log = (self.workspace.folder / "coordinator.log").read_text()
        self.assertIn(f"{compilation.rstrip(';')}, process {compiler}, after", log)
        self.expect_service()

    def test_who_no_longer_waits_ends_the_compiler(self):
        self.start()
        client, _ = self.submit_large()
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=cluster.COMMAND_TIMEOUT_S)
        self.assertNotEqual(client.returncode, 0)
        cluster.wait_until(lambda: not self.compilers(), 5, "nobody compiles")
        self.expect_service()

    def test_a_restart_while_it_is_planned_costs_no_submission(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number):
                self.start()
                client, _ = self.submit_large()
                self.cluster.coordinator.send_signal(number)
                self.cluster.coordinator.wait(timeout=30)
                time.sleep(1)  # A service's pause before it starts again.
                self.cluster.start_coordinator()
                _, stderr = client.communicate(timeout=cluster.COMMAND_TIMEOUT_S)
                self.assertEqual(client.returncode, 0, stderr)
                (job,) = self.cluster.query("list")["jobs"]
                self.cluster.cli("cancel", job["job_id"])
                self.cluster.await_end(job["job_id"], 60)
                self.cluster.stop()
                shutil.rmtree(self.workspace.folder / "coordinator")

    def test_a_client_finds_a_coordinator_that_starts_meanwhile(self):
        """Whose port refused the first try."""
        self.cluster = cluster.Cluster(self.workspace)
        client = subprocess.Popen(
            [cluster.BIN / "autosp-cli", "--server", f"127.0.0.1:{self.cluster.port}", "list"],
            env=self.workspace.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        self.cluster.start_coordinator()
        _, stderr = client.communicate(timeout=cluster.COMMAND_TIMEOUT_S)
        self.assertEqual(client.returncode, 0, stderr)
        self.cluster.stop()

    def test_the_end_of_the_coordinator_ends_the_compiler(self):
        for number, seconds in ((signal.SIGTERM, 3), (signal.SIGKILL, 1)):
            with self.subTest(number):
                self.start()
                client, _ = self.submit_large()
                began = time.monotonic()
                self.cluster.coordinator.send_signal(number)
                self.cluster.coordinator.wait(timeout=30)
                cluster.wait_until(lambda: not self.compilers(), 5, "nobody compiles")
                self.assertLess(time.monotonic() - began, seconds * cluster.PATIENCE)
                client.kill()
                client.communicate()
                self.cluster.stop()
        self.workspace.expect_nothing_left()


if __name__ == "__main__":
    unittest.main(verbosity=2)
