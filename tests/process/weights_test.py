"""Weights that ranks wrote load into the original PyTorch module, which has the same loss.

The data is one sequence, so that step 6 sees the weights of step 5 on the batch that PyTorch gets.
Needs the Python environment with torch and transformers (scripts/python_env.sh); exits with 77,
which is a skipped test, where that is missing.
"""

import array
import json
import os
import pathlib
import subprocess
import sys
import unittest

import cluster
import safetensors_file

DEPS = pathlib.Path(os.environ.get("AUTOSP_DEPS", cluster.SOURCE / ".deps"))
PYTHON = DEPS / "pyenv" / "bin" / "python"
SEQ_LEN = 62  # Which two ranks share, and no more than that.
TOLERANCE = 1e-5


class WeightsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.tokens = [(7 * i * i + 3 * i) % 256 for i in range(SEQ_LEN)]
        self.workspace.write("tokens.bin", array.array("H", self.tokens).tobytes())

    def train(self, steps):
        path = self.workspace.job(
            f"steps{steps}",
            data={"format": "tokens", "dtype": "uint16", "files": ["tokens.bin"]},
            training={"seq_len": SEQ_LEN, "global_batch_size": 1, "steps": steps,
                      "optimizer": {"name": "sgd", "lr": 0.1}},
            parallelism={"ranks": 2, "ulysses": 2})
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        self.workspace.expect_nothing_left([job["job_id"]])
        return cluster.losses_of(events)

    def loss_of_pytorch(self, weights):
        batch = self.workspace.folder / "batch.safetensors"
        ids = ("I64", [1, SEQ_LEN], self.tokens)
        safetensors_file.save(batch, {"input.input_ids": ids, "input.labels": ids})
        script = cluster.ZOO / "check_weights.py"
        result = subprocess.run([PYTHON, script, "llama", weights, batch], check=False,
                                capture_output=True, text=True, timeout=cluster.COMMAND_TIMEOUT_S)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout.splitlines()[-1])["loss"]

    def test_pytorch_has_the_loss_of_the_next_step(self):
        self.train(5)
        losses = self.train(6)
        expected = self.loss_of_pytorch(self.workspace.folder / "out-steps5" / "model.safetensors")
        print(f"loss with the weights after 5 steps: PyTorch {expected}, ours {losses[6]}")
        self.assertLess(losses[6], losses[1] - 0.1)  # The weights are no longer the archive's.
        self.assertAlmostEqual(losses[6] / expected, 1, delta=TOLERANCE)


if __name__ == "__main__":
    if not PYTHON.exists():
        print(f"skipped: {PYTHON} is missing; scripts/python_env.sh makes it")
        sys.exit(77)
    unittest.main(verbosity=2)
