"""`autosp-cli support-bundle`: what is in it, what must not be, and what is said to be missing."""

import json
import os
import signal
import sqlite3
import unittest
import zipfile

import cluster

EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 3
EXIT_NOT_FOUND = 4
PARTS = ["contents.txt", "job.json", "job.txt", "job.yaml", "plan.txt", "program.txt",
         "events.jsonl", "steps.jsonl", "logs/rank0.log", "logs/rank1.log", "nodes.json",
         "nodes.txt", "versions.json", "doctor.json"]


class SupportBundleTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.workspace.env["AUTOSP_TEST_TOKEN"] = "not-for-others"
        self.cluster = cluster.Cluster(self.workspace)
        self.cluster.start()

    def bundle(self, job_id, *arguments):
        """Returns {name: text} of a bundle, and what it says is missing."""
        path = self.workspace.folder / "bundle.zip"
        result = self.cluster.cli("support-bundle", job_id, "-o", path, "--output", "json",
                                  *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout)["bundle"]
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            self.assertEqual(archive.namelist(), answer["entries"])
            return ({name: archive.read(name).decode() for name in archive.namelist()},
                    answer["missing"])

    def fail_a_job(self):
        """A job of which rank 1 is killed after a few steps."""
        job_id = self.cluster.submit(self.workspace.job(
            training={"steps": 100000, "max_restarts": 0}))
        job = self.cluster.await_step(job_id, 3)
        os.kill(job["ranks"][1]["pid"], signal.SIGKILL)
        self.assertEqual(self.cluster.await_end(job_id, 60)["state"], "failed")
        return job_id

    def test_a_failed_job(self):
        job_id = self.fail_a_job()
        parts, missing = self.bundle(job_id)
        self.assertEqual((sorted(parts), missing), (sorted(PARTS), []))
        job = json.loads(parts["job.json"])
        self.assertEqual((job["job_id"], job["state"]), (job_id, "failed"))
        self.assertIn("rank 1 on node node-a was killed by SIGKILL", parts["job.txt"])
        self.assertIn("seq_len: 64", parts["job.yaml"])
        self.assertIn(str(cluster.ZOO / "llama" / "model.pt2"), parts["job.yaml"])
        self.assertIn("peak memory", parts["plan.txt"])
        self.assertTrue(parts["program.txt"].startswith("program "))
        events = [json.loads(line) for line in parts["events.jsonl"].splitlines()]
        self.assertEqual(events[-1]["state_changed"]["to"], "failed")
        steps = [json.loads(line)["step_finished"]["report"]["step"]
                 for line in parts["steps.jsonl"].splitlines()]
        self.assertEqual(steps[:3], [1, 2, 3])
        self.assertIn("step 1", parts["logs/rank0.log"])
        self.assertIn("node-a", parts["nodes.txt"])
        versions = json.loads(parts["versions.json"])
        self.assertEqual(versions["agents"]["node-a"], versions["autosp-cli"])
        self.assertEqual(versions["autosp-coordinator"], versions["autosp-cli"])
        subjects = [each["subject"] for each in json.loads(parts["doctor.json"])["findings"]]
        for subject in ("shared memory", "coordinator", "clock of coordinator"):
            self.assertIn(subject, subjects)

        everything = "".join(parts.values())
        database = sqlite3.connect(self.workspace.folder / "coordinator" / "autosp.db")
        (body,) = database.execute("SELECT body FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        secret = json.loads(body)["request"]["secret"]
        self.assertGreater(len(secret), 20)
        for private in (secret, "not-for-others", "AUTOSP_TEST_TOKEN"):
            self.assertNotIn(private, everything)
        self.cluster.stop()

    def test_a_job_that_runs(self):
        job_id = self.cluster.submit(self.workspace.job(training={"steps": 100000}))
        self.cluster.await_step(job_id, 2)
        parts, missing = self.bundle(job_id)
        self.assertEqual(missing, [])
        self.assertIn('"to":"running"', parts["events.jsonl"])
        self.cluster.cli("cancel", job_id)
        self.cluster.await_end(job_id, 30)
        self.cluster.stop()

    def test_what_is_missing_is_named_and_the_rest_is_there(self):
        job_id = self.fail_a_job()
        self.cluster.agents["node-a"].kill()
        self.cluster.agents["node-a"].wait(timeout=10)
        cluster.wait_until(lambda: not self.cluster.ready_nodes(), 30, "the node is lost")
        parts, missing = self.bundle(job_id)
        self.assertEqual([each.split(":")[0] for each in missing],
                         ["logs/rank1.log", "logs/rank0.log"], "the rank that failed comes first")
        for each in missing:
            self.assertIn("node-a", each)
            self.assertIn(each, parts["contents.txt"])
        self.assertEqual(sorted(parts), sorted(set(PARTS) - {"logs/rank0.log", "logs/rank1.log"}))
        self.cluster.stop()

    def test_refusals(self):
        unknown = self.cluster.cli("support-bundle", "job-of-nobody")
        self.assertEqual(unknown.returncode, EXIT_NOT_FOUND, unknown.stderr)
        job_id = self.cluster.submit(self.workspace.job())
        self.cluster.await_end(job_id, 60)
        nowhere = self.cluster.cli("support-bundle", job_id, "-o", "/nowhere/bundle.zip")
        self.assertEqual(nowhere.returncode, EXIT_BAD_INPUT)
        self.assertIn("/nowhere/bundle.zip", nowhere.stderr)
        self.assertIn("-o", nowhere.stderr)
        self.cluster.stop()
        away = self.cluster.cli("support-bundle", job_id)
        self.assertEqual(away.returncode, EXIT_UNREACHABLE, away.stderr)
        self.assertFalse((self.workspace.folder / f"autosp-{job_id}.zip").exists())


if __name__ == "__main__":
    unittest.main()
