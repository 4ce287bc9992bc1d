"""Measures training steps and collectives against the PyTorch peers, in pairs, in one run.

Machines drift, so each of our runs has a peer's run beside it, in turns, and the ratio is taken
pair by pair; the median over the rounds counts. Prints a table, writes JSON.

    ./run bench                       # everything, some ten minutes on two quiet cores
    ./run bench --rounds=1 --only=eager
"""

import argparse
import array
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
SEQ_LEN = 4096
VOCAB = 8192

JOB = """version: 1
kind: Job
name: llama-bench
model: {{archive: {archive}}}
data: {{format: tokens, dtype: uint16, files: [{tokens}]}}
training:
  seq_len: {seq_len}
  global_batch_size: 1
  steps: {steps}
  clip_grad_norm: 1.0
  optimizer: {{name: adamw, lr: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0.1}}
parallelism: {{ranks: 2, dp: 1, ulysses: 2, ring: 1}}
output: {{dir: {output}, weights: false}}
"""


def run(command):
    """Runs a command; returns its standard output. Its errors pass through."""
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    command = [str(part) for part in command]
    result = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    if result.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} ended with {result.returncode}")
    return result.stdout.decode()


def last_json(text):
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


class Bench:
    def __init__(self, options):
        self.options = options
        self.binaries = pathlib.Path(options.binaries)
        self.work = pathlib.Path(options.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows = []

    def prepare(self):
        archive = self.work / "llama_bench" / "model.pt2"
        if not archive.exists():
            run([sys.executable, ROOT / "tests/zoo/export_models.py", f"--output-dir={self.work}",
                 "llama_bench"])
        tokens = self.work / "tokens.u16"
        generator = random.Random(1)
        numbers = array.array("H", (generator.randrange(VOCAB) for _ in range(64 * SEQ_LEN)))
        tokens.write_bytes(numbers.tobytes())
        self.job = self.work / "job.yaml"
        self.job.write_text(JOB.format(archive=archive, tokens=tokens, seq_len=SEQ_LEN,
                                       steps=2 + self.options.steps, output=self.work / "output"))
        self.archive = archive

    def ours_one_rank(self):
        return last_json(run([self.binaries / "step_bench", "--archive", self.archive, "--seq-len",
                              SEQ_LEN, "--steps", self.options.steps, "--threads", 2]))

    def ours_two_ranks(self):
        text = run([self.binaries / "autosp-cli", "--output", "json", "run", self.job])
        events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        seconds = [event["step_finished"]["report"]["step_seconds"] for event in events
                   if "step_finished" in event][2:]
        return {"tokens_per_second": SEQ_LEN / statistics.median(seconds)}

    def peer(self, script, *arguments):
        return last_json(run([sys.executable, PEERS / script, "--json", *arguments]))

    def add(self, name, unit, ours, theirs, ratio, goal, wants_more):
        ratio = statistics.median(ratio)
        passed = ratio >= goal if wants_more else ratio <= goal
        self.rows.append({"name": name, "unit": unit, "ours": statistics.median(ours),
                          "peer": statistics.median(theirs), "ratio": ratio, "goal": goal,
                          "wants": "at least" if wants_more else "at most", "met": passed})

    def eager(self):
        ours, theirs = [], []
        for _ in range(self.options.rounds):
            theirs.append(self.peer("eager_llama.py", "--threads=2", f"--seq-len={SEQ_LEN}",
                                    f"--steps={self.options.steps}"))
            ours.append(self.ours_one_rank())
        pairs = list(zip(ours, theirs))
        self.add("step time, 1 rank / PyTorch eager", "s",
                 [o["step_seconds_median"] for o in ours],
                 [t["step_seconds_median"] for t in theirs],
                 [o["step_seconds_median"] / t["step_seconds_median"]
                  for o, t in pairs], 1.05, False)
        self.add("peak bytes above states, 1 rank / PyTorch eager", "bytes",
                 [o["peak_bytes_above_states"] for o in ours],
                 [t["peak_bytes_above_persistent"] for t in theirs],
                 [o["peak_bytes_above_states"] / t["peak_bytes_above_persistent"]
                  for o, t in pairs], 0.8, False)

    def ulysses(self):
        ours, theirs = [], []
        for _ in range(self.options.rounds):
            theirs.append(self.peer("ulysses_llama.py", "--world-size=2", "--threads=1",
                                    f"--seq-len={SEQ_LEN}", f"--steps={self.options.steps}"))
            ours.append(self.ours_two_ranks())
        self.add("tokens/s, 2 ranks / PyTorch + gloo Ulysses", "tokens/s",
                 [o["tokens_per_second"] for o in ours],
                 [t["tokens_per_second"] for t in theirs],
                 [o["tokens_per_second"] / t["tokens_per_second"] for o, t in zip(ours, theirs)],
                 0.95, True)

    def collectives(self):
        ours, theirs = {}, {}
        for _ in range(self.options.rounds):
            for results, text in ((theirs, self.peer("all_to_all_gloo.py")),
                                  (ours, last_json(run([self.binaries / "collectives_bench",
                                                        "--json"])))):
                for row in text["sizes"]:
                    results.setdefault(row["size_bytes"], []).append(row["bytes_per_second"])
        for size in sorted(set(ours) & set(theirs)):
            self.add(f"all_to_all {size >> 10} KiB, shared memory / gloo", "bytes/s", ours[size],
                     theirs[size], [o / t for o, t in zip(ours[size], theirs[size])],
                     2.0 if size >= 1 << 20 else 0.0, True)

    def report(self):
        load = os.getloadavg()[0]
        print(f"{'measure':50} {'ours':>12} {'peer':>12} {'ratio':>7}  goal")
        for row in self.rows:
            goal = f"{row['wants']} {row['goal']}" if row["goal"] else "none"
            mark = "" if row["met"] else "  MISSED"
            print(f"{row['name']:50} {row['ours']:12.4g} {row['peer']:12.4g} {row['ratio']:7.3f}"
                  f"  {goal}{mark}")
        if load > 3:
            print(f"the machine had other work (load {load:.1f}): these numbers mean little")
        path = self.work / "bench.json"
        path.write_text(json.dumps({"rows": self.rows, "load_average": load}, indent=2) + "\n")
        print(f"written to {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of a run, after 2")
    parser.add_argument("--only", choices=["eager", "ulysses", "collectives"])
    parser.add_argument("--binaries", default=ROOT / "build" / "dev" / "bin")
    parser.add_argument("--work", default=ROOT / "build" / "bench")
    bench = Bench(parser.parse_args())
    bench.prepare()
    for name in ("eager", "ulysses", "collectives"):
        if bench.options.only in (None, name):
            getattr(bench, name)()
    bench.report()
    sys.exit(0 if all(row["met"] for row in bench.rows) else 1)


if __name__ == "__main__":
    main()
