"""The chart in a real API server: what is admitted, what comes of it, and what stays behind.

A control plane of its own makes the pods on nodes that only pretend (see control_plane.py): three
with GPUs, as the guide has them, and one without.
"""

import json
import pathlib
import re
import tempfile
import unittest

import yaml

from apiserver_case import (
    AGENT, COORDINATOR, GPU_NODES, GPUS, ON_GPU_NODES, PATIENCE_S, STORE, ApiServerTest,
    arguments, cluster, image, is_ready, start_cluster, uid)
from chart_values import GUIDE, VARIANTS, guide_values, set_all
from control_plane import OPERATOR_RESOURCES, claim, node, volume_for
from lab import CHART

setUpModule = start_cluster


class ManifestsTest(ApiServerTest):
    def rendered(self, settings):
        return cluster.helm("template", "train", CHART, "--namespace", self.namespace,
                            *set_all(settings))

    def dry_run(self, text):
        return cluster.try_kubectl("-n", self.namespace, "apply", "--dry-run=server",
                                   "--validate=strict", "-f", "-", text=text)

    def test_every_variant_passes_strict_validation(self):
        # Elsewhere there are warnings about the variants that take something from the node.
        self.namespace = self.make_namespace("privileged")
        table = cluster.kubectl("api-resources", "--namespaced=false", "--no-headers")
        outside = {line.split()[-1] for line in table.splitlines()}
        for name, settings in VARIANTS.items():
            with self.subTest(name):
                text = self.rendered(settings)
                result = self.dry_run(text)
                self.assertEqual((0, ""), (result.returncode, result.stderr))
                kinds = [each["kind"] for each in filter(None, yaml.safe_load_all(text))]
                self.assertEqual(len(kinds), result.stdout.count("(server dry run)"))
                self.assertEqual(set(), outside.intersection(kinds))

    def test_an_unknown_field_is_found(self):
        for settings, known, unknown in (
                ((), "terminationGracePeriodSeconds", "terminationGraceSeconds"),
                (VARIANTS["everything"], "relabelings", "relabellings")):
            text = self.rendered(settings)
            self.assertIn(known, text)
            result = self.dry_run(text.replace(known, unknown))
            self.assertNotEqual(0, result.returncode)
            self.assertRegex(result.stderr, rf'unknown field "spec\..*{unknown}"')

    def pods_of(self, settings):
        """The pods that would come of these values, each named as its part."""
        pods = []
        # Without a claim, the stateful set would add the volume for the state to the pod.
        text = self.rendered([*settings, "coordinator.persistence.existingClaim=store"])
        for manifest in filter(None, yaml.safe_load_all(text)):
            if manifest["kind"] in ("StatefulSet", "DaemonSet", "Pod"):
                part = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
                spec = manifest["spec"].get("template", manifest)["spec"]
                pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part},
                             "spec": spec})
        self.assertEqual(3, len(pods))
        return pods

    def refused(self, pods):
        """The parts that the namespace does not take; it takes the others."""
        result = self.dry_run("\n---\n".join(map(json.dumps, pods)))
        refused = set(re.findall(r'pods "(\w+)" is forbidden: violates PodSecurity',
                                 result.stderr))
        self.assertEqual(len(pods), len(refused) + result.stdout.count("(server dry run)"),
                         result.stderr)
        return refused

    def test_levels_of_pod_security(self):
        """As the table of the guide has them."""
        levels = ("restricted", "baseline", "privileged")
        namespaces = {level: self.make_namespace(level) for level in levels}
        for namespace in namespaces.values():
            for part in ("coordinator", "agent"):
                cluster.kubectl("-n", namespace, "create", "serviceaccount", f"train-autosp-{part}")
        both, agent, none = {"coordinator", "agent"}, {"agent"}, set()
        volume = ["volumes[0].name=data", "volumes[0].mountPath=/data"]
        for settings, *refused in (
                ([], none, none, none),
                (GPUS, none, none, none),
                ([*volume, "volumes[0].claim=data"], none, none, none),
                ([*volume, "volumes[0].nfs.server=x", "volumes[0].nfs.path=/"], both, none, none),
                ([*volume, "volumes[0].hostPath=/data"], both, both, none),
                (["agent.state.hostPath=/data"], agent, agent, none),
                (["agent.hostNetwork=true"], agent, agent, none)):
            pods = self.pods_of(settings)
            for level, parts in zip(levels, refused):
                with self.subTest(level=level, settings=settings):
                    self.namespace = namespaces[level]
                    self.assertEqual(parts, self.refused(pods))


class InstallationTest(ApiServerTest):
    def guide_commands(self):
        """Those of the section that installs, but for the test, in which nothing would run."""
        section = re.search(r"^## Values\n(.*?)(?=^## )", GUIDE.read_text(), re.M | re.S)[1]
        lines = re.findall(r"^    ((?:helm|kubectl) .*)$", section, re.MULTILINE)
        return [line.split() for line in lines if not line.endswith("--logs")]

    def test_the_guide(self):
        self.namespace = "training"
        self.addCleanup(cluster.kubectl, "delete", "namespace", "training", "--wait=false")
        cluster.create(volume_for("training", STORE),
                       volume_for("training", "autosp-data", "ReadWriteMany"))
        run = {"helm": cluster.helm, "kubectl": cluster.kubectl}
        first, *others = self.guide_commands()
        self.assertEqual("kubectl create namespace training".split(), first)
        cluster.kubectl(*first[1:])
        cluster.create(claim("training", "autosp-data", "ReadWriteMany"))
        with tempfile.TemporaryDirectory() as folder:
            values = pathlib.Path(folder) / "values.yaml"
            values.write_text(guide_values())
            for program, *words in others:
                run[program](*(values if word == values.name else word for word in words))
        self.await_agents(*GPU_NODES)
        self.assertTrue(is_ready(self.coordinator()))
        for name in (STORE, "autosp-data"):
            self.assertEqual("Bound", self.get("pvc", name)["status"]["phase"])
        for kind, count in (("servicemonitors", 2), ("prometheusrules", 1), ("networkpolicies", 2),
                            ("poddisruptionbudgets", 1), ("serviceaccounts", 3)):
            self.assertEqual(count, len(self.get(kind)), kind)

    def test_an_agent_on_every_node_with_gpus(self):
        self.deploy("install", *ON_GPU_NODES)
        self.await_agents(*GPU_NODES)
        for pod in self.pods(AGENT):
            limits = pod["spec"]["containers"][0]["resources"]["limits"]
            self.assertEqual("8", limits["nvidia.com/gpu"])
        self.addCleanup(cluster.kubectl, "delete", "node", "gpu3")
        cluster.create(node("gpu3", gpus=8, pool="training"))
        self.await_agents(*GPU_NODES, "gpu3")
        cluster.kubectl("label", "node", "gpu3", "pool-")
        self.await_agents(*GPU_NODES)

    def test_without_a_selector_a_node_without_gpus_has_an_agent_that_waits(self):
        self.deploy("install", *GPUS)
        waiting = self.eventually(lambda: self.agent_by_node().get(None), "an agent waits")
        self.assertIn("Insufficient nvidia.com/gpu",
                      json.dumps(waiting["status"].get("conditions")))
        self.eventually(lambda: set(GPU_NODES) <= self.agent_by_node().keys(), "the others run")

    def test_services_and_policies_find_their_pods(self):
        self.deploy("install", *ON_GPU_NODES)
        self.await_agents(*GPU_NODES)
        for service, label, port in (
                ("autosp-coordinator", COORDINATOR, ("grpc", 7070)),
                ("autosp-coordinator-metrics", COORDINATOR, ("metrics", 9464)),
                ("autosp-agent", AGENT, ("metrics", 9465))):
            addresses = {pod["status"]["podIP"] for pod in self.pods(label)}
            self.eventually(lambda: self.endpoints(service) == (addresses, {port}), service)
        for part, label in (("coordinator", COORDINATOR), ("agent", AGENT)):
            selector = self.get("networkpolicy", f"autosp-{part}")["spec"]["podSelector"]
            labels = ",".join(f"{key}={value}" for key, value in selector["matchLabels"].items())
            self.assertEqual({uid(pod) for pod in self.pods(label)},
                             {uid(pod) for pod in self.pods(labels)})

    def endpoints(self, service):
        slices = self.get("endpointslices", "-l", f"kubernetes.io/service-name={service}")
        return ({address for each in slices for endpoint in each["endpoints"] or ()
                 for address in endpoint["addresses"]},
                {(port["name"], port["port"]) for each in slices for port in each["ports"] or ()})

    def test_monitors_select_one_port_of_each_part(self):
        self.deploy("install", "monitoring.serviceMonitor.enabled=true",
                    "networkPolicy.enabled=false")
        monitors = self.get("servicemonitors")
        self.assertEqual({"autosp-coordinator", "autosp-agent"},
                         {monitor["metadata"]["name"] for monitor in monitors})
        for monitor in monitors:
            spec = monitor["spec"]
            labels = ",".join(f"{key}={value}"
                              for key, value in spec["selector"]["matchLabels"].items())
            wanted = {endpoint["port"] for endpoint in spec["endpoints"]}
            found = [port for service in self.get("services", "-l", labels)
                     for port in service["spec"]["ports"] if port["name"] in wanted]
            self.assertEqual(1, len(found), monitor["metadata"]["name"])

    def test_monitors_need_the_operator(self):
        self.addCleanup(cluster.kubectl, "create", "-f", OPERATOR_RESOURCES)
        cluster.kubectl("delete", "-f", OPERATOR_RESOURCES)
        before = self.inventory()
        for setting, kind in (("serviceMonitor", "ServiceMonitor"), ("rules", "PrometheusRule")):
            refused = self.try_helm("install", f"monitoring.{setting}.enabled=true",
                                    "networkPolicy.enabled=false")
            self.assertNotEqual(0, refused.returncode)
            self.assertIn(f'no matches for kind "{kind}"', refused.stderr)
            self.assertEqual(before, self.inventory())
        self.deploy("install")

    def test_events_say_that_a_value_needs_another_level(self):
        self.deploy("install", "agent.hostNetwork=true")
        self.eventually(
            lambda: any("violates PodSecurity" in event["message"]
                        and event["involvedObject"]["kind"] == "DaemonSet"
                        for event in self.get("events")), "an event of the DaemonSet")
        self.assertEqual([], self.pods(AGENT))

    def test_bad_values_are_refused_and_make_nothing(self):
        before = self.inventory()
        for setting, reason in (
                ("coordinator.replicas=2", "one process owns"),
                ("agent.port=high", "agent/port"),
                ("agent.port=9465", "give each its own"),
                ("agent.mode=tpu", "agent/mode"),
                ("agent.device=8", "device"),
                ("monitoring.serviceMonitor.enabled=true", "Prometheus could not reach"),
                ("volumes[0].name=x,volumes[0].mountPath=/tmp,volumes[0].claim=x",
                 "choose another mountPath")):
            with self.subTest(setting):
                result = self.try_helm("install", setting)
                self.assertNotEqual(0, result.returncode)
                self.assertIn(reason, result.stderr)
                self.assertEqual(before, self.inventory())


class LifeTest(ApiServerTest):
    """What follows an installation."""

    def setUp(self):
        super().setUp()
        self.before = self.inventory()

    def test_an_upgrade_replaces_the_coordinator_and_keeps_its_claim(self):
        self.deploy("install", *ON_GPU_NODES)
        self.await_agents(*GPU_NODES)
        coordinator, store, agents = self.coordinator(), self.get("pvc", STORE), self.agent_uids()
        self.deploy("upgrade", *ON_GPU_NODES, "coordinator.leaseSeconds=120",
                    "agent.sharedMemory=8Gi", "image.tag=0.2.0")
        replaced = self.await_another_coordinator(coordinator)
        self.assertIn("--lease-seconds=120", arguments(replaced))
        self.assertRegex(image(replaced), "/coordinator:0.2.0$")
        self.assertEqual(uid(store), uid(self.get("pvc", STORE)))
        self.check_agents_wait_for_their_deletion(agents)
        cluster.helm("-n", self.namespace, "rollback", "autosp", "1", "--wait")
        again = self.await_another_coordinator(replaced)
        self.assertEqual(arguments(coordinator), arguments(again))
        self.assertEqual(uid(store), uid(self.get("pvc", STORE)))

    def check_agents_wait_for_their_deletion(self, agents):
        self.assertEqual(agents, self.agent_uids())
        cluster.kubectl("-n", self.namespace, "delete", "pod", "-l", AGENT,
                        "--field-selector", f"spec.nodeName={GPU_NODES[0]}")
        self.await_agents(*GPU_NODES)
        is_new = {name: image(pod).endswith(":0.2.0")
                  for name, pod in self.agent_by_node().items()}
        self.assertEqual({name: name == GPU_NODES[0] for name in GPU_NODES}, is_new)

    def test_another_cluster_file_starts_the_coordinator_anew(self):
        self.deploy("install")
        before = self.coordinator()
        self.deploy("upgrade", "coordinator.cluster.nodes[0].name=gpu0",
                    "coordinator.cluster.nodes[0].devices=8",
                    "coordinator.cluster.nodes[0].device_memory=80GiB")
        after = self.await_another_coordinator(before)
        self.assertIn("--cluster=/etc/autosp/cluster.yaml", arguments(after))
        self.deploy("upgrade", "coordinator.cluster.nodes[0].name=gpu0",
                    "coordinator.cluster.nodes[0].devices=4",
                    "coordinator.cluster.nodes[0].device_memory=80GiB")
        self.await_another_coordinator(after)

    def test_the_size_of_the_claim_stays(self):
        self.deploy("install")
        before = self.coordinator()
        result = self.try_helm("upgrade", "coordinator.persistence.size=20Gi")
        self.assertNotEqual(0, result.returncode)
        self.assertIn("updates to statefulset spec for fields other than", result.stderr)
        self.deploy("upgrade")
        self.assertEqual(uid(before), uid(self.coordinator()))

    def drain(self, name, timeout_s=PATIENCE_S):
        # It looks at all namespaces, and those of earlier tests go in their own time.
        self.eventually(lambda: {pod["metadata"]["namespace"] for pod in self.get("pods", "-A")}
                        == {self.namespace}, "no other pod is left")
        self.addCleanup(cluster.kubectl, "uncordon", name)
        return cluster.try_kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data",
                                   f"--timeout={timeout_s}s")

    def test_a_drain_waits_for_the_coordinator_and_leaves_agents(self):
        self.deploy("install", *ON_GPU_NODES)
        self.await_agents(*GPU_NODES)
        coordinator, agents = self.coordinator(), self.agent_uids()
        self.eventually(lambda: self.get("pdb", "autosp-coordinator")["status"]["currentHealthy"],
                        "the budget counts the coordinator")
        result = self.drain(coordinator["spec"]["nodeName"], timeout_s=3)
        self.assertNotEqual(0, result.returncode)
        self.assertIn("violate the pod's disruption budget", result.stderr)
        other = next(name for name in GPU_NODES if name != coordinator["spec"]["nodeName"])
        result = self.drain(other)
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertEqual(agents, self.agent_uids())
        self.assertEqual(uid(coordinator), uid(self.coordinator()))

    def test_a_drain_moves_the_coordinator_where_that_is_allowed(self):
        self.deploy("install", "podDisruptionBudget.maxUnavailable=1")
        before = self.coordinator()
        self.eventually(
            lambda: self.get("pdb", "autosp-coordinator")["status"]["disruptionsAllowed"],
            "the budget allows a disruption")
        result = self.drain(before["spec"]["nodeName"])
        self.assertEqual(0, result.returncode, result.stderr)
        after = self.await_another_coordinator(before)
        self.assertNotEqual(before["spec"]["nodeName"], after["spec"]["nodeName"])

    def test_uninstalling_leaves_the_claim_which_another_installation_takes(self):
        settings = (*VARIANTS["everything"], "coordinator.persistence.existingClaim=",
                    "agent.state.hostPath=", "volumes=null", "coordinator.service.type=ClusterIP")
        self.deploy("install", *settings)
        store = self.get("pvc", STORE)
        self.assertGreater(len(self.inventory()), len(self.before) + 15)
        cluster.helm("-n", self.namespace, "uninstall", "autosp", "--wait")
        left = self.before | {f"persistentvolumeclaim/{STORE}"}
        self.eventually(lambda: self.inventory() == left, "only the claim is left")
        self.deploy("install")
        self.assertTrue(is_ready(self.coordinator()))
        self.assertEqual(uid(store), uid(self.get("pvc", STORE)))


class AccessTest(ApiServerTest):
    def setUp(self):
        super().setUp()
        self.deploy("install", "rbac.clients[0].kind=Group", "rbac.clients[0].name=researchers",
                    "rbac.clients[1].kind=ServiceAccount", "rbac.clients[1].name=ci")

    def rights(self, user, *options):
        """The lines of a table: resources, URLs, names and verbs."""
        table = cluster.kubectl("-n", self.namespace, "auth", "can-i", "--list", f"--as={user}",
                                *options)
        return {" ".join(line.split()) for line in table.splitlines()}

    def account(self, name):
        return f"system:serviceaccount:{self.namespace}:{name}"

    def test_the_programs_may_do_nothing_and_have_no_token(self):
        nobody = self.rights(self.account("no-such-account"))
        for part, label in (("coordinator", COORDINATOR), ("agent", AGENT)):
            self.assertEqual(nobody, self.rights(self.account(f"autosp-{part}")))
            pods = self.eventually(lambda: self.pods(label), f"a pod of the {part}")
            for pod in pods:
                self.assertEqual(f"autosp-{part}", pod["spec"]["serviceAccountName"])
                self.assertEqual([], [volume for volume in pod["spec"]["volumes"]
                                      if "projected" in volume or "secret" in volume])

    def test_clients_may_forward_a_port_to_the_coordinator_and_nothing_else(self):
        expected = {"pods [] [autosp-coordinator-0] [get]",
                    "pods/portforward [] [autosp-coordinator-0] [get create]"}
        self.assertEqual(expected, self.rights(self.account("ci"))
                         - self.rights(self.account("no-such-account")))
        self.assertEqual(expected, self.rights("somebody", "--as-group=researchers")
                         - self.rights("somebody"))


if __name__ == "__main__":
    unittest.main()
