"""Network namespaces that stand for hosts: each has an interface of its own to the others.

    host a --- 10.213.0.1/24 --- bridge --- 10.213.0.2/24 --- host b
                                   |
                    10.213.0.254: this namespace, where the coordinator is

A second cable joins the hosts a and b alone (10.213.1.0/24); it can be cut while the coordinator
still reaches both. Those made next have 10.213.2.0/24 and 10.213.3.0/24. Needs root, `ip`, and a
kernel with namespaces and veth: skip_reason() says what is missing.
"""

import itertools
import os
import secrets
import shutil
import subprocess

NETWORKS = (f"10.213.{number}" for number in itertools.count())


def run(*command, check=True):
    return subprocess.run(list(map(str, command)), check=check, capture_output=True, text=True)


def skip_reason():
    """Why hosts cannot be made here; None: they can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if shutil.which("ip") is None:
        return "needs ip of iproute2"
    name = "autosp-probe-" + secrets.token_hex(3)
    made = run("ip", "netns", "add", name, check=False)
    if made.returncode != 0:
        return "the kernel gives no network namespaces: " + made.stderr.strip()
    linked = run("ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1",
                 check=False)
    run("ip", "netns", "del", name, check=False)
    return None if linked.returncode == 0 else "the kernel has no veth: " + linked.stderr.strip()


class Hosts:
    """Two hosts and the cables between them; close() removes all."""

    def __init__(self):
        self.tag = secrets.token_hex(2)
        self.names = {host: f"autosp-{self.tag}-{host}" for host in "ab"}
        self.bridge = f"asb{self.tag}"
        self.control, self.data = next(NETWORKS), next(NETWORKS)
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.close()
            raise AssertionError(f"{error.cmd}: {error.stderr}") from error

    def _make(self):
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.control}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for number, (host, name) in enumerate(self.names.items(), start=1):
            outer = f"as{self.tag}{host}"
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", "control", "netns",
                name)
            run("ip", "link", "set", outer, "master", self.bridge, "up")
            run("ip", "-n", name, "addr", "add", f"{self.control}.{number}/24", "dev", "control")
            run("ip", "-n", name, "link", "set", "control", "up")
        run("ip", "-n", self.names["a"], "link", "add", "data", "type", "veth", "peer", "name",
            "data", "netns", self.names["b"])
        for number, name in enumerate(self.names.values(), start=1):
            run("ip", "-n", name, "addr", "add", f"{self.data}.{number}/24", "dev", "data")
            run("ip", "-n", name, "link", "set", "data", "up")

    def inside(self, host):
        """What a command is put behind to run on `host`."""
        return ["ip", "netns", "exec", self.names[host]]

    def control_address(self, host):
        return f"{self.control}.{'ab'.index(host) + 1}"

    def data_address(self, host):
        return f"{self.data}.{'ab'.index(host) + 1}"

    def coordinator_address(self):
        return f"{self.control}.254"

    def cut(self, host, cable="data"):
        """The interface is down: the other side of a veth loses its carrier."""
        run("ip", "-n", self.names[host], "link", "set", cable, "down")

    def swallow(self, host):
        """What host sends to the other over the data cable gets lost, without an error anywhere:
        its packets carry an address on the link that nobody has."""
        other = self.data_address("b" if host == "a" else "a")
        run("ip", "-n", self.names[host], "neigh", "replace", other, "lladdr", "02:00:00:00:00:01",
            "dev", "data", "nud", "permanent")

    def slow(self, host, rate):
        run("tc", "-n", self.names[host], "qdisc", "replace", "dev", "data", "root", "tbf", "rate",
            rate, "burst", "32kbit", "latency", "400ms")

    def close(self):
        for name in self.names.values():
            run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", self.bridge, check=False)
