"""Buffers that a step writes, on real ranks: a resumed job goes on from them bit for bit,
checkpoints and exports have them, and micro-steps leave what the whole batch does."""

import json
import unittest

import cluster
import safetensors_file

STEPS = 6
CASES = cluster.ZOO / "cases"


class BuffersTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        tokens = [(7 * i + i * i) % 23 for i in range(4096)]
        self.workspace.write("tokens.bin", b"".join(t.to_bytes(2, "little") for t in tokens))

    def job(self, name, case, steps=STEPS, micro_batch_size=None, **sections):
        training = {"steps": steps, "seq_len": 16, "global_batch_size": 4,
                    "optimizer": {"name": "sgd", "lr": 0.05}}
        if micro_batch_size:
            training["micro_batch_size"] = micro_batch_size
        return self.workspace.job(
            name, archive=CASES / case / "model.pt2", training=training,
            data={"format": "tokens", "files": ["tokens.bin"], "dtype": "uint16",
                  "inputs": {"ids": {"from": "tokens"}, "labels": {"from": "next_tokens"}}},
            **sections)

    def train(self, name, case, **options):
        path = self.job(name, case, **options)
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        weights = self.workspace.folder / f"out-{name}" / "model.safetensors"
        return cluster.losses_of(events), safetensors_file.load(weights)

    def test_a_resumed_job_goes_on_from_them(self):
        for case, buffer in (("batch_norms", "of_channels.running_var"),
                             ("moving_average", "center")):
            with self.subTest(case):
                calm = self.train(f"{case}-calm", case)
                self.train(f"{case}-written", case, steps=4, checkpoint={"every_steps": 2})
                written = self.workspace.folder / f"out-{case}-written" / "checkpoints"
                losses, weights = self.train(
                    f"{case}-again", case,
                    checkpoint={"every_steps": 2, "resume": str(written)})
                self.assertEqual(losses, {step: calm[0][step] for step in (5, 6)})
                self.assertEqual(weights, calm[1])
                # What no step writes, the frozen norm has, is in no checkpoint.
                original = self.workspace.folder / f"out-{case}-written" / "model.safetensors"
                done = self.workspace.cli("export", written, "--output-dir", f"hf-{case}",
                                          "--weights", original)
                self.assertEqual(done.returncode, 0, done.stderr)
                before = safetensors_file.load(original)
                exported = self.workspace.folder / f"hf-{case}" / "model.safetensors"
                self.assertEqual(safetensors_file.load(exported), before)
                self.assertNotEqual(before[buffer], weights[buffer])

    def test_each_step_counts_once(self):
        whole = self.train("whole", "moving_average")[1]
        parts = self.train("parts", "moving_average", micro_batch_size=1)[1]
        for weights in (whole, parts):
            self.assertEqual(list(weights["steps"][1]), [3 + STEPS])
            self.assertNotIn("average_loss", weights)  # persistent=False
        self.assertEqual(whole["tokens"], parts["tokens"])
        for one, other in zip(whole["center"][1], parts["center"][1], strict=True):
            self.assertAlmostEqual(one, other, delta=1e-5)

    def test_verify_compares_them(self):
        for params in ("fp32", "bf16"):
            path = self.job(f"verified-{params}", "moving_average", precision={"params": params})
            result = self.workspace.cli("verify", path, "--output", "json", "--mesh", "ulysses=2")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            report = json.loads(result.stdout)["verification"]
            names = {row["name"] for row in report["gradients"] if row["is_within"]}
            self.assertLessEqual(
                {f"buffer:{name}" for name in ("center", "steps", "tokens", "average_loss",
                                               "weights_before")}, names)


if __name__ == "__main__":
    unittest.main(verbosity=2)
