"""Wrong jobs through the command line: what fails, with which exit code, and what the message says.

What can be known before is refused by `plan` and by `submit` alike, and no job comes to be. The
rest fails with the job, and the cause says it.
"""

import json
import pathlib
import shutil
import subprocess
import unittest
import zipfile

import cluster
import safetensors_file

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
LLAMA = cluster.ZOO / "llama" / "model.pt2"
GPT2 = cluster.ZOO / "gpt2" / "model.pt2"
SMALL_DISK_KIB = 300  # The weights of the small Llama have 420.


def edited_archive(workspace, name, edit):
    """The small Llama, with `edit` applied to its graph."""
    path = workspace.folder / name
    with zipfile.ZipFile(LLAMA) as source, zipfile.ZipFile(path, "w") as copy:
        for entry in source.namelist():
            data = source.read(entry)
            copy.writestr(entry, edit(data) if entry.endswith("models/model.json") else data)
    return path


def with_schema_99(graph):
    return json.dumps({**json.loads(graph), "schema_version": {"major": 99, "minor": 0}}).encode()


def with_unknown_op(graph):
    return graph.replace(b"torch.ops.aten.silu.default", b"torch.ops.aten.frobnicate.default")


def truncated(workspace):
    data = LLAMA.read_bytes()
    return workspace.write("truncated.pt2", data[: len(data) // 2])


def corrupted(workspace):
    data = bytearray(LLAMA.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 4000] = bytes(byte ^ 0xFF for byte in data[middle : middle + 4000])
    return workspace.write("corrupted.pt2", bytes(data))


def gpt2_weights(workspace, change):
    """All parameters of GPT-2 as a safetensors file, after `change`."""
    reference = safetensors_file.load(cluster.ZOO / "gpt2" / "reference.safetensors")
    tensors = {name.removeprefix("grad."): ("F32", shape, values)
               for name, (shape, values) in reference.items() if name.startswith("grad.")}
    change(tensors)
    path = workspace.folder / "weights.safetensors"
    safetensors_file.save(path, tensors)
    return str(path)


def transpose_one(tensors):
    dtype, (rows, columns), values = tensors["transformer.h.0.mlp.c_fc.weight"]
    tensors["transformer.h.0.mlp.c_fc.weight"] = (dtype, [columns, rows], values)


def lose_one(tensors):
    del tensors["transformer.h.0.mlp.c_fc.weight"]


def retype_one(tensors):
    _, shape, values = tensors["transformer.h.0.mlp.c_fc.weight"]
    ids = [int(value) for value in values]
    tensors["transformer.h.0.mlp.c_fc.weight"] = ("I64", shape, ids)


def truncated_weights(workspace):
    path = pathlib.Path(gpt2_weights(workspace, lambda tensors: None))
    path.write_bytes(path.read_bytes()[:-1000])
    return str(path)


# What is wrong; sections of the job, in which a function makes a file; words of the message: the
# thing, the value or the rule, and the remedy.
REFUSED = (
    ("a truncated archive", {"archive": truncated},
     ["truncated.pt2", "the file is truncated", "copy or save the file again"]),
    ("a corrupted archive", {"archive": corrupted},
     ["corrupted.pt2", "model/data/weights/", "checksum is wrong", "copy or save the file again"]),
    ("an empty archive", {"archive": lambda workspace: workspace.write("empty.pt2", b"")},
     ["empty.pt2", "the file is too short", "copy or save the file again"]),
    ("another schema version",
     {"archive": lambda workspace: edited_archive(workspace, "new.pt2", with_schema_99)},
     ["new.pt2", "99.0", "only 8.x", "export again with torch"]),
    ("an unknown op",
     {"archive": lambda workspace: edited_archive(workspace, "op.pt2", with_unknown_op)},
     ["model.layers.0.mlp.act_fn", "aten.frobnicate.default", "activations.py",
      "not in the op table", "write it with other ops"]),
    ("weights of another shape",
     {"archive": GPT2, "model": {"weights": lambda w: gpt2_weights(w, transpose_one)}},
     ["weights.safetensors", "transformer.h.0.mlp.c_fc.weight is F32[128, 64]", "f32[64, 128]",
      "give the weights of the model that was exported"]),
    ("weights of another type",
     {"archive": GPT2, "model": {"weights": lambda w: gpt2_weights(w, retype_one)}},
     ["weights.safetensors", "transformer.h.0.mlp.c_fc.weight is I64[64, 128]",
      "save the tensor as F32"]),
    ("a weight that is missing",
     {"archive": GPT2, "model": {"weights": lambda w: gpt2_weights(w, lose_one)}},
     ["weights.safetensors", "has no tensor transformer.h.0.mlp.c_fc.weight",
      "save the model's whole state_dict"]),
    ("truncated weights",
     {"archive": GPT2, "model": {"weights": truncated_weights}},
     ["model.weights", "weights.safetensors", "the file is truncated"]),
    ("an input that the data does not feed",
     {"archive": cluster.ZOO / "llama_mask" / "model.pt2"},
     ["shift_labels", "data.inputs.shift_labels: {from: tokens}"]),
    ("a feed of no input",
     {"data": {"inputs": {"lables": {"from": "next_tokens"}}}},
     ["refused.yaml:", "data.inputs.lables: the model has no input lables",
      "did you mean \"labels\"?"]),
    ("a pattern that freezes nothing",
     {"model": {"frozen": ["model.embed_token.weight"], "no_decay": ["*.biases"]}},
     ["refused.yaml:", "model.frozen[0]: \"model.embed_token.weight\" matches no parameter",
      "did you mean \"model.embed_tokens.weight\"?", "model.no_decay[0]: \"*.biases\""]),
    ("a loss that is no output",
     {"model": {"loss_output": "los"}},
     ["refused.yaml:", "model.loss_output: the model has no output los"]),
    ("a length beyond what the model was exported for",
     {"archive": GPT2, "training": {"seq_len": 1024}},
     ["refused.yaml:", "training.seq_len: input input_ids has 1024 in dimension 1",
      "above 512, the greatest it was exported for", "set training.seq_len to 2 to 512"]),
    ("more ranks than devices", {"parallelism": {"ranks": 64}},
     ["parallelism.ranks", "64", "ask for at most 2"]),
    ("a ring that ranks do not make", {"parallelism": {"ranks": 2, "ring": 3}},
     ["parallelism.ranks", "2 is not a multiple of ring (3)", "set it to one"]),
    ("too little memory", {"memory": {"device_budget": "1MiB"}},
     ["the smallest plan needs", "1.00 MiB of a device", "its peak is in ",
      "shorten training.seq_len (64)", "more ranks in parallelism (2)"]),
    ("an unknown key", {"training": {"step": 3}},
     ["refused.yaml:", "training.step: unknown key", "did you mean training.steps?"]),
    ("a missing archive", {"archive": "missing.pt2"}, ["model.archive", "missing.pt2"]),
    ("a missing data file", {"data": {"files": ["nothing.txt"]}},
     ["data.files", "nothing.txt", "relative paths count from"]),
    ("too little data",
     {"data": {"files": lambda workspace: [str(workspace.write("two.txt", b"ab"))]}},
     ["data.files", "2 tokens", "training.seq_len 64", "give more data or a smaller seq_len"]),
)


# Like REFUSED; these the job finds out.
FAILING = (
    ("an output folder below a file", {"output": {"dir": "text.txt/out"}},
     ["output folder", "text.txt/out", "Not a directory"]),
    ("a loss that is no number",
     {"training": {"optimizer": {"name": "sgd", "lr": 1e30}}},
     ["step 2", "the loss is nan", "lower training.optimizer.lr"]),
)


class BadInputTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.workspace = cluster.Workspace()
        cls.addClassCleanup(cls.workspace.close)
        cls.cluster = cluster.Cluster(cls.workspace)
        cls.cluster.start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.workspace.expect_nothing_left()

    def make_job(self, name, sections):
        def made(value):
            if isinstance(value, dict):
                return {key: made(item) for key, item in value.items()}
            return value(self.workspace) if callable(value) else value
        sections = made(sections)
        if "archive" in sections and "model" in sections:
            sections["model"]["archive"] = str(sections["archive"])
        return self.workspace.job(name, **sections)

    def num_jobs(self):
        return len(self.cluster.query("list")["jobs"])

    def expect_words(self, text, words):
        for word in words:
            self.assertIn(word, text)

    def test_what_can_be_known_is_refused_before_there_is_a_job(self):
        before = self.num_jobs()
        two_devices = self.workspace.write("cluster.yaml", json.dumps({
            "version": 1, "kind": "Cluster",
            "nodes": [{"name": "node-a", "devices": 2, "device_memory": "1GiB"}]}).encode())
        for what, sections, words in REFUSED:
            with self.subTest(what):
                job = self.make_job("refused", sections)
                planned = self.workspace.cli("plan", job, "--cluster", two_devices)
                submitted = self.cluster.cli("submit", job)
                for result in (planned, submitted):
                    self.assertEqual(result.returncode, EXIT_BAD_INPUT, result.stderr)
                    self.expect_words(result.stderr, words)
                    self.assertEqual(result.stdout, "")
        self.assertEqual(self.num_jobs(), before)
        self.assertFalse((self.workspace.folder / "out-refused").exists())

    def test_weights_may_come_after_the_plan(self):
        before = self.num_jobs()
        job = self.make_job("bare", {"archive": cluster.ZOO / "gpt2_long" / "model.pt2"})
        words = ["others have no bytes in the archive", "name a safetensors file as model.weights"]
        planned = self.workspace.cli("plan", job, "--output", "json")
        self.assertEqual(planned.returncode, 0, planned.stderr)
        (warning,) = json.loads(planned.stdout)["plan"]["warnings"]
        self.expect_words(warning, words)
        submitted = self.cluster.cli("submit", job)
        self.assertEqual(submitted.returncode, EXIT_BAD_INPUT, submitted.stderr)
        self.expect_words(submitted.stderr, words)
        self.assertEqual(self.num_jobs(), before)

    def test_strict_refuses_with_every_warning(self):
        before = self.num_jobs()
        sections = {"archive": cluster.ZOO / "cases" / "ops_without_rules" / "model.pt2",
                    "data": {"inputs": {"ids": {"from": "tokens"}}},
                    "training": {"seq_len": 16}}
        lenient = self.make_job("lenient", sections)
        planned = self.workspace.cli("plan", lenient, "--output", "json")
        self.assertEqual(planned.returncode, 0, planned.stderr)
        warnings = json.loads(planned.stdout)["plan"]["warnings"]
        self.assertEqual(len(warnings), 2, warnings)
        job = json.loads(lenient.read_text())
        strict = self.workspace.write("strict.yaml", json.dumps(
            {**job, "strict": True, "output": {"dir": "out-strict"}}).encode())
        for result in (self.workspace.cli("plan", strict), self.cluster.cli("submit", strict),
                       self.workspace.cli("run", strict, "--devices", "2")):
            self.assertEqual(result.returncode, EXIT_BAD_INPUT, result.stderr)
            self.assertEqual(result.stdout, "")
            self.expect_words(result.stderr, [
                "strict: true allows no warning, and planning has 2", "set strict to false",
                "token_cases.py:228", "token_cases.py:229", *warnings])
        self.assertEqual(self.num_jobs(), before, "nothing is queued")
        self.assertFalse((self.workspace.folder / "out-strict").exists())
        # The same job is taken where warnings are allowed. (Its table is too small for text.)
        self.cluster.await_end(self.cluster.submit(lenient), 60)

    def test_the_rest_fails_with_the_job(self):
        for what, sections, words in FAILING:
            with self.subTest(what):
                job_id = self.cluster.submit(self.make_job("failing", sections))
                job = self.cluster.await_end(job_id, 30)
                self.assertEqual(job["state"], "failed")
                self.expect_words(job["cause"]["message"], words)
                watched = self.cluster.cli("watch", job_id)
                self.assertEqual(watched.returncode, EXIT_FAILED)
                self.expect_words(watched.stdout, words)
                self.assertEqual(cluster.segments_of([job_id]), [])
        cluster.wait_until(lambda: not self.workspace.ranks(), 10, "no rank is left")


class FullDiskTest(unittest.TestCase):
    """An agent whose output folder is a disk of its own, too small for the weights."""

    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.disk = self.workspace.folder / "out-job"
        self.disk.mkdir()
        self.cluster = cluster.Cluster(self.workspace)
        self.cluster.start_coordinator()

    def run_job(self, wrapper):
        self.cluster.start_agent(wrapper=wrapper)
        cluster.wait_until(self.cluster.ready_nodes, 30, "a node is ready")
        job_id = self.cluster.submit(self.workspace.job(parallelism={"ranks": 1}))
        job = self.cluster.await_end(job_id, 30)
        self.cluster.stop()
        self.workspace.expect_nothing_left([job_id])
        self.assertEqual(job["state"], "failed", job)
        return job

    def test_a_disk_that_is_too_small_is_seen_before_any_rank_starts(self):
        mount = f"mount -t tmpfs -o size={SMALL_DISK_KIB}k tmpfs {self.disk} && exec \"$0\" \"$@\""
        wrapper = ["unshare", "-rm", "sh", "-c", mount]
        if shutil.which("unshare") is None or subprocess.run(
                [*wrapper, "true"], check=False, capture_output=True).returncode != 0:
            self.cluster.stop()
            self.skipTest("this user may not mount a small disk in a namespace of its own")
        cause = self.run_job(wrapper)["cause"]
        self.assertEqual(cause["kind"], "start_failed", cause)
        for word in (str(self.disk), "free; the weights need", "choose another folder"):
            self.assertIn(word, cause["message"])

    def test_a_write_that_fails_leaves_no_half_file(self):
        # Room for the programs and logs, none for the weights, and free space says nothing of it.
        limit = ["sh", "-c", "ulimit -f 400 && exec \"$0\" \"$@\""]
        cause = self.run_job(limit)["cause"]
        self.assertEqual(cause["last_step"], 5, cause)  # It was the writing that failed.
        for word in ("rank 0", "model.safetensors", "File too large"):
            self.assertIn(word, cause["message"])
        # The numbers of every step are there; of the weights nothing is.
        self.assertEqual([path.name for path in self.disk.iterdir()], ["metrics.jsonl"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
