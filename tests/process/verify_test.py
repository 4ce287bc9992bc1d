"""`autosp-cli verify`: plans that equal the model as exported, and some that do not."""

import json
import math
import re
import signal
import subprocess
import time
import unittest

import cluster
import safetensors_file

EXIT_BAD_INPUT = 2
EXIT_DIFFERS = 6
EXIT_INTERRUPTED = 130
NUM_GRADIENTS = 21  # of the llama of the zoo
BATCH, LENGTH = 2, 24


class VerifyTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)

    def verify(self, job, *arguments, code=0):
        """Returns the report of `autosp-cli verify`, which must exit with `code`."""
        result = self.workspace.cli("verify", job, "--output", "json", *arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.workspace.expect_nothing_left()
        return json.loads(result.stdout)["verification"]

    def refuse(self, *arguments):
        """Returns what a verification says that cannot be run."""
        result = self.workspace.cli("verify", *arguments)
        self.assertEqual(result.returncode, EXIT_BAD_INPUT, result.stdout + result.stderr)
        self.workspace.expect_nothing_left()
        return result.stderr

    def write_batch(self, length=LENGTH):
        tokens = [(7 * i) % 256 for i in range(BATCH * length)]
        path = self.workspace.folder / "batch.safetensors"
        names = ("input_ids", "labels")
        tensors = {name: ("I64", (BATCH, length), tokens) for name in names}
        safetensors_file.save(path, tensors)
        return path

    def test_meshes_equal_one_device(self):
        job = self.workspace.job()
        for mesh in ("ulysses=2", "ring=2", "ring=2,ulysses=2", "dp=2", "dp=2,ring=2"):
            with self.subTest(mesh=mesh):
                report = self.verify(job, "--mesh", mesh)
                sizes = dict(pair.split("=") for pair in mesh.split(","))
                for axis in ("dp", "ring", "ulysses"):
                    self.assertEqual(report["mesh"][axis], int(sizes.get(axis, 1)))
                self.assertTrue(report["is_equal"])
                self.assertEqual(report["oracle"], "exported")
                self.assertIn("as exported, op by op", report["oracle_detail"])
                self.assertEqual(len(report["gradients"]), NUM_GRADIENTS)
                self.assertEqual(report["num_within"], NUM_GRADIENTS)
                errors = [row["error"] for row in report["gradients"]]
                self.assertEqual(errors, sorted(errors, reverse=True))

    def test_the_plan_of_the_job(self):
        """Its mesh, its micro-steps, its padding, its frozen parameters."""
        job = self.workspace.job(
            training={"seq_len": 1001, "global_batch_size": 8, "micro_batch_size": 1},
            parallelism={"ranks": 2, "ulysses": 2},
            model={"archive": str(cluster.ZOO / "llama/model.pt2"),
                   "frozen": ["model.layers.0.**"]})
        report = self.verify(job)
        self.assertEqual(report["mesh"], {"accum": 2, "dp": 1, "ring": 1, "ulysses": 2})
        self.assertEqual(report["job"], {"batch_size": 2, "seq_len": 65})
        frozen = [row["name"] for row in report["not_compared"] if row["why"] == "frozen"]
        self.assertEqual(len(frozen), 9)
        self.assertEqual(len(report["gradients"]), NUM_GRADIENTS - 9)

    def test_bf16_is_held_against_fp32(self):
        report = self.verify(self.workspace.job(precision={"params": "bf16"}),
                             "--mesh", "ring=2,ulysses=2")
        self.assertEqual(report["rule"], "norm")
        self.assertGreater(report["norm"]["error"], 1e-5)
        self.assertGreater(report["norm"]["bound"], report["norm"]["error"])
        self.assertNotEqual(report["loss"]["exact"], report["loss"]["one_device"])
        self.assertEqual(report["loss"]["exact"], report["loss"]["exported"])

    def test_models_that_draw_or_round_are_held_against_the_export_too(self):
        for model, rule in (("gpt2_dropout", "entries"), ("llama_bf16", "norm"),
                            ("llama_autocast", "norm"), ("cases/half_gates", "norm")):
            with self.subTest(model=model):
                inputs = {"ids": {"from": "tokens"}, "labels": {"from": "next_tokens"}}
                is_case = model.startswith("cases/")  # a small vocabulary, short sequences
                data = {"inputs": inputs, "files": ["nothing.txt"]} if is_case else {}
                sizes = ("--seq-len", "16", "--batch-size", "2") if is_case else ()
                archive = str(cluster.ZOO / model / "model.pt2")
                job = self.workspace.job(model={"archive": archive}, data=data,
                                         training={"seq_len": 16 if is_case else 64})
                report = self.verify(job, "--mesh", "ulysses=2", *sizes)
                self.assertEqual(report["oracle"], "exported")
                self.assertEqual(report["rule"], rule)
                self.assertIn("exported", report["loss"])

    def test_a_parameter_of_which_only_the_type_is_read_has_no_gradient(self):
        archive = str(cluster.ZOO / "cases/types_of_others/model.pt2")
        inputs = {"ids": {"from": "tokens"}, "labels": {"from": "next_tokens"}}
        job = self.workspace.job(model={"archive": archive}, training={"seq_len": 16},
                                 data={"inputs": inputs, "files": ["nothing.txt"]})
        report = self.verify(job, "--mesh", "ulysses=2", "--seq-len", "16", "--batch-size", "4")
        self.assertEqual(report["oracle"], "exported")
        self.assertIn("head.bias", [row["name"] for row in report["gradients"]])
        self.assertNotIn("kind", [row["name"] for row in report["gradients"]])

    def test_a_gradient_of_terms_that_cancel_is_held_to_them(self):
        archive = str(cluster.ZOO / "verified/rewards_apart/model.pt2")
        job = self.workspace.job(model={"archive": archive}, training={"seq_len": 16},
                                 data={"inputs": {"ids": {"from": "tokens"}},
                                       "files": ["nothing.txt"]})
        report = self.verify(job, "--mesh", "ring=2", "--seq-len", "16", "--batch-size", "4")
        bias = next(row for row in report["gradients"] if row["name"] == "head.bias")
        self.assertGreater(bias["error"], 1e-5)
        self.assertLessEqual(bias["bound"], 1e-2)
        self.assertEqual(report["noise_factor"], 30)

    def advantages(self, feature):
        """Arguments of a verification of a loss whose terms add up to 0."""
        inputs = {"ids": {"from": "tokens"},
                  "features": {"from": "ones", "dims": ["batch", "sequence", "other"]}}
        archive = str(cluster.ZOO / "verified/advantages_of_sums/model.pt2")
        job = self.workspace.job(model={"archive": archive}, training={"seq_len": 16},
                                 data={"inputs": inputs, "files": ["nothing.txt"]})
        path = self.workspace.folder / "advantages.safetensors"
        safetensors_file.save(path, {
            "ids": ("I64", (6, 16), [i % 7 for i in range(6 * 16)]),
            "features": ("F32", (6, 16, 16), [feature(i) for i in range(6 * 16 * 16)])})
        return job, "--mesh", "ring=2", "--batch", path

    def test_a_loss_that_rounding_leaves_is_held_to_what_is_rounded(self):
        """No weight moves what advantages are made of."""
        report = self.verify(*self.advantages(lambda i: math.sin(i * i)))
        loss = report["loss"]
        self.assertGreater(loss["error"], 1e-5)
        self.assertTrue(report["moves_values"])
        # A last bit of 4,000 is 2e-4, and an advantage off by 0.1 is not rounded.
        self.assertLess(loss["bound"] * loss["scale"], 0.1)

    def test_a_batch_whose_gradients_are_rounding_shows_nothing(self):
        """All rewards are the same, of the same tokens in other orders."""
        arguments = self.advantages(lambda i: math.sin((i // 16 + i // 256) % 16))
        result = self.workspace.cli("verify", *arguments)
        self.assertEqual(result.returncode, EXIT_DIFFERS, result.stdout + result.stderr)
        self.assertIn("this batch shows NOTHING", result.stdout)
        self.assertNotIn("DIFFERS", result.stdout)

    def test_other_sizes_than_the_export_are_named(self):
        job = self.workspace.job()
        report = self.verify(job, "--mesh", "ring=2", "--seq-len", "40", "--batch-size", "1")
        self.assertEqual(report["oracle"], "exported")
        self.assertIn("resized to 1 x 40", report["oracle_detail"])
        report = self.verify(job, "--mesh", "ring=2", "--seq-len", "32", "--batch-size", "2")
        self.assertNotIn("resized", report["oracle_detail"])

    def test_what_plans_warn_of_is_told(self):
        archive = cluster.ZOO / "llama_static/model.pt2"
        job = self.workspace.job(model={"archive": str(archive)})
        sizes = ("--mesh", "ring=2", "--seq-len", "40", "--batch-size", "1")
        report = self.verify(job, *sizes)
        self.assertIn("as constants", report["warnings"][0])
        result = self.workspace.cli("verify", job, *sizes)
        self.assertIn(f"\nwarning: {report['warnings'][0]}\n", result.stdout)

    def test_without_data_and_weights(self):
        job = self.workspace.job(model={"archive": str(cluster.ZOO / "gpt2_long/model.pt2")},
                                 data={"files": ["nothing.txt"]})
        report = self.verify(job, "--mesh", "ring=2")
        self.assertIn("random tokens below 256", report["data"])
        self.assertIn("nothing.txt", report["data"])
        self.assertIn("random", report["weights"])

    def test_a_batch_from_a_file_and_gradients_to_one(self):
        path = self.workspace.folder / "gradients.safetensors"
        report = self.verify(self.workspace.job(), "--batch", self.write_batch(), "--gradients",
                             path, "--mesh", "ulysses=2")
        self.assertEqual(report["job"], {"batch_size": BATCH, "seq_len": LENGTH})
        gradients = safetensors_file.load(path)
        self.assertEqual(len(gradients), 3 * NUM_GRADIENTS)
        for row in report["gradients"]:
            shape, plan = gradients["plan." + row["name"]]
            one_shape, one = gradients["exported." + row["name"]]
            self.assertEqual(shape, one_shape)
            self.assertEqual(shape, gradients["one_device." + row["name"]][0])
            largest = max(abs(a - b) for a, b in zip(plan, one, strict=True))
            self.assertAlmostEqual(largest / row["scale"], row["error"], delta=1e-9)

    def test_what_cannot_be_run_is_refused(self):
        job = self.workspace.job()
        batch = self.write_batch()
        wrong = self.workspace.folder / "wrong.safetensors"
        tokens = [0] * BATCH * LENGTH
        safetensors_file.save(wrong, {"input_ids": ("I64", (BATCH, LENGTH), tokens),
                                      "labels": ("I64", (LENGTH, BATCH), tokens)})
        cases = (
            (("--mesh", "sp=2"), "sp is no axis"),
            (("--mesh", "dp=0"), "dp=0 is no axis with a size"),
            (("--mesh", "dp=2", "--batch-size", "3"), "3 is no multiple of dp 2"),
            (("--batch", batch, "--seq-len", "8"), "excludes"),
            (("--batch", wrong), "dimension 0 of labels has size 24"),
            (("--batch", self.workspace.folder / "none"), "none"),
            (("--seq-len", "100000000"), "above 8192, the greatest it was exported for"),
            (("--batch-size", "1048576"), "more than the"),
            (("--set", "model.frozen=[nothing]"), "matches no parameter"),
        )
        for arguments, message in cases:
            with self.subTest(arguments=arguments):
                self.assertIn(message, self.refuse(job, *arguments))

    def start(self, *arguments):
        return subprocess.Popen(
            [cluster.BIN / "autosp-cli", "verify", *map(str, arguments)], env=self.workspace.env,
            cwd=self.workspace.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_an_interrupt_leaves_nothing(self):
        # Long enough to be met while it runs.
        job = self.workspace.job(training={"seq_len": 4096})
        process = self.start(job, "--mesh", "ulysses=2", "--seq-len", "4096", "--batch-size", "8")
        cluster.wait_until(lambda: "autosp-verify" in self.workspace.processes().values(), 60,
                           "autosp-verify runs")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, EXIT_INTERRUPTED)
        self.workspace.expect_nothing_left()


class PlantedDifferenceTest(unittest.TestCase):
    """autosp-verify itself, with a plan that was changed by hand."""

    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        # Clipping by a norm that is wrong would spread the difference over all gradients.
        self.job = self.workspace.job(parallelism={"ranks": 2, "ulysses": 2},
                                      training={"clip_grad_norm": 0})
        self.plan = self.program("plan", "parallelism.ulysses=2")
        self.one_device = self.program("one", "parallelism.ulysses=1", "parallelism.ranks=1")

    def exported(self):
        """The graph before any pass but the one that resizes it."""
        training = json.loads(self.job.read_text())["training"]
        result = subprocess.run(
            [cluster.BIN / "autosp-opt", "--emit", "graph", "--to", "resize-inputs", "--batch",
             str(training["global_batch_size"]), "--seq-len", str(training["seq_len"]),
             cluster.ZOO / "llama/model.pt2"], env=self.workspace.env, capture_output=True,
            check=True, timeout=cluster.COMMAND_TIMEOUT_S)
        return self.workspace.write("exported.graph", result.stdout)

    def program(self, name, *overrides):
        path = self.workspace.folder / f"{name}.program"
        sets = [word for override in overrides for word in ("--set", override)]
        result = self.workspace.cli("plan", self.job, "--program", path, *sets)
        self.assertEqual(result.returncode, 0, result.stderr)
        return path

    def compare(self, plan, *arguments):
        """The exit code and the last event of autosp-verify."""
        job = json.loads(self.job.read_text())
        job["data"]["files"] = [str(self.workspace.folder / "text.txt")]
        absolute = self.workspace.write("absolute.yaml", json.dumps(job).encode())
        result = subprocess.run(
            [cluster.BIN / "autosp-verify", "--plan", plan, "--one-device", self.one_device,
             "--job", absolute, *arguments], env=self.workspace.env, capture_output=True, text=True,
            timeout=cluster.COMMAND_TIMEOUT_S, check=False)
        return result.returncode, json.loads(result.stdout.splitlines()[-1])

    def change(self, pattern, replacement):
        text = self.plan.read_text()
        changed, count = re.subn(pattern, replacement, text, count=1)
        self.assertEqual(count, 1, pattern)
        return self.workspace.write("changed.program", changed.encode())

    def test_the_plan_as_it_was(self):
        code, event = self.compare(self.plan)
        self.assertEqual(code, 0, event)
        self.assertTrue(event["result"]["is_equal"])

    def test_a_gradient_that_is_not_reduced_is_named(self):
        # The gradient of the layer's norm is left out of the list that is reduced.
        name = "model.layers.1.input_layernorm.weight"
        value = re.search(r'state (%\S+) "grad:' + re.escape(name) + '"', self.plan.read_text())
        gradient = re.escape(value.group(1))
        plan = self.change(r"(autosp\.all_reduce_\(\[[^\]]*?)" + gradient + r", ", r"\1")
        for arguments in ((), ("--exported", self.exported())):
            with self.subTest(arguments=arguments):
                code, event = self.compare(plan, *arguments)
                self.assertEqual(code, EXIT_DIFFERS, event)
                result = event["result"]
                self.assertFalse(result["is_equal"])
                self.assertEqual(result["gradients"][0]["name"], name)
                self.assertFalse(result["gradients"][0]["is_within"])
                self.assertEqual(result["num_within"], NUM_GRADIENTS - 1)
                self.assertEqual(result["noise_factor"], 30)

    def test_a_gradient_that_the_export_has_not_is_held_against_zero(self):
        graph = self.exported()
        name = "model.layers.%d.input_layernorm.weight"
        text = graph.read_text()
        first, second = (re.search(r'param (%\S+) "' + re.escape(name % i), text).group(1)
                         for i in range(2))
        declared, nodes = re.split(r"(?<=\n)(?=  %)", text, maxsplit=1)
        nodes, count = re.subn(re.escape(second) + r"\b", first, nodes)
        self.assertGreater(count, 0)
        graph.write_text(declared + nodes)
        code, event = self.compare(self.plan, "--exported", graph)
        self.assertEqual(code, EXIT_DIFFERS, event)
        rows = {row["name"]: row for row in event["result"]["gradients"]}
        self.assertFalse(rows[name % 1]["is_within"])

    def test_a_mask_that_a_pass_misread_is_seen_by_the_export_alone(self):
        # A pass that took the causal mask for none would say so to both programs.
        causal = re.compile(r"(_flash_attention_for_cpu\.default\([^)]*, )true, none")
        for path in (self.plan, self.one_device):
            text, count = causal.subn(r"\1false, none", path.read_text())
            self.assertGreater(count, 0, path)
            backward = re.compile(r"(_for_cpu_backward\.default\([^)]*, )true, none")
            text, count = backward.subn(r"\1false, none", text)
            self.assertGreater(count, 0, path)
            path.write_text(text)
        code, event = self.compare(self.plan)
        self.assertEqual(code, 0, event)
        self.assertEqual(event["result"]["oracle"], "one_device")
        code, event = self.compare(self.plan, "--exported", self.exported())
        self.assertEqual(code, EXIT_DIFFERS, event)
        result = event["result"]
        self.assertEqual(result["oracle"], "exported")
        self.assertGreater(result["loss"]["error"], 1e-4)
        self.assertLess(result["num_within"], NUM_GRADIENTS)
        self.assertAlmostEqual(result["loss"]["plan"], result["loss"]["one_device"], delta=1e-5)

    def test_the_export_equals_the_plan_as_it_was(self):
        code, event = self.compare(self.plan, "--exported", self.exported())
        self.assertEqual(code, 0, event)
        self.assertEqual(event["result"]["oracle"], "exported")

    def test_peaky_attention_is_held_to_what_rounding_leaves(self):
        ring = self.program("ring", "parallelism.ulysses=1", "parallelism.ring=2")
        for path in (ring, self.one_device):
            scale = r"((?:none, |scale=))0\.25\b"  # of 16 elements of a head
            text, count = re.subn(scale, r"\g<1>5000.0", path.read_text())
            self.assertGreater(count, 0, path)
            path.write_text(text)
        code, event = self.compare(ring)
        self.assertEqual(code, 0, event)
        result = event["result"]
        self.assertEqual(result["noise_factor"], 30)
        worst = max(row["error"] for row in result["gradients"])
        self.assertGreater(worst, 1e-5)
        for row in result["gradients"]:
            self.assertLessEqual(row["error"], row["bound"])
            self.assertLessEqual(row["bound"], 1e-2)

    def test_an_export_that_is_none(self):
        graph = self.workspace.write("wrong.graph", b"graph {")
        code, event = self.compare(self.plan, "--exported", graph)
        self.assertEqual(code, 1, event)
        self.assertIn("wrong.graph", event["error"]["message"])

    def test_a_program_that_is_none(self):
        code, event = self.compare(self.workspace.write("changed.program", b"program {"))
        self.assertEqual(code, 1, event)
        self.assertIn("changed.program", event["error"]["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
