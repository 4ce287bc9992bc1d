"""The real binaries on this machine, for the tests beside this file.

Everything that a test starts inherits a mark in its environment and a temporary folder, so that
what is left behind can be told from the work of others: by the mark in /proc, by the folder, and
in /dev/shm by the ids of the jobs.
"""

import concurrent.futures
import io
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
ZOO = SOURCE / "tests" / "zoo"
BIN = pathlib.Path(os.environ.get("AUTOSP_BIN", SOURCE / "build" / "dev" / "bin"))
# How many times longer than on an idle machine things may take: for sanitizers, and where others
# use the cores as well.
PATIENCE = float(os.environ.get("AUTOSP_PATIENCE", "1"))
COMMAND_TIMEOUT_S = 100 * PATIENCE
POLL_S = 0.02


def wait_until(is_true, timeout_s, what):
    """Returns what is_true() returned, once that is true."""
    give_up = time.monotonic() + timeout_s * PATIENCE
    while time.monotonic() < give_up:
        result = is_true()
        if result:
            return result
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not within {timeout_s * PATIENCE:g} s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Workspace:
    """A temporary folder, and commands that run in it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="autosp-process-test-"))
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        self.mark = "AUTOSP_TEST_MARK_" + secrets.token_hex(8)
        self.env = {**os.environ, self.mark: "1", "TMPDIR": str(self.tmp)}
        self.env.pop("AUTOSP_SERVER", None)
        text = "".join(f"def f{i}(x):\n  return x + {i}\n" for i in range(400))
        self.write("text.txt", text.encode())

    def write(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path

    def job(self, name="job", archive=ZOO / "llama" / "model.pt2", **sections):
        """Writes a small job; `sections` are merged into it, other values set. JSON is YAML."""
        job = {
            "version": 1,
            "kind": "Job",
            "model": {"archive": str(archive)},
            "data": {"format": "text", "files": ["text.txt"]},
            "training": {
                "seq_len": 64,
                "global_batch_size": 2,
                "steps": 5,
                "clip_grad_norm": 1.0,
                "optimizer": {"name": "adamw", "lr": 1.0e-3, "weight_decay": 0.1},
            },
            "parallelism": {"ranks": 2},
            "output": {"dir": f"out-{name}"},
        }
        for section, values in sections.items():
            is_section = isinstance(values, dict)
            job[section] = {**job.get(section, {}), **values} if is_section else values
        return self.write(f"{name}.yaml", json.dumps(job, indent=1).encode())

    def cli(self, *arguments, **options):
        """Runs autosp-cli to its end."""
        return subprocess.run(
            [BIN / "autosp-cli", *map(str, arguments)], env=self.env, cwd=self.folder,
            capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, **options)

    def run_job(self, job, *arguments):
        """`autosp-cli run`; returns its events and the job at its end."""
        result = self.cli("run", job, "--output", "json", "--devices", "4", *arguments)
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert lines and "job" in lines[-1], f"exit {result.returncode}: {result.stderr}"
        return lines[:-1], lines[-1]["job"]

    def processes(self):
        """{pid: program} of all processes that came from this workspace."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if self.mark.encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "exe").readlink().name
            except OSError:
                continue  # It has ended, or is not ours.
        return found

    def ranks(self):
        return [pid for pid, name in self.processes().items() if name == "autosp-rank"]

    def expect_nothing_left(self, job_ids=()):
        """No process, no shared memory, no temporary file; waits a little for the last to go."""
        wait_until(lambda: not self.processes(), 20, f"no process: {self.processes()}")
        wait_until(lambda: not segments_of(job_ids), 5, f"no segment: {segments_of(job_ids)}")
        left = sorted(path.name for path in self.tmp.iterdir())
        assert not left, f"temporary files are left: {left}"

    def close(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.folder, ignore_errors=True)


def segments_of(job_ids):
    return [name for name in os.listdir("/dev/shm") if any(job_id in name for job_id in job_ids)]


def losses_of(events):
    """Step -> loss, as rank 0 reported them."""
    steps = [event["step_finished"]["report"] for event in events if "step_finished" in event]
    return {report["step"]: report["loss"] for report in steps}


class Cluster:
    """A coordinator and agents that stay up over several commands, and can be killed."""

    def __init__(self, workspace, lease_s=15, options=()):
        """`options` are for all programs, autosp-cli too."""
        self.workspace = workspace
        self.options = options
        self.port = free_port()
        self.lease_s = lease_s
        self.agents = {}
        self.coordinator = None

    def _start(self, program, log, *arguments, wrapper=()):
        with open(self.workspace.folder / log, "ab") as output:
            return subprocess.Popen(
                [*wrapper, BIN / program, *map(str, arguments)], env=self.workspace.env,
                cwd=self.workspace.folder, stdout=output, stderr=output)

    def start_coordinator(self, arguments=()):
        """On the same port and the same state as before."""
        self.coordinator = self._start(
            "autosp-coordinator", "coordinator.log", "--listen", f"127.0.0.1:{self.port}",
            "--state-dir", "coordinator", "--lease-seconds", self.lease_s, *self.options,
            *arguments)

    def start_agent(self, name="node-a", devices=2, wrapper=(), arguments=()):
        """`wrapper` is a command that ends in an exec of its arguments."""
        self.agents[name] = self._start(
            "autosp-agent", f"{name}.log", "--coordinator", f"127.0.0.1:{self.port}",
            "--node-name", name, "--devices", devices, "--state-dir", name, *self.options,
            *arguments, wrapper=wrapper)

    def start(self, devices=2):
        self.start_coordinator()
        self.start_agent(devices=devices)
        wait_until(self.ready_nodes, 30, "a node is ready")

    def stop(self):
        for process in [*self.agents.values(), self.coordinator]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)

    def cli(self, *arguments):
        return self.workspace.cli(
            "--server", f"127.0.0.1:{self.port}", *self.options, *arguments)

    def query(self, *arguments):
        """The answer as JSON, or None while the coordinator does not answer."""
        result = self.cli(*arguments, "--output", "json")
        return json.loads(result.stdout) if result.returncode == 0 else None

    def ready_nodes(self):
        nodes = (self.query("nodes") or {}).get("nodes", [])
        return [node for node in nodes if node["state"] == "ready"]

    def submit(self, job):
        result = self.cli("submit", job, "--output", "json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["job"]["job_id"]

    def job(self, job_id):
        answer = self.query("status", job_id)
        return answer["job"] if answer else {}

    def events(self, job_id):
        """What `watch` shows until the job ends, without its last line, which is the job."""
        result = self.cli("watch", job_id, "--output", "json")
        return [json.loads(line) for line in result.stdout.splitlines()][:-1]

    def await_step(self, job_id, step=1):
        """Waits until the job has finished `step`; returns the job."""
        def has_step():
            job = self.job(job_id)
            assert job.get("state") not in ("failed", "cancelled"), job
            return job if job.get("progress", {}).get("last_step", 0) >= step else None
        return wait_until(has_step, 60, f"step {step}")

    def await_end(self, job_id, timeout_s):
        def has_ended():
            job = self.job(job_id)
            return job if job.get("state") in ("succeeded", "failed", "cancelled") else None
        return wait_until(has_ended, timeout_s, "the job has ended")


def tests_of(suite):
    for each in suite:
        yield from tests_of(each) if isinstance(each, unittest.TestSuite) else (each,)


def run_at_once(number):
    """unittest.main of tests that wait for most of their time, `number` at once. They share
    nothing, and have no setUpClass."""
    program = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    names = sys.argv[1:]
    suite = (loader.loadTestsFromNames(names, program) if names else
             loader.loadTestsFromModule(program))

    def run(test):
        output = io.StringIO()
        result = unittest.TextTestRunner(output, verbosity=2).run(test)
        print(output.getvalue(), file=sys.stderr)
        return result.wasSuccessful()

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        succeeded = list(pool.map(run, tests_of(suite)))
    sys.exit(0 if succeeded and all(succeeded) else 1)
