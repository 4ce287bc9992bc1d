"""`autosp-cli export` of checkpoints that ranks wrote, held against the checkpoints' own bytes.

The readers here share nothing with the program: manifest and safetensors are read with the standard
library alone. Whether transformers loads the result is for from_pretrained_test.py.
"""

import array
import hashlib
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

import cluster
import safetensors_file

STEPS = 4
ITEM_BYTES = {"f32": 4, "bf16": 2}
SAFETENSORS_TYPES = {"f32": "F32", "bf16": "BF16"}


def read_manifest(checkpoint):
    return json.loads((checkpoint / "manifest.json").read_text())["manifest"]


def write_manifest(checkpoint, manifest):
    """With the sum that is right for it, as somebody would who means harm."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    whole = {"manifest": manifest, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(whole))


def assemble(checkpoint):
    """{name: (dtype, shape, bytes)} of all tensors of a checkpoint, from the parts of its files."""
    manifest = read_manifest(checkpoint)
    files = [safetensors_file.load_bytes(checkpoint / file["name"])[1]
             for file in manifest["files"]]
    return {tensor["name"]: (tensor["dtype"], tensor["shape"], join(tensor, files))
            for tensor in manifest["tensors"]}


def join(tensor, files):
    item = ITEM_BYTES[tensor["dtype"]]
    shape = tensor["shape"]
    whole = bytearray(item * product(shape))
    for part in tensor["slices"]:
        data = files[part["file"]][tensor["name"]][2]
        run = item * (part["shape"][-1] if shape else 1)
        rows = itertools.product(*map(range, part["shape"][:-1]))
        for number, row in enumerate(rows):
            place = 0
            for size, offset, index in zip(shape, part["offset"], (*row, 0)):
                place = place * size + offset + index
            whole[place * item:place * item + run] = data[number * run:(number + 1) * run]
    return bytes(whole)


def product(sizes):
    total = 1
    for size in sizes:
        total *= size
    return total


def to_bf16(data):
    """Rounds float32 to nearest, ties to even."""
    numbers = array.array("I")
    numbers.frombytes(data)
    return array.array("H", [(n + 0x7FFF + (n >> 16 & 1)) >> 16 for n in numbers]).tobytes()


class ExportTest(unittest.TestCase):
    written = {}  # model: the output of a job, for all tests

    @classmethod
    def tearDownClass(cls):
        for folder in cls.written.values():
            shutil.rmtree(folder)

    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)

    def job_output(self, model="llama", **sections):
        """A copy of what a job on two ranks, with all of ZeRO, has left."""
        key = model + json.dumps(sections)
        if key not in self.written:
            job = self.workspace.job(
                "made", archive=cluster.ZOO / model / "model.pt2", training={"steps": STEPS},
                parallelism={"ranks": 2, "zero": 3}, checkpoint={"every_steps": 2}, **sections)
            _, job = self.workspace.run_job(job)
            self.assertEqual(job["state"], "succeeded", job)
            type(self).written[key] = pathlib.Path(tempfile.mkdtemp(prefix="autosp-process-test-"))
            shutil.copytree(self.workspace.folder / "out-made", self.written[key],
                            dirs_exist_ok=True)
        output = self.workspace.folder / f"out-{model}"
        shutil.copytree(self.written[key], output)
        return output

    def export(self, checkpoint, *arguments, name="hf", **options):
        result = self.workspace.cli("export", checkpoint, "--output-dir", name, *arguments,
                                    "--output", "json", **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["export"]

    def left_of(self, name="hf"):
        """What an export has left, hidden or not."""
        return sorted(path.name for path in self.workspace.folder.iterdir() if name in path.name)

    def expect_refusal(self, checkpoint, words, *arguments, code=1, **options):
        result = self.workspace.cli("export", checkpoint, "--output-dir", "hf", *arguments,
                                    **options)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertRegex(result.stderr, words)
        self.assertEqual(self.left_of(), [])

    # --- What is written ---

    def test_an_export_is_what_the_job_itself_writes(self):
        output = self.job_output()
        answer = self.export(output / "checkpoints")
        self.assertEqual(answer["step"], STEPS)
        self.assertEqual(answer["checkpoint"], str(output / "checkpoints/step-00000004"))
        self.assertIn("config.json", answer["notes"][0])
        exported = self.workspace.folder / "hf" / "model.safetensors"
        self.assertEqual(exported.read_bytes(), (output / "model.safetensors").read_bytes())
        self.assertEqual([path.name for path in exported.parent.iterdir()], [exported.name])
        (file,) = answer["files"]
        self.assertEqual(file["sha256"], hashlib.sha256(exported.read_bytes()).hexdigest())
        self.assertEqual(file["size_bytes"], exported.stat().st_size)
        self.export(output / "checkpoints" / "step-00000002", name="older")
        older = self.workspace.folder / "older" / "model.safetensors"
        self.assertNotEqual(exported.read_bytes(), older.read_bytes())

    def read_shards(self, folder, max_bytes):
        """The tensors of a model in several files, and what its index says of them."""
        text = (folder / "model.safetensors.index.json").read_text()
        index = json.loads(text)
        self.assertEqual(text, json.dumps(index, indent=2, sort_keys=True) + "\n")
        names = sorted(set(index["weight_map"].values()))
        self.assertGreater(len(names), 2)
        for number, name in enumerate(names, 1):
            self.assertEqual(name, f"model-{number:05}-of-{len(names):05}.safetensors")
        self.assertEqual(sorted(path.name for path in folder.glob("*.safetensors")), names)
        tensors = {}
        for name in names:
            metadata, shard = safetensors_file.load_bytes(folder / name)
            self.assertEqual(metadata, {"format": "pt"})
            size = sum(len(data) for _, _, data in shard.values())
            self.assertTrue(size <= max_bytes or len(shard) == 1, name)
            self.assertEqual({index["weight_map"][each] for each in shard}, {name})
            tensors.update(shard)
        self.assertEqual(set(tensors), set(index["weight_map"]))
        self.assertEqual(index["metadata"],
                         {"total_size": sum(len(data) for _, _, data in tensors.values())})
        return tensors

    def expect_checkpoint(self, tensors, checkpoint, convert=None, dtype=None):
        """Byte for byte, tensor by tensor, and nothing else."""
        parts = assemble(checkpoint)
        entries = read_manifest(checkpoint)["state_dict"]
        self.assertEqual(sorted(tensors), sorted(entry["name"] for entry in entries))
        for entry in entries:
            source_type, shape, data = parts[entry["parameter"]]
            expected = (dtype or SAFETENSORS_TYPES[source_type], shape,
                        convert(data) if convert else data)
            self.assertEqual(tensors[entry["name"]], expected, entry["name"])

    def test_shards_have_the_bytes_of_the_checkpoint(self):
        checkpoint = self.job_output() / "checkpoints" / "step-00000004"
        self.export(checkpoint, "--max-shard-size", "50kB")
        tensors = self.read_shards(self.workspace.folder / "hf", 50_000)
        self.expect_checkpoint(tensors, checkpoint)

    def test_half_precision_is_rounded_to_nearest(self):
        checkpoint = self.job_output() / "checkpoints" / "step-00000004"
        self.export(checkpoint, "--dtype", "bf16")
        _, tensors = safetensors_file.load_bytes(self.workspace.folder / "hf/model.safetensors")
        self.expect_checkpoint(tensors, checkpoint, to_bf16, "BF16")

    def test_masters_are_what_float32_is_made_of(self):
        output = self.job_output(precision={"params": "bf16"})
        checkpoint = output / "checkpoints" / "step-00000004"
        parts = assemble(checkpoint)
        self.export(checkpoint, "--dtype", "fp32")
        _, tensors = safetensors_file.load_bytes(self.workspace.folder / "hf/model.safetensors")
        for entry in read_manifest(checkpoint)["state_dict"]:
            self.assertEqual(tensors[entry["name"]][2], parts[entry["master"]][2], entry["name"])
        self.export(checkpoint, "--dtype", "bf16", name="half")
        _, tensors = safetensors_file.load_bytes(self.workspace.folder / "half/model.safetensors")
        self.expect_checkpoint(tensors, checkpoint)
        self.export(checkpoint, name="auto")
        self.assertEqual((self.workspace.folder / "auto/model.safetensors").read_bytes(),
                         (output / "model.safetensors").read_bytes())

    def test_tied_weights_have_all_their_names(self):
        output = self.job_output("gpt2")
        self.export(output / "checkpoints")
        _, tensors = safetensors_file.load_bytes(self.workspace.folder / "hf/model.safetensors")
        self.assertEqual(tensors["lm_head.weight"], tensors["transformer.wte.weight"])
        self.assertEqual((self.workspace.folder / "hf/model.safetensors").read_bytes(),
                         (output / "model.safetensors").read_bytes())

    def test_a_job_splits_what_it_writes_by_the_same_rule(self):
        output = self.job_output()
        single = safetensors_file.load_bytes(output / "model.safetensors")[1]
        job = self.workspace.job("llama", training={"steps": STEPS},
                                 parallelism={"ranks": 2, "zero": 3},
                                 checkpoint={"every_steps": 2},
                                 output={"max_shard_size": "50kB"})
        _, job = self.workspace.run_job(job)  # Nothing is left to be trained.
        kinds = [file["kind"] for file in job["outputs"] if file["kind"].startswith("weights")]
        self.assertEqual(kinds, ["weights"] * (len(kinds) - 1) + ["weights_index"])
        self.assertEqual(self.read_shards(output, 50_000), single)
        self.export(output / "checkpoints", "--max-shard-size", "50kB")
        for path in (self.workspace.folder / "hf").iterdir():
            self.assertEqual(path.read_bytes(), (output / path.name).read_bytes(), path.name)
        # One file again: those of before must not stay beside it.
        job = self.workspace.job("llama", training={"steps": STEPS},
                                 parallelism={"ranks": 2, "zero": 3},
                                 checkpoint={"every_steps": 2})
        self.workspace.run_job(job)
        self.assertEqual([path.name for path in output.glob("*model*")], ["model.safetensors"])

    def test_configuration_and_tokenizer_are_copied(self):
        checkpoint = self.job_output() / "checkpoints"
        model = self.workspace.folder / "original"
        model.mkdir()
        for name in ("config.json", "generation_config.json", "tokenizer.json", "merges.txt"):
            (model / name).write_text(json.dumps({"dtype": "bfloat16", "name": name}))
        (model / "model.safetensors").write_text("other weights")
        special = self.workspace.write("special_tokens_map.json", b"{}")
        answer = self.export(checkpoint, "--config", model, "--tokenizer", model,
                             "--tokenizer", special)
        exported = self.workspace.folder / "hf"
        self.assertEqual(sorted(path.name for path in exported.iterdir()), [
            "config.json", "generation_config.json", "merges.txt", "model.safetensors",
            "special_tokens_map.json", "tokenizer.json"])
        self.assertEqual((exported / "config.json").read_bytes(),
                         (model / "config.json").read_bytes())
        self.assertIn("config.json says dtype bfloat16, and the weights are float32",
                      answer["notes"][0])
        for arguments, words in ((("--config", special.parent / "text.txt"), "is no JSON table"),
                                 (("--config", "none"), "cannot open none"),
                                 (("--tokenizer", self.workspace.tmp), "has no tokenizer.json"),
                                 (("--tokenizer", special, "--tokenizer", special), "twice")):
            result = self.workspace.cli("export", checkpoint, "--output-dir", "other", *arguments)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(words, result.stderr)
            self.assertEqual(self.left_of("other"), [])

    # --- What is there already ---

    def test_a_directory_is_replaced_only_when_told(self):
        output = self.job_output()
        self.export(output / "checkpoints" / "step-00000002")
        model = self.workspace.folder / "hf" / "model.safetensors"
        older = model.read_bytes()
        result = self.workspace.cli("export", output / "checkpoints", "--output-dir", "hf")
        self.assertEqual(result.returncode, 2)
        self.assertIn("hf exists and is not empty", result.stderr)
        self.assertIn("--overwrite", result.stderr)
        self.assertEqual(model.read_bytes(), older)
        self.export(output / "checkpoints", "--overwrite", "--max-shard-size", "50kB")
        self.read_shards(self.workspace.folder / "hf", 50_000)
        self.assertEqual(self.left_of(), ["hf"])
        # Neither checkpoints nor a folder of something else are lost by a slip.
        for folder, words in ((output, "has the folder checkpoints"),
                              (self.workspace.folder / "hf2", "has no model.safetensors")):
            folder.mkdir(exist_ok=True)
            (folder / "precious").write_text("x")
            result = self.workspace.cli("export", output / "checkpoints", "--overwrite",
                                        "--output-dir", folder)
            self.assertEqual(result.returncode, 2)
            self.assertIn(words, result.stderr)
            self.assertTrue((folder / "precious").exists())

    def test_an_empty_directory_and_what_a_killed_export_left_are_used(self):
        checkpoint = self.job_output() / "checkpoints"
        (self.workspace.folder / "hf").mkdir()
        partial = self.workspace.folder / ".hf.partial"
        partial.mkdir()
        (partial / "model-00001-of-00009.safetensors").write_text("half")
        self.export(checkpoint)
        self.assertEqual(self.left_of(), ["hf"])
        self.assertEqual(len(list((self.workspace.folder / "hf").iterdir())), 1)

    # --- Damage and harm ---

    def test_damage_is_named_and_nothing_is_written(self):
        checkpoints = self.job_output() / "checkpoints"
        newest = checkpoints / "step-00000004"
        shard = newest / "rank-00001.safetensors"
        whole = shard.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 4
        for data, words in ((bytes(flipped), "rank-00001.safetensors is damaged: its sum"),
                            (whole[:-100], "rank-00001.safetensors has [0-9]+ of [0-9]+ bytes")):
            shard.write_bytes(data)
            self.expect_refusal(newest, words)
        # Of several, the next older one is used, and that is said.
        answer = self.export(checkpoints)
        self.assertEqual(answer["step"], 2)
        self.assertIn("step-00000004", answer["skipped"][0])
        shutil.rmtree(self.workspace.folder / "hf")
        shard.unlink()
        self.expect_refusal(newest, "cannot read the size of .*rank-00001.safetensors", code=2)
        (newest / "manifest.json").write_text('{"manifest": {')
        self.expect_refusal(newest, "the manifest is cut off")
        shutil.rmtree(checkpoints / "step-00000002")
        self.expect_refusal(checkpoints, "has no whole checkpoint")
        self.expect_refusal("nowhere", "nowhere has no checkpoint", code=2)

    def test_a_manifest_that_means_harm_is_refused(self):
        newest = self.job_output() / "checkpoints" / "step-00000004"
        good = json.dumps(read_manifest(newest))
        huge = [1 << 62, 1 << 62]

        def change(words, edit, code=2):
            manifest = json.loads(good)
            edit(manifest)
            write_manifest(newest, manifest)
            with self.subTest(words):
                self.expect_refusal(newest, words, code=code)

        write_manifest(newest, json.loads(good))
        self.export(newest)
        shutil.rmtree(self.workspace.folder / "hf")
        change("its size overflows", lambda m: m["tensors"][0].update(shape=huge))
        change("its size overflows", lambda m: m["state_dict"][0].update(shape=huge))
        change("a slice is not inside",
               lambda m: m["tensors"][0]["slices"][0].update(offset=[1 << 62] * len(
                   m["tensors"][0]["shape"])))
        change("not that of a file in the folder",
               lambda m: m["files"][0].update(name="../../other/rank-00000.safetensors"))
        change("no name of a weight", lambda m: m["state_dict"][0].update(name="__metadata__"))
        change("is no tensor of the checkpoint",
               lambda m: m["state_dict"][0].update(parameter="none"))
        change("has no slice of adamw.a", lambda m: m["tensors"][0].update(name="adamw.a"), code=1)

    def test_what_the_checkpoint_has_not_comes_from_other_weights(self):
        output = self.job_output()
        newest = output / "checkpoints" / "step-00000004"
        manifest = read_manifest(newest)
        manifest["state_dict"].append({"name": "lost.buffer", "dtype": "f32", "shape": [2],
                                       "parameter": "", "master": ""})
        write_manifest(newest, manifest)
        self.expect_refusal(newest, "has no value of 1 weight .*lost.buffer.*--weights", code=2)
        others = self.workspace.folder / "others.safetensors"
        safetensors_file.save(others, {"lost.buffer": ("F32", [2], [1.5, 2.5])})
        self.export(newest, "--weights", others)
        tensors = safetensors_file.load(self.workspace.folder / "hf/model.safetensors")
        self.assertEqual(list(tensors["lost.buffer"][1]), [1.5, 2.5])
        shutil.rmtree(self.workspace.folder / "hf")
        safetensors_file.save(others, {"lost.buffer": ("F32", [3], [1, 2, 3])})
        self.expect_refusal(newest, r"lost.buffer is F32 \[3\], the model's is F32 \[2\]",
                            "--weights", others, code=2)

    # --- Disks, and interruption ---

    def test_a_full_disk_leaves_nothing(self):
        checkpoint = self.job_output() / "checkpoints"
        disk = self.workspace.folder / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount: {mounted.stderr}")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        for size in ("5GB", "50kB"):
            result = self.workspace.cli("export", checkpoint, "--output-dir", disk / "hf",
                                        "--max-shard-size", size)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertRegex(result.stderr, "need .*are free; make room")
            self.assertEqual(list(disk.iterdir()), [])

    def test_a_file_that_may_not_grow_leaves_nothing(self):
        checkpoint = self.job_output() / "checkpoints"

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))
        self.expect_refusal(checkpoint, "File too large", preexec_fn=limit)
        # The limit is met by a later file than the first.
        self.expect_refusal(checkpoint, "File too large", "--max-shard-size", "110kB",
                            preexec_fn=limit)
        self.export(checkpoint, "--max-shard-size", "50kB", preexec_fn=limit)

    def test_ctrl_c_leaves_nothing(self):
        checkpoint = self.job_output() / "checkpoints"
        newest = checkpoint / "step-00000004"
        manifest = read_manifest(newest)
        # A file of holes, which takes a while to sum up.
        file = {"name": "holes", "size_bytes": 1 << 36, "sha256": "0" * 64}
        with open(newest / "holes", "wb") as holes:
            holes.truncate(file["size_bytes"])
        manifest["files"].append(file)
        write_manifest(newest, manifest)
        process = subprocess.Popen(
            [cluster.BIN / "autosp-cli", "export", newest, "--output-dir", "hf"],
            env=self.workspace.env, cwd=self.workspace.folder)
        self.addCleanup(process.kill)

        def is_reading():
            folder = pathlib.Path(f"/proc/{process.pid}/fd")
            return any(os.readlink(link).endswith("holes") for link in folder.iterdir()
                       if link.is_symlink())
        cluster.wait_until(is_reading, 20, "the file is read")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=cluster.COMMAND_TIMEOUT_S), 130)
        self.assertEqual(self.left_of(), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
