"""Planning a deep model: the same bytes each time, and work that grows with its layers alone."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import plan_bench  # noqa: E402

CLI = pathlib.Path(os.environ["AUTOSP_BIN"]) / "autosp-cli"


@functools.cache
def plan(num_layers, seq_len=1048576):
    """The answer of `plan`, and the program that ranks would run."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plan_bench.write_inputs(folder, num_layers)
        command = [CLI, "--output=json", "plan", "job.yaml", "--cluster", "cluster.yaml",
                   "--program", "program.txt", "--set", f"training.seq_len={seq_len}"]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout), (folder / "program.txt").read_text()


class PlanScalingTest(unittest.TestCase):
    def test_the_same_bytes_each_time(self):
        first, second = plan(4), plan.__wrapped__(4)
        self.assertEqual(first, second)

    def test_another_job_is_another_plan(self):
        self.assertNotEqual(plan(2)[0]["digest"], plan(3)[0]["digest"])
        self.assertNotEqual(plan(2)[0]["digest"], plan(2, seq_len=524288)[0]["digest"])

    # Instructions that are made, and values that the checker gives a meaning: each further layer
    # adds as many as the one before.
    def test_every_layer_adds_as_much_work(self):
        plans = {layers: plan(layers) for layers in (2, 4, 8)}
        instructions = {n: text.count("\n") for n, (_, text) in plans.items()}
        values = {n: answer["plan"]["num_checked_values"] for n, (answer, _) in plans.items()}
        for counts in (instructions, values):
            self.assertGreater(counts[4], counts[2])
            self.assertEqual(counts[8] - counts[4], 2 * (counts[4] - counts[2]))


if __name__ == "__main__":
    unittest.main()
