"""Many small jobs at random over two agents, with cancels and kills, and what is left: nothing.

AUTOSP_SOAK_JOBS is how many jobs (2000 by hand, fewer by default), AUTOSP_SOAK_SEED what becomes of
which; it prints both. Every job ends as its fate says, and has written what it should. Once the
last has, nothing is left of any: no process, open file, shared memory or temporary file; and a
coordinator that starts again tells the same of all of them.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import sqlite3
import time
import unittest

import cluster

JOBS = int(os.environ.get("AUTOSP_SOAK_JOBS", "30"))
SEED = int(os.environ.get("AUTOSP_SOAK_SEED", secrets.randbelow(1 << 30)))

SECONDS_PER_JOB = 10  # after which the test gives up
MAX_ACTIVE = 8  # More than the devices take, so that there is a queue.
TURN_S = 0.3
STEADY, FRAGILE = "node-a", "node-b"  # Only the second is killed: the first shows what grows.
JOBS_BETWEEN_KILLS_OF_AN_AGENT = 25
ENDLESS = 1_000_000  # steps: what becomes of the job decides its end
ACTIVE = ("queued", "starting", "running", "stopping")
MAX_KEPT_ATTEMPTS = 100  # of an agent, for their logs

# After each lap no job is left, and what the programs hold is measured. Half the laps fill caches;
# from then on memory may grow by what the allocator does not give back, and by no more.
LAPS = 2 if JOBS < 500 else 5
MAX_GROWTH_KIB = 8 << 10
MAX_GROWTH_FILES = 2  # The coordinator connects to a new life of an agent when it has to.

# Sanitizers keep what has been freed.
IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ

# What is done to a job, how often, and in which state it is done.
FATES = (
    ("left alone", 0.25, None),
    ("cancelled", 0.40, "queued"),
    ("cancelled", 0.15, "starting"),
    ("cancelled", 0.10, "running"),
    ("loses a rank", 0.03, "starting"),
    ("loses a rank", 0.04, "running"),
    ("loses a rank, cancelled after the restart", 0.03, "running"),
)


class SoakJob:
    """A job, what is to become of it, and what has."""

    def __init__(self, chance):
        self.fate, _, self.moment = chance.choices(FATES, [weight for _, weight, _ in FATES])[0]
        self.ranks = chance.choices((1, 2, 4), (60, 35, 5))[0]
        self.steps = chance.randint(1, 3) if self.moment is None else ENDLESS
        self.max_restarts = chance.randint(0, 2)
        if self.loses_a_rank():
            self.max_restarts = 1 if "restart" in self.fate else 0
        self.id = ""
        self.output = None
        self.has_lost_a_rank = False
        self.num_losses = 0  # that it may have suffered: of a rank, or of an agent that had one
        self.is_cancelled = False

    def loses_a_rank(self):
        return "loses a rank" in self.fate

    def is_moment(self, state):
        """Whether its moment has come, or has passed unseen."""
        return self.moment is not None and ACTIVE.index(state) >= ACTIVE.index(self.moment)

    def may_end_as(self, state):
        """Of a job that was not disturbed, and of most others, only one of these is true."""
        return {"succeeded": self.moment is None, "cancelled": self.is_cancelled,
                "failed": self.num_losses > self.max_restarts}[state]

    def label(self):
        return self.fate if self.moment is None else f"{self.fate} when {self.moment}"

    def __str__(self):
        return (f"{self.id}: {self.label()}, {self.ranks} ranks, {self.num_losses} losses of "
                f"{self.max_restarts} allowed, cancelled: {self.is_cancelled}")


def footprint(process):
    """Open files, threads and resident KiB of a process."""
    proc = pathlib.Path("/proc") / str(process.pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return {"files": len(os.listdir(proc / "fd")), "threads": int(status["Threads"]),
            "kib": int(status["VmRSS"].split()[0])}


class SoakTest(unittest.TestCase):
    def setUp(self):
        self.chance = random.Random(SEED)
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.cluster = cluster.Cluster(self.workspace)
        self.cluster.start_coordinator()
        for node in (STEADY, FRAGILE):
            self.cluster.start_agent(node)
        cluster.wait_until(lambda: len(self.cluster.ready_nodes()) == 2, 30, "both are ready")
        self.jobs = {}
        self.checked = set()
        self.num_agent_kills = 0

    # --- What happens to jobs ---

    def active(self):
        """The jobs that have not ended, as the coordinator has them now."""
        states = [word for state in ACTIVE for word in ("--state", state)]
        return self.cluster.query("list", *states)["jobs"]

    def submit_one(self):
        job = SoakJob(self.chance)
        job.output = self.workspace.folder / f"out-{len(self.jobs)}"
        job.id = self.cluster.submit(self.workspace.job(
            archive=cluster.ZOO / "gpt2" / "model.pt2", parallelism={"ranks": job.ranks},
            training={"steps": job.steps, "seq_len": 16, "max_restarts": job.max_restarts},
            output={"dir": str(job.output)}))
        self.jobs[job.id] = job

    def cancel(self, job):
        answer = self.cluster.cli("cancel", job.id, "--reason", "of the soak")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        job.is_cancelled = True

    def kill_a_rank(self, job, ranks):
        pids = [rank["pid"] for rank in ranks if rank["pid"] > 0]
        victim = self.chance.choice(pids) if pids else None
        if victim in self.workspace.ranks():
            os.kill(victim, signal.SIGKILL)
            job.num_losses += 1
            job.has_lost_a_rank = True

    def act_on(self, job, seen):
        if job.is_cancelled or not job.is_moment(seen["state"]):
            return
        if not job.loses_a_rank():
            self.cancel(job)
        elif not job.has_lost_a_rank:
            self.kill_a_rank(job, seen["ranks"])
        elif seen["state"] == "running" and seen["generation"] > 1:
            self.cancel(job)

    def kill_the_agent(self):
        def victims():
            return {seen["job_id"] for seen in self.active()
                    if any(rank["node_id"] == FRAGILE for rank in seen["ranks"])}
        lost = victims()
        self.cluster.agents[FRAGILE].kill()
        self.cluster.agents[FRAGILE].wait(timeout=10)
        for job_id in lost | victims():
            self.jobs[job_id].num_losses += 1
        time.sleep(self.chance.uniform(0, 1))
        self.cluster.start_agent(FRAGILE)
        self.num_agent_kills += 1

    def run_lap(self, num_jobs):
        """Submits until there are so many jobs, and waits for the last to end."""
        give_up = time.monotonic() + (
            60 + SECONDS_PER_JOB * (num_jobs - len(self.jobs))) * cluster.PATIENCE
        while (active := self.active()) or len(self.jobs) < num_jobs:
            self.assertLess(time.monotonic(), give_up, active)
            for seen in active:
                self.act_on(self.jobs[seen["job_id"]], seen)
            if len(active) >= MAX_ACTIVE or len(self.jobs) == num_jobs:
                time.sleep(TURN_S)
                continue
            self.submit_one()
            if self.chance.random() < 1 / JOBS_BETWEEN_KILLS_OF_AN_AGENT:
                self.kill_the_agent()

    # --- What has become of them ---

    def check_output(self, job, state):
        """Of an attempt that was ended there may be the numbers of its steps, and no weights."""
        names = {path.name for path in job.output.iterdir()} if job.output.exists() else set()
        if state == "succeeded":
            self.assertEqual(names, {"metrics.jsonl", "model.safetensors"}, job)
            lines = (job.output / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line)["step"] for line in lines]
            self.assertEqual(steps, list(range(1, job.steps + 1)), job)
        else:
            self.assertLessEqual(names, {"metrics.jsonl"}, job)
        shutil.rmtree(job.output, ignore_errors=True)  # Five hundred of them would fill a disk.

    def check_job(self, job, told):
        state, cause = told["state"], told.get("cause", {})
        self.assertTrue(job.may_end_as(state), f"{job}\n{told}")
        if state == "succeeded":
            self.assertEqual(told["progress"]["last_step"], job.steps, job)
        if state == "cancelled":
            self.assertIn("of the soak", cause["message"], job)
        if state == "failed":
            self.assertIn(cause["kind"], ("rank_lost", "agent_lost"), f"{job}\n{told}")
        self.check_output(job, state)

    def all_jobs(self):
        answer = self.cluster.query("list", "--limit", 100_000)
        return answer["jobs"] if answer else None

    def check_lap(self):
        """All jobs so far; returns what the programs hold now that there is none."""
        told = {job["job_id"]: job for job in self.all_jobs()}
        self.assertEqual(set(told), set(self.jobs))
        for job_id in set(self.jobs) - self.checked:
            self.check_job(self.jobs[job_id], told[job_id])
        self.checked = set(self.jobs)
        self.assertEqual(cluster.segments_of(self.jobs), [])
        self.assertEqual(self.workspace.ranks(), [])
        time.sleep(2)  # Connections of the last commands are closed, and lists have been answered.
        return {"coordinator": footprint(self.cluster.coordinator),
                STEADY: footprint(self.cluster.agents[STEADY])}

    def check_growth(self, warm, end):
        for program, before in warm.items():
            after = end[program]
            self.assertLessEqual(after["files"], before["files"] + MAX_GROWTH_FILES, program)
            if not IS_SANITIZED:
                self.assertLessEqual(after["kib"], before["kib"] + MAX_GROWTH_KIB, program)

    def check_agent_folders(self):
        for node in (STEADY, FRAGILE):
            jobs = self.workspace.folder / node / "jobs"
            attempts = list(jobs.glob("*/gen*"))
            self.assertLessEqual(len(attempts), MAX_KEPT_ATTEMPTS, node)
            left = [path for attempt in attempts for path in attempt.iterdir()
                    if path.name == "live" or path.suffix == ".pid" or ".tmp." in path.name or
                    path.name.startswith("rendezvous-")]
            self.assertEqual(left, [])

    def check_store(self, before):
        """A coordinator that starts again tells the same, and the file is sound."""
        self.cluster.start_coordinator()
        after = cluster.wait_until(self.all_jobs, 60, "the coordinator answers again")
        self.assertEqual(after, before)
        self.cluster.stop()
        with contextlib.closing(
                sqlite3.connect(self.workspace.folder / "coordinator" / "autosp.db")) as store:
            self.assertEqual(store.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def test_nothing_is_left_of_many_jobs(self):
        print(f"AUTOSP_SOAK_JOBS={JOBS} AUTOSP_SOAK_SEED={SEED}", flush=True)
        began = time.monotonic()
        laps = []
        for lap in range(1, LAPS + 1):
            self.run_lap(JOBS * lap // LAPS)
            laps.append(self.check_lap())
            print(f"{len(self.jobs)} jobs, {time.monotonic() - began:.0f} s, "
                  f"{self.num_agent_kills} agents killed; now {laps[-1]}", flush=True)
        told = self.all_jobs()
        print(collections.Counter(
            f"{self.jobs[job['job_id']].label()}: {job['state']}" for job in told))
        self.check_growth(laps[(LAPS - 1) // 2], laps[-1])
        self.cluster.stop()
        self.workspace.expect_nothing_left(self.jobs)
        self.check_agent_folders()
        self.check_store(told)
        self.workspace.expect_nothing_left(self.jobs)


if __name__ == "__main__":
    unittest.main(verbosity=2)
