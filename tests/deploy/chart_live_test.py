"""The pods of the chart as processes: a coordinator and three nodes, as Helm renders them.

Each container's command and arguments run as they are rendered, with folders of this machine where
volumes would be mounted and an address of the loopback network for each pod. Probes are answered
by the programs, and the pod of `helm test` succeeds.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import unittest

import yaml

from lab import CHART, SOURCE, need

sys.path.insert(0, str(SOURCE / "tests" / "process"))

from certificates import Authority, has_openssl  # noqa: E402
from cluster import BIN, Workspace, free_port, wait_until  # noqa: E402

HELM, = need("helm")
POD_IPS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
COORDINATOR_IP = "127.0.0.9"


def render(**values):
    """{(kind, name): manifest} of the chart as release train in namespace ml."""
    sets = [f"--set={path}={value}" for path, value in values.items()]
    rendered = subprocess.run([HELM, "template", "train", CHART, "--namespace", "ml", *sets],
                              capture_output=True, text=True, check=True)
    documents = filter(None, yaml.safe_load_all(rendered.stdout))
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in documents}


class Pod:
    """One container of a manifest, as a process of this machine."""

    def __init__(self, workspace, name, spec, replaced, node=None):
        self.workspace, self.name = workspace, name
        self.container = spec["containers"][0]
        self.replaced = dict(replaced)
        self.fields = node or {}
        self.process = None
        for mount in self.container["volumeMounts"]:
            if mount["mountPath"] != "/dev/shm":
                folder = workspace.folder / f"{name}{mount['mountPath'].replace('/', '-')}"
                folder.mkdir(exist_ok=True)
                self.replaced[mount["mountPath"]] = str(folder)

    def folder(self, mount_path):
        return pathlib.Path(self.replaced[mount_path])

    def environment(self):
        env = {}
        for item in self.container.get("env", []):
            env[item["name"]] = (item["value"] if "value" in item
                                 else self.fields[item["valueFrom"]["fieldRef"]["fieldPath"]])
        return {name: self.substitute(value) for name, value in env.items()}

    def substitute(self, text):
        # Mounted folders are whole components of a path, other texts stand anywhere.
        for old, new in self.replaced.items():
            text = re.sub(rf"{re.escape(old)}(?![\w-])", new, text)
        return text

    def command(self, program):
        env = self.environment()
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], argument)
                     for argument in self.container.get("args", [])]
        return [program, *(self.substitute(argument) for argument in arguments)]

    def start(self, program):
        with open(self.workspace.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(BIN / program), env={**self.workspace.env, **self.environment()},
                cwd=self.workspace.folder, stdout=log, stderr=log)

    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)


def is_open(address, port):
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


class ChartLiveTest(unittest.TestCase):
    def setUp(self):
        self.workspace = Workspace()
        self.addCleanup(self.workspace.close)
        self.tls_options = []
        self.install()

    def install(self, **values):
        ports = [free_port() for _ in range(4)]
        self.manifests = render(**{
            "coordinator.port": ports[0], "coordinator.metricsPort": ports[1],
            "agent.port": ports[2], "agent.metricsPort": ports[3],
            "test.ranks": 2,
            **{f"coordinator.cluster.nodes[{i}].{key}": value for i in range(3)
               for key, value in (("name", f"gpu{i}"), ("devices", 2),
                                  ("device_memory", "1GiB"))},
            **values})
        # What the cluster's name service would do.
        self.replaced = {"train-autosp-coordinator.ml.svc": COORDINATOR_IP,
                         "0.0.0.0": COORDINATOR_IP}

    def pod_spec(self, kind, name):
        return self.manifests[kind, name]["spec"]["template"]["spec"]

    def install_with_tls(self):
        """The secret of the guide, whose certificate has the agents' name but none of their
        addresses; that of the service is the address which stands for its name here."""
        self.install(**{"tls.secret": "autosp-tls"})
        authority = Authority(self.workspace.folder / "authority")
        pair = authority.issue("pods", f"DNS:train-autosp-agent,IP:{COORDINATOR_IP}")
        self.secret = {"tls.crt": pair[0], "tls.key": pair[1], "ca.crt": authority.certificate}
        self.tls_options = authority.options(*pair)

    def mount_secret(self, pod):
        for name, path in self.secret.items():
            shutil.copy(path, pod.folder("/etc/autosp-tls") / name)

    def start_coordinator(self):
        pod = Pod(self.workspace, "coordinator",
                  self.pod_spec("StatefulSet", "train-autosp-coordinator"), self.replaced)
        config = self.manifests["ConfigMap", "train-autosp-cluster"]["data"]
        for name, text in config.items():
            (pod.folder("/etc/autosp") / name).write_text(text)
        if self.tls_options:
            self.mount_secret(pod)
        pod.start("autosp-coordinator")
        self.addCleanup(pod.stop)
        return pod

    def start_agents(self):
        pods = []
        for number, address in enumerate(POD_IPS):
            node = {"spec.nodeName": f"gpu{number}", "status.podIP": address}
            pods.append(Pod(self.workspace, node["spec.nodeName"],
                            self.pod_spec("DaemonSet", "train-autosp-agent"), self.replaced, node))
            if self.tls_options:
                self.mount_secret(pods[-1])
            pods[-1].start("autosp-agent")
            self.addCleanup(pods[-1].stop)
        return pods

    def cli(self, *arguments):
        port = self.manifests["Service", "train-autosp-coordinator"]["spec"]["ports"][0]["port"]
        return self.workspace.cli(
            "--server", f"{COORDINATOR_IP}:{port}", *self.tls_options, *arguments)

    def states(self):
        answer = self.cli("nodes", "--output", "json")
        if answer.returncode != 0:
            return {}
        return {node["node_id"]: (node["state"], node["agent_address"])
                for node in yaml.safe_load(answer.stdout)["nodes"]}

    def run_helm_test(self):
        """The test pod's command, with the files of the images in a folder of their own."""
        share = self.workspace.folder / "smoke"
        share.mkdir()
        shutil.copy(SOURCE / "tests/zoo/llama/model.pt2", share)
        shutil.copy(SOURCE / "LICENSE", share / "text.txt")
        job = (SOURCE / "deploy/smoke/job.yaml").read_text()
        (share / "job.yaml").write_text(
            job.replace("/tmp/autosp-smoke", str(self.workspace.folder / "out")))
        pod = Pod(self.workspace, "test", self.manifests["Pod", "train-autosp-test"]["spec"],
                  self.replaced)
        if self.tls_options:
            self.mount_secret(pod)
        env = {**self.workspace.env, **pod.environment(),
               "AUTOSP_SMOKE_JOB": str(share / "job.yaml"),
               "PATH": f"{SOURCE / 'deploy/smoke'}:{BIN}:{os.environ['PATH']}"}
        return subprocess.run(pod.container["command"], env=env, capture_output=True, text=True,
                              timeout=200, check=False)

    def test_three_nodes_train(self):
        coordinator = self.start_coordinator()
        port = coordinator.ports()["grpc"]
        wait_until(lambda: is_open(COORDINATOR_IP, port), 30, "the coordinator listens")
        # Nodes of the cluster file are expected before they come.
        expected = wait_until(self.states, 30, "the coordinator answers")
        self.assertEqual({"gpu0", "gpu1", "gpu2"}, expected.keys())
        agents = self.start_agents()
        grpc = agents[0].ports()["grpc"]
        ready = {f"gpu{i}": ("ready", f"{address}:{grpc}") for i, address in enumerate(POD_IPS)}
        wait_until(lambda: self.states() == ready, 30, "three nodes are ready")
        for pod, address in ((coordinator, COORDINATOR_IP), *zip(agents, POD_IPS)):
            self.assertTrue(is_open(address, pod.ports()["metrics"]), pod.name)
        result = self.run_helm_test()
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        self.assertIn("succeeded", result.stdout)

    def test_jobs_outlive_the_coordinator_s_pod(self):
        coordinator = self.start_coordinator()
        self.start_agents()
        wait_until(lambda: [state for state, _ in self.states().values()].count("ready") == 3, 30,
                   "three nodes are ready")
        self.assertEqual(0, self.run_helm_test().returncode)
        coordinator.stop()
        self.assertEqual({}, self.states())
        # The stateful set makes the same pod again, with the same volume.
        self.start_coordinator()
        wait_until(self.states, 30, "the coordinator answers")
        jobs = yaml.safe_load(self.cli("list", "--output", "json").stdout)["jobs"]
        self.assertEqual([("smoke", "succeeded")], [(job["name"], job["state"]) for job in jobs])

    def test_pods_with_the_secret_speak_tls(self):
        if not has_openssl():
            self.skipTest("there is no openssl")
        self.install_with_tls()
        coordinator = self.start_coordinator()
        self.start_agents()
        wait_until(lambda: [state for state, _ in self.states().values()].count("ready") == 3, 30,
                   "three nodes are ready")
        result = self.run_helm_test()
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        self.tls_options = []
        answer = self.cli("nodes")
        self.assertIn("it speaks TLS", answer.stderr)
        self.assertIsNone(coordinator.process.poll())

    def test_without_the_coordinator_helm_test_fails(self):
        self.assertNotEqual(0, self.run_helm_test().returncode)


if __name__ == "__main__":
    unittest.main()
