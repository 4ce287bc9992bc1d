"""Jobs with `verify`: a node proves the plan before anything is trained, or refuses it."""

import os
import signal
import unittest

import cluster

EXIT_FAILED = 1

# An autosp-verify that is handed a wrong plan: the sum of the gradients over the ranks is left out.
LOSES_A_REDUCTION = """#!/usr/bin/env python3
import json, os, pathlib, sys
spec = json.loads(pathlib.Path(sys.argv[2]).read_text())
plan = pathlib.Path(spec["program_path"])
lines = plan.read_text().splitlines(keepends=True)
kept = [line for line in lines if "update autosp.all_reduce_(" not in line]
assert len(kept) < len(lines), "the plan has no such line"
plan.write_text("".join(kept))
os.execv({verify!r}, [{verify!r}, *sys.argv[1:]])
"""
# One that never says anything.
HANGS = "#!/bin/sh\nexec sleep 1000\n"


class VerifiedJobsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.cluster = cluster.Cluster(self.workspace)

    def start(self, verify_binary=None):
        self.cluster.start_coordinator()
        self.start_agent("node-a", verify_binary)
        cluster.wait_until(self.cluster.ready_nodes, 30, "a node is ready")

    def start_agent(self, name, verify_binary=None):
        arguments = () if verify_binary is None else ("--verify-binary", verify_binary)
        self.cluster.start_agent(name, arguments=arguments)

    def program(self, text):
        path = self.workspace.write("verify", text.encode())
        path.chmod(0o755)
        return path

    def job(self, name="job", verify="always"):
        return self.workspace.job(name, verify=verify)

    def run_to_end(self, job):
        """Returns the job, its states and what became of its verifications."""
        job_id = self.cluster.submit(job)
        ended = self.cluster.await_end(job_id, 90)
        events = self.cluster.events(job_id)
        states = [event["state_changed"]["to"] for event in events if "state_changed" in event]
        outcomes = [event["verification_done"]["outcome"] for event in events
                    if "verification_done" in event]
        return ended, states, outcomes

    def processes(self, name):
        return [pid for pid, program in self.workspace.processes().items() if program == name]

    def test_a_good_plan_is_verified_and_trained(self):
        self.start()
        training = ["starting", "running", "stopping", "succeeded"]
        verified = ["queued", "verifying", "stopping", "queued", *training]
        job, states, outcomes = self.run_to_end(self.job("first", "new-plan"))
        self.assertEqual((states, outcomes), (verified, ["equal"]), job)
        self.assertEqual(job["verification"]["result"]["num_gradients"], 21)
        self.assertLess(job["verification"]["result"]["error"], 1e-5)
        first = cluster.losses_of(self.cluster.events(job["job_id"]))

        again, states, outcomes = self.run_to_end(self.job("second", "new-plan"))
        self.assertEqual((states, outcomes), (["queued", *training], ["known"]), again)
        self.assertEqual(again["verification"]["known_from_job_id"], job["job_id"])
        always, states, outcomes = self.run_to_end(self.job("third", "always"))
        self.assertEqual((states, outcomes), (verified, ["equal"]), always)
        never, states, outcomes = self.run_to_end(self.job("fourth", "never"))
        self.assertEqual((states, outcomes), (["queued", *training], []), never)
        for other in (again, always, never):
            events = self.cluster.events(other["job_id"])
            self.assertEqual(cluster.losses_of(events), first)
            # What trains after a verification is not a restart.
            self.assertEqual([event for event in events if "checkpoint" in event], [])

        self.assertIn("verification  the plan computes what the model does",
                      self.cluster.cli("status", job["job_id"]).stdout)
        self.assertIn("verification: the plan is that of job " + job["job_id"],
                      self.cluster.cli("watch", again["job_id"]).stdout)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def test_a_wrong_plan_never_trains(self):
        verify = str(cluster.BIN / "autosp-verify")
        self.start(self.program(LOSES_A_REDUCTION.format(verify=verify)))
        job, states, outcomes = self.run_to_end(self.job("job", "new-plan"))
        self.assertEqual(states, ["queued", "verifying", "stopping", "failed"], job)
        self.assertEqual(outcomes, ["differs"])
        self.assertEqual(job["cause"]["kind"], "plan_differs")
        self.assertRegex(job["reason"], r"gradient of \S+\.weight has error \S+, at most \S+ is")
        self.assertIn("nothing was trained", job["reason"])
        self.assertEqual(job["generation"], 1)
        self.assertFalse((self.workspace.folder / "out-job" / "metrics.jsonl").exists())
        shown = self.cluster.cli("watch", job["job_id"])
        self.assertEqual(shown.returncode, EXIT_FAILED)
        self.assertIn("the plan DIFFERS from the model on one device", shown.stdout)
        self.assertIn("gradient of", self.cluster.cli("logs", job["job_id"]).stdout)
        # It is not known as a good one from now on.
        _, _, outcomes = self.run_to_end(self.job("again", "new-plan"))
        self.assertEqual(outcomes, ["differs"])
        self.cluster.stop()
        self.workspace.expect_nothing_left([job["job_id"]])

    def await_verification(self, job_id, program):
        cluster.wait_until(lambda: self.cluster.job(job_id).get("state") == "verifying" and
                           self.processes(program), 30, f"{program} runs")

    def test_the_agent_dies_and_another_verifies(self):
        self.start(self.program(HANGS))
        job_id = self.cluster.submit(self.job())
        self.await_verification(job_id, "sleep")
        self.start_agent("node-b")
        self.cluster.agents["node-a"].send_signal(signal.SIGKILL)
        self.cluster.agents["node-a"].wait(timeout=10)
        job = self.cluster.await_end(job_id, 90)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(job["restarts"]["total"], 0, "nothing had been trained")
        outcomes = [event["verification_done"]["outcome"] for event in self.cluster.events(job_id)
                    if "verification_done" in event]
        self.assertEqual(outcomes, ["no_result", "equal"])
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])

    def test_a_cancel_ends_it(self):
        self.start(self.program(HANGS))
        job_id = self.cluster.submit(self.job())
        self.await_verification(job_id, "sleep")
        self.cluster.cli("cancel", job_id)
        self.assertEqual(self.cluster.await_end(job_id, 30)["state"], "cancelled")
        self.assertEqual(self.processes("sleep"), [])
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])

    def test_a_program_that_is_missing_is_named(self):
        self.start(os.devnull)
        job, states, outcomes = self.run_to_end(self.job())
        self.assertEqual(states, ["queued", "verifying", "stopping", "failed"], job)
        self.assertEqual(outcomes, ["no_result"])
        self.assertIn("cannot execute /dev/null", job["reason"])
        self.assertIn("--verify-binary", job["reason"])
        self.cluster.stop()


if __name__ == "__main__":
    unittest.main()
