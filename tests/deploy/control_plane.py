"""A Kubernetes for one test: its own control plane on loopback, with nodes that only pretend.

Objects are validated, admitted, turned into pods and scheduled as in any cluster. kwok then says
that the pods run; nothing runs in them, and nobody enforces a NetworkPolicy.
"""

import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

from lab import SOURCE, lab_folder, need, search_path

sys.path.insert(0, str(SOURCE / "tests" / "process"))

from cluster import free_port, wait_until  # noqa: E402

ETCD, APISERVER, CONTROLLERS, SCHEDULER, KWOK, KUBECTL, HELM, OPENSSL = need(
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl",
    "helm", "openssl", parts="kubernetes")
OPERATOR_RESOURCES = lab_folder() / "resources"


class ControlPlane:
    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="autosp-kubernetes-")
        self.folder = pathlib.Path(self.temporary.name)
        self.processes = []
        self.kubeconfig = self.folder / "kubeconfig"
        self.env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": search_path(),
                    "HOME": str(self.folder)}

    def start(self):
        store = self._start_etcd()
        self._start_apiserver(store)
        quiet = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        # The nodes are lost by nobody: on a busy machine kwok's heartbeats are only late.
        self._start(CONTROLLERS, *quiet, "--node-monitor-grace-period=1h",
                    f"--root-ca-file={self.folder}/tls/apiserver.crt",
                    f"--service-account-private-key-file={self.folder}/accounts.key")
        self._start(SCHEDULER, *quiet)
        self._start(KWOK, f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes=true",
                    "--cidr=10.244.0.0/16")

    def stop(self):
        for process in reversed(self.processes):
            process.kill()  # Nothing is worth an orderly end.
            process.wait()
        self.temporary.cleanup()

    def _start(self, program, *arguments):
        log_path = self.folder / f"{pathlib.Path(program).name}.log"
        with open(log_path, "wb") as log:
            self.processes.append(subprocess.Popen(
                [program, *arguments], cwd=self.folder, env=self.env, stdout=log, stderr=log))

    def _start_etcd(self):
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._start(ETCD, f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync",
                    f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
                    f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                    f"--initial-cluster=default={peers}")
        return clients

    def _start_apiserver(self, store):
        token, port = secrets.token_hex(16), free_port()
        (self.folder / "tokens").write_text(f"{token},admin,admin,system:masters\n")
        key = self.folder / "accounts.key"
        subprocess.run([OPENSSL, "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {
                "server": f"https://127.0.0.1:{port}",
                "certificate-authority": str(self.folder / "tls/apiserver.crt")}}],
            "users": [{"name": "admin", "user": {"token": token}}]}))
        self._start(
            APISERVER, f"--etcd-servers={store}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--secure-port={port}",
            f"--cert-dir={self.folder}/tls", f"--token-auth-file={self.folder}/tokens",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24",
            "--endpoint-reconciler-type=none", "--service-account-issuer=https://kubernetes.test",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}")
        try:
            wait_until(lambda: self.try_kubectl("get", "--raw=/readyz").returncode == 0, 90,
                       "the API server is ready")
        except AssertionError as error:
            log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
            raise AssertionError(f"{error}\n{log[-4000:]}") from None

    def _run(self, program, arguments, text):
        return subprocess.run([program, *map(str, arguments)], env=self.env, cwd=SOURCE,
                              input=text, capture_output=True, text=True, check=False, timeout=180)

    def try_kubectl(self, *arguments, text=None):
        return self._run(KUBECTL, arguments, text)

    def try_helm(self, *arguments, text=None):
        return self._run(HELM, arguments, text)

    def kubectl(self, *arguments, text=None):
        """What it printed; an error ends the test."""
        return printed(self.try_kubectl(*arguments, text=text))

    def helm(self, *arguments, text=None):
        return printed(self.try_helm(*arguments, text=text))

    def get(self, namespace, *arguments):
        """One object where a name is given, else a list of them."""
        answer = json.loads(self.kubectl("-n", namespace, "get", "-o", "json", *arguments))
        return answer.get("items", answer)

    def create(self, *manifests):
        self.kubectl("create", "-f", "-", text="\n---\n".join(map(json.dumps, manifests)))


def printed(result):
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(result.args)}\n{result.stdout}{result.stderr}")
    return result.stdout


def node(name, gpus=0, **labels):
    """A machine with so many GPUs."""
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    return {"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "status": {"allocatable": resources, "capacity": resources}}


def claim(namespace, name, mode):
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "10Gi"}}}}


def volume_for(namespace, name, mode="ReadWriteOnce"):
    """What a claim of this name gets: there is no storage class here that makes volumes."""
    return {"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {"accessModes": [mode], "capacity": {"storage": "10Gi"},
                     "hostPath": {"path": "/nowhere"},
                     "claimRef": {"namespace": namespace, "name": name}}}
