"""Checkpoints, kill -9, and what is lost by it: nothing.

The losses of every job are held bit for bit against those of a run that nobody disturbed.
AUTOSP_KILLS is how often the long test kills (20 by hand, fewer by default), AUTOSP_KILL_SEED which
victims and moments it picks; it prints both.
"""

import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import cluster

NODE = "node-a"
STEPS = 24
KILLS = int(os.environ.get("AUTOSP_KILLS", "3"))
SEED = int(os.environ.get("AUTOSP_KILL_SEED", secrets.randbelow(1 << 30)))


def checkpoints_of(events):
    return [event["checkpoint"] for event in events if "checkpoint" in event]


class RestartsTest(unittest.TestCase):
    undisturbed = {}
    written = None  # what a job of 10 steps has left, for all tests that go on from there

    @classmethod
    def tearDownClass(cls):
        if cls.written:
            shutil.rmtree(cls.written)

    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)

    def job(self, name="job", steps=STEPS, ranks=2, checkpoint=None, **sections):
        training = {"steps": steps, **sections.pop("training", {})}
        return self.workspace.job(
            name, training=training, parallelism={"ranks": ranks},
            checkpoint={"every_steps": 4, **(checkpoint or {})}, **sections)

    def losses_without_faults(self, steps=STEPS):
        """Of two ranks. The learning rate is constant: a longer run begins like a shorter one."""
        if len(self.undisturbed) < steps:
            job = self.workspace.job("calm", training={"steps": steps})
            events, job = self.workspace.run_job(job)
            self.assertEqual(job["state"], "succeeded", job)
            self.undisturbed.update(cluster.losses_of(events))
        return {step: self.undisturbed[step] for step in range(1, steps + 1)}

    def expect_undisturbed_losses(self, events, first=1):
        wanted = self.losses_without_faults()
        losses = cluster.losses_of(events)
        self.assertEqual(losses, {step: wanted[step] for step in range(first, STEPS + 1)})

    def with_checkpoints(self, name="job"):
        """Gives the job `name` the output of one that has ended after step 10; returns the folder
        of its checkpoints, of steps 8 and 10."""
        if not self.written:
            self.workspace.run_job(self.job("first", steps=10))
            type(self).written = tempfile.mkdtemp(prefix="autosp-process-test-")
            shutil.copytree(self.workspace.folder / "out-first", self.written, dirs_exist_ok=True)
        output = self.workspace.folder / f"out-{name}"
        shutil.copytree(self.written, output)
        return output / "checkpoints"

    def metrics(self, name="job"):
        path = self.workspace.folder / f"out-{name}" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def checkpoints(self, name="job"):
        folder = self.workspace.folder / f"out-{name}" / "checkpoints"
        return sorted(path.name for path in folder.iterdir())

    def start_cluster(self):
        self.cluster = cluster.Cluster(self.workspace, lease_s=15)
        self.cluster.start()

    # --- kill -9 ---

    def await_a_moment(self, job_id, chance):
        """While ranks start, or a few steps further than the last checkpoint; returns the ranks."""
        begun = self.cluster.job(job_id)["progress"]["checkpoint_step"]
        wanted = begun + chance.randrange(8)
        while_starting = chance.random() < 0.3

        def has_come():
            ranks = self.workspace.ranks()
            return ranks if ranks and (while_starting or self.job_is_over(job_id) or
                                       self.cluster.job(job_id)["progress"]["last_step"] >= wanted
                                       ) else self.job_is_over(job_id)
        ranks = cluster.wait_until(has_come, 90, f"step {wanted}")
        time.sleep(chance.uniform(0, 0.1))
        return ranks

    def kill_something(self, job_id, chance):
        """One rank, or the agent with all of them; returns what, or None when the job is over."""
        ranks = self.await_a_moment(job_id, chance)
        if ranks is True:
            return None
        if chance.random() < 0.25:
            self.cluster.agents[NODE].kill()
            self.cluster.agents[NODE].wait(timeout=10)
            time.sleep(chance.uniform(0, 1))
            self.cluster.start_agent()
            return "the agent"
        victim = chance.choice(sorted(ranks))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return None
        cluster.wait_until(lambda: victim not in self.workspace.ranks(), 10, "it is gone")
        return "a rank"

    def job_is_over(self, job_id):
        return self.cluster.job(job_id).get("state") in ("succeeded", "failed", "cancelled")

    def test_kills_at_random_moments_change_no_loss(self):
        print(f"AUTOSP_KILLS={KILLS} AUTOSP_KILL_SEED={SEED}")
        chance = random.Random(SEED)
        # Between two kills some forty steps are trained at most, however fast the machine is.
        steps = 99 * KILLS  # a multiple of every_steps
        calm = self.losses_without_faults(steps)
        self.start_cluster()
        job_id = self.cluster.submit(self.job(
            steps=steps, checkpoint={"every_steps": 3}, training={"max_restarts": 1000}))
        done = []
        while len(done) < KILLS:
            killed = self.kill_something(job_id, chance)
            if killed is None and self.job_is_over(job_id):
                break
            if killed is not None:
                step = self.cluster.job(job_id).get("progress", {}).get("last_step", 0)
                done.append(f"{killed} at about step {step}")
        print("killed", "; ".join(done))
        job = self.cluster.await_end(job_id, 120 + 10 * KILLS)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(len(done), KILLS, "the job was over before")
        self.assertGreaterEqual(job["restarts"]["total"], KILLS * 3 // 4, job["restarts"])
        self.assertEqual(cluster.losses_of(self.cluster.events(job_id)), calm)
        self.assertEqual({line["step"]: line["loss"] for line in self.metrics()}, calm)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, steps + 1)))
        self.assertEqual(self.checkpoints(), [f"step-{step:08}" for step in (steps - 3, steps)])
        print(f"{job['restarts']['total']} restarts, losses bit for bit as without")
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])

    def test_a_restart_is_shown_and_counted(self):
        self.start_cluster()
        job_id = self.cluster.submit(self.job(steps=100000, training={"max_restarts": 2}))
        job = self.cluster.await_step(job_id, 5)
        victim = next(rank for rank in job["ranks"] if rank["rank"] == 1)
        os.kill(victim["pid"], signal.SIGKILL)
        def has_gone_on():
            job = self.cluster.job(job_id)
            return job if job.get("generation") == 2 and job["state"] == "running" and \
                job["restarts"]["used"] == 0 else None
        # A checkpoint past all that there were is progress, which gives the budget back.
        job = cluster.wait_until(has_gone_on, 60, "it goes on and makes progress")
        self.assertEqual((job["restarts"]["total"], job["restarts"]["max"]), (1, 2))
        self.assertIn("rank 1", job["restarts"]["last_reason"])
        self.cluster.cli("cancel", job_id)
        self.cluster.await_end(job_id, 30)
        text = self.cluster.cli("watch", job_id).stdout
        self.assertIn("queued: restart 1 of 2: rank 1 on node node-a was killed by SIGKILL", text)
        self.assertRegex(text, r"resumed at step \d+ from .*/step-0000")
        self.assertIn("restarts", self.cluster.cli("status", job_id).stdout)
        self.cluster.stop()

    def test_without_checkpoints_a_restart_begins_again_until_the_budget_is_spent(self):
        self.start_cluster()
        job_id = self.cluster.submit(self.job(
            steps=100000, checkpoint={"every_steps": 0}, training={"max_restarts": 1}))
        for generation in (1, 2):
            def has_stepped():
                job = self.cluster.job(job_id)
                return job if job["generation"] == generation and job["state"] == "running" and \
                    job["ranks"][0]["last_step"] >= 3 else None
            job = cluster.wait_until(has_stepped, 60, "step 3")
            os.kill(job["ranks"][0]["pid"], signal.SIGKILL)
            cluster.wait_until(lambda: self.cluster.job(job_id)["state"] != "running", 30,
                               "that is noticed")
        job = self.cluster.await_end(job_id, 30)
        self.assertEqual(job["state"], "failed")
        self.assertIn("1 restart without a new checkpoint", job["reason"])
        events = self.cluster.events(job_id)
        self.assertEqual([note["step"] for note in checkpoints_of(events)], [0])
        wanted = self.losses_without_faults()
        for event in events:
            report = event.get("step_finished", {}).get("report", {"step": 0})
            if report["step"] in wanted:
                self.assertEqual(report["loss"], wanted[report["step"]])
        self.cluster.stop()

    # --- One run after another ---

    def test_a_longer_run_goes_on_where_the_shorter_one_ended(self):
        self.with_checkpoints()
        self.assertEqual(self.checkpoints(), ["step-00000008", "step-00000010"])
        events, job = self.workspace.run_job(self.job(steps=STEPS))
        self.assertEqual(job["state"], "succeeded", job)
        self.expect_undisturbed_losses(events, first=11)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, STEPS + 1)))
        # Nothing is left to do, and that is no error; never does it all over again.
        events, job = self.workspace.run_job(self.job(steps=STEPS))
        self.assertEqual((job["state"], cluster.losses_of(events)), ("succeeded", {}))
        # That is no reason to replace what the other one has written.
        again = {"resume": "never"}
        before = self.checkpoints()
        _, job = self.workspace.run_job(self.job(steps=STEPS, checkpoint=again))
        self.assertEqual((job["state"], job["restarts"]["total"]), ("failed", 0), job)
        self.assertIn("step-00000024 is a checkpoint of job", job["cause"]["message"])
        self.assertEqual(self.checkpoints(), before)
        again["directory"] = "elsewhere"
        events, job = self.workspace.run_job(self.job(steps=STEPS, checkpoint=again))
        self.expect_undisturbed_losses(events)

    def test_a_directory_for_transformers_has_its_config(self):
        config = self.workspace.write("config.json", b'{"model_type": "llama"}')
        _, job = self.workspace.run_job(self.job(steps=2, output={"config": "config.json"}))
        written = {output["kind"]: output["path"] for output in job["outputs"]}
        self.assertEqual(pathlib.Path(written["config"]).read_bytes(), config.read_bytes())
        self.assertEqual(pathlib.Path(written["weights"]).parent,
                         pathlib.Path(written["config"]).parent)
        config.unlink()
        refused = self.workspace.cli("run", self.workspace.folder / "job.yaml")
        self.assertIn("output.config", refused.stderr)

    def test_another_number_of_ranks_goes_on(self):
        self.with_checkpoints()
        events, job = self.workspace.run_job(self.job(ranks=4))
        self.assertEqual((job["state"], job["world_size"]), ("succeeded", 4), job)
        losses = cluster.losses_of(events)
        self.assertEqual(sorted(losses), list(range(11, STEPS + 1)))
        for step, loss in losses.items():
            self.assertAlmostEqual(loss / self.losses_without_faults()[step], 1, delta=1e-4)
        self.assertIn("another plan", checkpoints_of(events)[0]["message"])

    def test_a_checkpoint_of_something_else_is_refused(self):
        self.with_checkpoints()
        _, job = self.workspace.run_job(self.job(training={"seed": 5}))
        self.assertEqual((job["state"], job["restarts"]["total"]), ("failed", 0), job)
        self.assertIn("training.seed 0, and this job has 5", job["cause"]["message"])
        self.assertIn("checkpoint.resume", job["cause"]["message"])

    # --- Damage ---

    def damage(self, path, how):
        if how == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 4
            path.write_bytes(data)

    def test_a_damaged_checkpoint_is_skipped_and_said(self):
        for number, (file, how) in enumerate((
                ("rank-00001.safetensors", "flipped"), ("rank-00000.safetensors", "truncated"))):
            name = f"damaged{number}"
            newest = self.with_checkpoints(name) / "step-00000010"
            self.damage(newest / file, how)
            events, job = self.workspace.run_job(self.job(name))
            self.assertEqual(job["state"], "succeeded", job)
            self.expect_undisturbed_losses(events, first=9)
            skipped, resumed = checkpoints_of(events)[:2]
            self.assertEqual((skipped["event"], resumed["event"]), ("skipped", "resumed"))
            self.assertIn(str(newest / file), skipped["message"])
            self.assertEqual(resumed["step"], 8)

    def await_restart(self, job_id):
        """Returns the reason."""
        def has_restarted():
            restarts = self.cluster.job(job_id).get("restarts", {})
            return restarts["last_reason"] if restarts.get("total", 0) > 0 else None
        return cluster.wait_until(has_restarted, 60, "a restart")

    def test_a_node_that_does_not_see_a_checkpoint_is_no_reason_to_begin_again(self):
        folder = self.with_checkpoints()
        blind = ("unshare", "--mount", "sh", "-c",
                 f'mount -t tmpfs tmpfs "{folder}" && exec "$@"', "sh")
        if subprocess.run([*blind, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("cannot mount")
        self.cluster = cluster.Cluster(self.workspace, lease_s=15)
        self.cluster.start_coordinator()
        self.cluster.start_agent("node-a", devices=1)
        self.cluster.start_agent("node-b", devices=1, wrapper=blind)
        cluster.wait_until(lambda: len(self.cluster.ready_nodes()) == 2, 30, "two nodes")
        job_id = self.cluster.submit(self.job(training={"max_restarts": 100}))
        reason = self.await_restart(job_id)
        self.assertIn("rank 1", reason)
        self.assertIn("step-00000010/manifest.json: No such file", reason)
        self.cluster.cli("cancel", job_id)
        self.cluster.await_end(job_id, 30)
        self.assertEqual(cluster.losses_of(self.cluster.events(job_id)), {})
        self.cluster.stop()

    def test_a_checkpoint_that_cannot_be_read_now_is_waited_for(self):
        manifest = self.with_checkpoints() / "step-00000010" / "manifest.json"
        whole = manifest.read_bytes()
        manifest.unlink()
        # Of a rank, its memory at address 0: an I/O error.
        manifest.symlink_to("/proc/self/mem")
        self.start_cluster()
        job_id = self.cluster.submit(self.job(training={"max_restarts": 100}))
        self.assertIn("Input/output error", self.await_restart(job_id))
        # At once: a rank may look in between.
        healed = manifest.with_name("healed")
        healed.write_bytes(whole)
        healed.replace(manifest)
        job = self.cluster.await_end(job_id, 60)
        self.assertEqual(job["state"], "succeeded", job)
        events = self.cluster.events(job_id)
        self.expect_undisturbed_losses(events, first=11)
        self.assertEqual([note["step"] for note in checkpoints_of(events)
                          if note["event"] != "committed"], [10])
        self.cluster.stop()

    def start_cluster_of_a_plain_user(self):
        """Root may read everything, but for these two."""
        plain = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
        if subprocess.run([*plain, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("cannot give up capabilities")
        self.cluster = cluster.Cluster(self.workspace, lease_s=15)
        self.cluster.start_coordinator()
        self.cluster.start_agent(wrapper=plain)
        cluster.wait_until(self.cluster.ready_nodes, 30, "a node is ready")

    def test_a_checkpoint_that_may_not_be_read_ends_the_job_at_once(self):
        manifest = self.with_checkpoints() / "step-00000010" / "manifest.json"
        manifest.chmod(0)
        self.start_cluster_of_a_plain_user()
        job_id = self.cluster.submit(self.job(training={"max_restarts": 100}))
        job = self.cluster.await_end(job_id, 60)
        self.assertEqual((job["state"], job["restarts"]["total"]), ("failed", 0), job)
        self.assertIn("manifest.json: Permission denied; let the user of the agent read it",
                      job["cause"]["message"])
        self.cluster.stop()

    def test_a_restart_passes_over_what_another_user_keeps_in_the_same_folder(self):
        folder = self.with_checkpoints()
        shutil.rmtree(folder / "step-00000008")
        # Newer than all of this job's, and of no step that is due.
        secret = (folder / "step-00000010").rename(folder / "step-00999990")
        (secret / "manifest.json").chmod(0)
        self.start_cluster_of_a_plain_user()
        job_id = self.cluster.submit(self.job(
            steps=100000, checkpoint={"resume": "never"}, training={"max_restarts": 2}))
        job = self.cluster.await_step(job_id, 9)
        os.kill(job["ranks"][1]["pid"], signal.SIGKILL)
        def has_gone_on():
            job = self.cluster.job(job_id)
            self.assertNotEqual(job.get("state"), "failed", job)
            return job.get("generation") == 2 and job["restarts"]["used"] == 0
        cluster.wait_until(has_gone_on, 60, "it goes on and makes progress")
        self.cluster.cli("cancel", job_id)
        self.cluster.await_end(job_id, 30)
        resumed = next(note for note in checkpoints_of(self.cluster.events(job_id))
                       if note["event"] == "resumed")
        self.assertGreaterEqual(resumed["step"], 8, resumed)
        self.assertIn("step-00999990 is passed over as another job's",
                      self.cluster.cli("logs", job_id, "--rank", "0").stdout)
        self.cluster.stop()

    # --- Disks ---

    def mount(self, folder, options):
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
                                capture_output=True, text=True, check=False)
        if result.returncode != 0:
            self.skipTest(f"cannot mount: {result.stderr}")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)

    def disk(self, size):
        folder = self.workspace.folder / "disk"
        folder.mkdir()
        self.mount(str(folder), f"size={size}")
        return folder

    def expect_job_without_the_disk(self, events, job, disk, words):
        """The job is done; the checkpoint that was committed before is whole, the rest was said."""
        self.assertEqual(job["state"], "succeeded", job)
        self.expect_undisturbed_losses(events)
        notes = checkpoints_of(events)
        self.assertEqual(notes[0]["event"], "committed", notes)
        failed = [note for note in notes if note["event"] == "not_written"]
        self.assertTrue(failed, notes)
        self.assertIn(words, failed[0]["message"])
        self.assertGreaterEqual(job["progress"]["checkpoints_failed"], 1)
        committed = [note for note in notes if note["event"] == "committed"][-1]
        self.assertEqual(sorted(path.name for path in disk.iterdir()),
                         [pathlib.Path(committed["path"]).name])
        events, _ = self.workspace.run_job(self.job("again", checkpoint={
            "every_steps": 0, "resume": str(disk)}, steps=STEPS + 4))
        self.assertEqual(checkpoints_of(events)[0]["step"], committed["step"])

    def test_a_full_disk_costs_the_checkpoint_and_not_the_job(self):
        folder = self.with_checkpoints("size") / "step-00000010"
        size = sum(path.stat().st_size for path in folder.iterdir())
        disk = self.disk(int(1.5 * size))  # One fits, and not the next beside it.
        events, job = self.workspace.run_job(self.job(checkpoint={"directory": str(disk)}))
        self.expect_job_without_the_disk(events, job, disk, "No space left on device")

    def test_a_disk_that_is_read_only_is_found_before_anything_is_trained(self):
        disk = self.disk("64m")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        events, job = self.workspace.run_job(
            self.job(checkpoint={"directory": str(disk)}, training={"max_restarts": 100}))
        self.assertEqual((job["state"], job["restarts"]["total"]), ("failed", 0), job)
        self.assertIn(f"checkpoint.directory: cannot write into {disk}: Read-only file system",
                      job["cause"]["message"])
        self.assertEqual(cluster.losses_of(events), {})

    def test_a_disk_that_turns_read_only_costs_the_checkpoint_and_not_the_job(self):
        disk = self.disk("64m")
        self.start_cluster()
        job_id = self.cluster.submit(self.job(
            steps=100000, checkpoint={"directory": str(disk), "keep": 1}))
        cluster.wait_until(lambda: self.cluster.job(job_id)["progress"]["checkpoint_step"] > 0, 60,
                           "a checkpoint")
        def remount():
            return subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False,
                                  capture_output=True).returncode == 0
        cluster.wait_until(remount, 30, "no file is open for writing")
        cluster.wait_until(lambda: self.cluster.job(job_id)["progress"]["checkpoints_failed"] > 1,
                           60, "later ones fail")
        before = self.cluster.job(job_id)
        self.assertEqual(before["state"], "running")
        os.kill(before["ranks"][0]["pid"], signal.SIGKILL)
        def has_gone_on():
            job = self.cluster.job(job_id)
            return job if job["generation"] == 2 and job["state"] == "running" and \
                job["ranks"][0]["last_step"] > job["progress"]["checkpoint_step"] + 4 else None
        cluster.wait_until(has_gone_on, 60, "it goes on")
        self.cluster.cli("cancel", job_id)
        self.cluster.await_end(job_id, 30)
        notes = checkpoints_of(self.cluster.events(job_id))
        committed = [note for note in notes if note["event"] == "committed"][-1]
        resumed = [note for note in notes if note["event"] == "resumed"][-1]
        self.assertEqual(resumed["step"], committed["step"])
        failed = [note for note in notes if note["event"] == "not_written"]
        self.assertIn("Read-only file system", failed[0]["message"])
        wanted = self.losses_without_faults()
        losses = cluster.losses_of(self.cluster.events(job_id))
        self.assertGreater(max(losses), resumed["step"])
        for step in set(wanted) & set(losses):
            self.assertEqual(losses[step], wanted[step], step)
        self.cluster.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
