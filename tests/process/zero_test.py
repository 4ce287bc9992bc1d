"""ZeRO on real ranks: losses and weights of any stage are those of none, and a checkpoint of one is
read at another, on another number of ranks."""

import unittest

import cluster
import safetensors_file

TOLERANCE = 1e-5
STEPS = 6


class ZeroTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)

    def train(self, name, ranks, zero, steps=STEPS, checkpoint=None):
        """Returns the losses by step, and the weights."""
        path = self.workspace.job(
            name, training={"steps": steps, "optimizer": {"name": "adamw", "lr": 0.003}},
            parallelism={"ranks": ranks, "zero": zero}, checkpoint=checkpoint or {})
        events, job = self.workspace.run_job(path)
        self.assertEqual(job["state"], "succeeded", job)
        weights = self.workspace.folder / f"out-{name}" / "model.safetensors"
        return cluster.losses_of(events), safetensors_file.load(weights)

    def expect_same(self, actual, expected, first=1):
        losses, weights = actual
        self.assertEqual(sorted(losses), list(range(first, STEPS + 1)))
        for step, loss in losses.items():
            self.assertAlmostEqual(loss / expected[0][step], 1, delta=TOLERANCE)
        self.assertEqual(weights.keys(), expected[1].keys())
        for name, (shape, values) in weights.items():
            self.assertEqual(shape, expected[1][name][0], name)
            # Adam moves an element by the learning rate where its gradient is rounding alone.
            apart = max(abs(a - b) for a, b in zip(values, expected[1][name][1], strict=True))
            self.assertLess(apart, 2 * 0.003 * STEPS, name)

    def test_two_ranks_train_as_without(self):
        without = self.train("zero0", 2, 0)
        for zero in (1, 2, 3):
            with self.subTest(zero=zero):
                self.expect_same(self.train(f"zero{zero}", 2, zero), without)

    def test_a_checkpoint_is_read_at_another_stage_and_number_of_ranks(self):
        calm = self.train("calm", 2, 3)
        self.train("written", 2, 3, steps=4, checkpoint={"every_steps": 2})
        written = str(self.workspace.folder / "out-written" / "checkpoints")
        resume = {"every_steps": 2, "resume": written}
        # The same ranks at the same stage: the same bits.
        losses, weights = self.train("same", 2, 3, checkpoint=resume)
        self.assertEqual(losses, {step: calm[0][step] for step in (5, 6)})
        self.assertEqual(weights, calm[1])
        for ranks, zero in ((1, 0), (2, 1), (4, 3), (4, 0)):
            with self.subTest(ranks=ranks, zero=zero):
                other = self.train(f"other-{ranks}-{zero}", ranks, zero, checkpoint=resume)
                self.expect_same(other, calm, first=5)

    def test_what_does_not_fit_is_split(self):
        small = {"device_budget": "1600KiB"}
        path = self.workspace.job("small", training={"steps": 1}, memory=small,
                                  parallelism={"ranks": 4, "zero": 0})
        refused = self.workspace.cli("run", path, "--devices", "4")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("set parallelism.zero to ", refused.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
