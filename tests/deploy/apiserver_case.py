"""A namespace for each test of the chart in an API server, and questions about what is in it."""

import itertools
import unittest

from chart_values import set_all
from control_plane import OPERATOR_RESOURCES, ControlPlane, node, volume_for, wait_until
from lab import CHART

GPU_NODES = ("gpu0", "gpu1", "gpu2")
GPUS = ("agent.mode=gpu", "agent.devices=8")
ON_GPU_NODES = (*GPUS, "agent.nodeSelector.pool=training")
COORDINATOR, AGENT = (f"app.kubernetes.io/component={part}" for part in ("coordinator", "agent"))
STORE = "state-autosp-coordinator-0"  # The claim that the stateful set makes.
PATIENCE_S = 60

cluster = ControlPlane()


def start_cluster():
    """For the whole of a test program: the start takes longer than most tests."""
    unittest.addModuleCleanup(cluster.stop)
    cluster.start()
    cluster.create(*(node(name, gpus=8, pool="training") for name in GPU_NODES), node("plain"))
    cluster.kubectl("create", "-f", OPERATOR_RESOURCES)


class ApiServerTest(unittest.TestCase):
    """Each test has a namespace of its own."""

    namespaces = map("training-{}".format, itertools.count())

    def setUp(self):
        self.namespace = self.make_namespace("restricted")

    def make_namespace(self, pod_security):
        """With a volume for the coordinator, and what controllers make in every namespace."""
        name = next(self.namespaces)
        cluster.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "labels": {"pod-security.kubernetes.io/enforce": pod_security}}},
            volume_for(name, STORE))
        self.addCleanup(cluster.kubectl, "delete", "namespace", name, "--wait=false")
        self.eventually(lambda: {"serviceaccount/default", "configmap/kube-root-ca.crt"}
                        <= self.inventory(name), "the namespace is ready")
        return name

    def eventually(self, is_true, what):
        return wait_until(is_true, PATIENCE_S, what)

    def inventory(self, namespace=None):
        """The names of all that is in the namespace, but for events."""
        kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name")
        wanted = ",".join(kind for kind in kinds.split() if not kind.startswith("events"))
        return set(cluster.kubectl("-n", namespace or self.namespace, "get", wanted, "-o", "name",
                                   "--ignore-not-found").split())

    def get(self, *arguments):
        return cluster.get(self.namespace, *arguments)

    def try_helm(self, verb, *settings):
        return cluster.try_helm("-n", self.namespace, verb, "autosp", CHART, "--wait",
                                f"--timeout={PATIENCE_S}s", *set_all(settings))

    def deploy(self, verb, *settings):
        result = self.try_helm(verb, *settings)
        if result.returncode != 0:
            self.fail(result.stderr + cluster.kubectl("-n", self.namespace, "get",
                                                      "pods,pvc,events", "-o", "wide"))

    def pods(self, label):
        return self.get("pods", "-l", label)

    def agent_by_node(self):
        return {pod["spec"].get("nodeName"): pod for pod in self.pods(AGENT)}

    def agent_uids(self):
        return {name: uid(pod) for name, pod in self.agent_by_node().items()}

    def await_agents(self, *nodes):
        def is_there():
            pods = self.pods(AGENT)
            return (sorted(pod["spec"].get("nodeName", "") for pod in pods) == sorted(nodes)
                    and all(is_ready(pod) for pod in pods))
        self.eventually(is_there, f"one agent is ready on each of {nodes}")

    def coordinator(self):
        pod, = self.pods(COORDINATOR)
        return pod

    def await_another_coordinator(self, than):
        def is_there():
            return [pod for pod in self.pods(COORDINATOR)
                    if uid(pod) != uid(than) and is_ready(pod)]
        return self.eventually(is_there, "another pod of the coordinator is ready")[0]


def is_ready(pod):
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def uid(thing):
    return thing["metadata"]["uid"]


def arguments(pod):
    return pod["spec"]["containers"][0]["args"]


def image(pod):
    return pod["spec"]["containers"][0]["image"]
