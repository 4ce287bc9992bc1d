"""Ranks as processes train as one rank does: every loss and every weight."""

import unittest

import cluster
import safetensors_file

TOLERANCE = 1e-5
# Far above the rounding of gradients: AdamW divides each by its own size, and would make steps of
# those that are nothing but rounding, which differs between processors.
OPTIMIZER = {"name": "adamw", "lr": 1.0e-3, "weight_decay": 0.1, "eps": 1.0e-6}
MESHES = (
    {"ranks": 2, "ulysses": 2},
    {"ranks": 4, "ulysses": 4},
    {"ranks": 4, "dp": 2, "ulysses": 2},
)


def largest_difference(actual, expected):
    """Of any element, as a part of its tensor's largest."""
    scale = max(map(abs, expected))
    return max(abs(a - b) for a, b in zip(actual, expected, strict=True)) / scale


class EqualityTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)

    def train(self, seq_len, mesh):
        name = "-".join(f"{axis}{size}" for axis, size in mesh.items())
        training = {"seq_len": seq_len, "optimizer": OPTIMIZER}
        path = self.workspace.job(name, training=training, parallelism=mesh)
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(len(job["ranks"]), mesh["ranks"])
        self.workspace.expect_nothing_left([job["job_id"]])
        outputs = {output["kind"]: output["path"] for output in job["outputs"]}
        weights = self.workspace.folder / f"out-{name}" / "model.safetensors"
        self.assertEqual(outputs["weights"], str(weights))
        return cluster.losses_of(events), safetensors_file.load(weights)

    def check(self, seq_len):
        one_losses, one_weights = self.train(seq_len, {"ranks": 1})
        self.assertEqual(sorted(one_losses), [1, 2, 3, 4, 5])
        self.assertLess(one_losses[5], one_losses[1])  # It has learned something.
        for mesh in MESHES:
            with self.subTest(seq_len=seq_len, **mesh):
                losses, weights = self.train(seq_len, mesh)
                self.assertEqual(losses.keys(), one_losses.keys())
                for step, loss in losses.items():
                    self.assertAlmostEqual(loss / one_losses[step], 1, delta=TOLERANCE)
                self.assertEqual(weights.keys(), one_weights.keys())
                for name, (shape, values) in weights.items():
                    self.assertEqual(shape, one_weights[name][0], name)
                    difference = largest_difference(values, one_weights[name][1])
                    self.assertLess(difference, TOLERANCE, name)

    def test_a_length_that_divides(self):
        self.check(64)

    def test_a_length_that_does_not_divide(self):
        self.check(63)


if __name__ == "__main__":
    unittest.main(verbosity=2)
