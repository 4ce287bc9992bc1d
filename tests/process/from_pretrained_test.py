"""A checkpoint of two ranks, exported, is a model that transformers loads, with the same loss.

The data is one sequence, so that the loss of step 6 is that of the weights after step 5 on a batch
that PyTorch gets too. Needs the Python environment with torch and transformers
(scripts/python_env.sh); exits with 77, which is a skipped test, where that is missing.
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
BF16_TOLERANCE = 1e-2


class FromPretrainedTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.tokens = [(7 * i * i + 3 * i) % 256 for i in range(SEQ_LEN)]
        self.workspace.write("tokens.bin", array.array("H", self.tokens).tobytes())
        ids = ("I64", [1, SEQ_LEN], self.tokens)
        self.batch = self.workspace.folder / "batch.safetensors"
        safetensors_file.save(self.batch, {"input_ids": ids, "labels": ids})

    def train(self, model):
        """Six steps; returns the folder of the checkpoint after the fifth, and the losses."""
        path = self.workspace.job(
            model, archive=cluster.ZOO / model / "model.pt2",
            data={"format": "tokens", "dtype": "uint16", "files": ["tokens.bin"]},
            training={"seq_len": SEQ_LEN, "global_batch_size": 1, "steps": 6,
                      "optimizer": {"name": "sgd", "lr": 0.1}},
            parallelism={"ranks": 2, "ulysses": 2, "zero": 3}, checkpoint={"every_steps": 5})
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        checkpoints = self.workspace.folder / f"out-{model}" / "checkpoints"
        return checkpoints / "step-00000005", cluster.losses_of(events)

    def pretrained(self, *arguments):
        """The last line of what tests/zoo/pretrained.py prints."""
        script = cluster.ZOO / "pretrained.py"
        result = subprocess.run([PYTHON, script, *arguments], check=False, capture_output=True,
                                text=True, timeout=cluster.COMMAND_TIMEOUT_S,
                                env={**os.environ, "HF_HUB_OFFLINE": "1"})
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout.splitlines()[-1])

    def export(self, checkpoint, name, config, *arguments):
        result = self.workspace.cli("export", checkpoint, "--output-dir", name, "--config", config,
                                    *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.workspace.folder / name

    def expect_loss(self, model, *arguments):
        checkpoint, losses = self.train(model)
        config = self.workspace.folder / f"config-{model}"
        self.pretrained("config", model, config)
        folder = self.export(checkpoint, f"hf-{model}", config, *arguments)
        loaded = self.pretrained("loss", folder, self.batch)
        print(f"{model}: loss with the weights after 5 steps: transformers {loaded['loss']}, "
              f"ours {losses[6]}, off by {abs(loaded['loss'] / losses[6] - 1):.2g}")
        self.assertLess(losses[6], losses[1] - 0.1)  # The weights are no longer the archive's.
        self.assertAlmostEqual(loaded["loss"] / losses[6], 1, delta=TOLERANCE)
        self.assertEqual((loaded["dtype"], loaded["problems"]), ("float32", {}))
        return checkpoint, config, losses[6], loaded

    def test_llama_in_several_files_and_in_half_precision(self):
        checkpoint, config, loss, loaded = self.expect_loss("llama", "--max-shard-size", "100kB")
        self.assertFalse(loaded["is_tied"])
        folder = self.export(checkpoint, "hf-bf16", config, "--dtype", "bf16")
        half = self.pretrained("loss", folder, self.batch, "--dtype", "auto")
        self.assertAlmostEqual(half["loss"] / loss, 1, delta=BF16_TOLERANCE)

    def test_gpt2_with_tied_embeddings(self):
        checkpoint, config, loss, loaded = self.expect_loss("gpt2")
        self.assertTrue(loaded["is_tied"])
        # A configuration that unties them finds a weight under each name.
        values = json.loads((config / "config.json").read_text())
        (config / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
        untied = self.pretrained("loss", self.export(checkpoint, "hf-untied", config), self.batch)
        self.assertFalse(untied["is_tied"])
        self.assertEqual(untied["problems"], {})
        self.assertAlmostEqual(untied["loss"] / loss, 1, delta=TOLERANCE)


if __name__ == "__main__":
    if not PYTHON.exists():
        print(f"skipped: {PYTHON} is missing; scripts/python_env.sh makes it")
        sys.exit(77)
    unittest.main(verbosity=2)
