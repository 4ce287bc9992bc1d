"""Values with which tests render and install the chart."""

import re
import textwrap

from lab import SOURCE

GUIDE = SOURCE / "docs/install/kubernetes.md"

# Values that between them switch on everything that the chart can make.
VARIANTS = {
    "default": [],
    "gpu": ["agent.mode=gpu", "agent.devices=8", "agent.runtimeClassName=nvidia",
            "agent.imageSuffix=-cuda", "agent.hostNetwork=true",
            "agent.tolerations[0].key=nvidia.com/gpu", "agent.tolerations[0].operator=Exists"],
    "everything": [
        "monitoring.serviceMonitor.enabled=true", "monitoring.rules.enabled=true",
        "monitoring.dashboards.enabled=true", "coordinator.service.type=LoadBalancer",
        "networkPolicy.monitoring[0].namespaceSelector.matchLabels.name=monitoring",
        "networkPolicy.clients[0].ipBlock.cidr=10.0.0.0/8",
        "rbac.clients[0].kind=Group", "rbac.clients[0].name=researchers",
        "rbac.clients[1].kind=ServiceAccount", "rbac.clients[1].name=ci",
        "coordinator.cluster.nodes[0].name=a", "coordinator.cluster.nodes[0].devices=8",
        "coordinator.cluster.nodes[0].device_memory=80GiB",
        "volumes[0].name=data", "volumes[0].mountPath=/data", "volumes[0].claim=data",
        "volumes[1].name=out", "volumes[1].mountPath=/out", "volumes[1].nfs.server=filer",
        "volumes[1].nfs.path=/out", "volumes[2].name=local", "volumes[2].mountPath=/scratch",
        "volumes[2].hostPath=/scratch", "coordinator.persistence.existingClaim=store",
        "agent.state.hostPath=/srv/autosp", "security.supplementalGroups[0]=5000",
        "image.pullSecrets[0]=registry", "tls.secret=autosp-tls"],
}


def set_all(settings):
    """The arguments of helm for these values."""
    return [f"--set={setting}" for setting in settings]


def guide_values():
    """The text of values.yaml in the guide."""
    found = re.search(r"^    # values.yaml\n((?:    .*\n)+)", GUIDE.read_text(), re.MULTILINE)
    return textwrap.dedent(found[1])
