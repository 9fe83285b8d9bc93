"""How the components of one node are configured and started."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.cluster import credentials, pod_network
from testbed.cluster.layout import DNS, PODS, PODS_SIX, Layout, Node, hierarchies
from testbed.kubernetes.build import programs

COMPONENTS = ("containerd", "kubelet", "kube-proxy")
"""In the order they are started in."""

SOCKET = "/run/containerd/containerd.sock"
"""Of a node's container runtime, seen from the node."""

PAUSE = "registry.local/pause:3.10"
"""Image of the container that holds a pod's namespaces."""


def commands(layout: Layout, node: Node) -> Mapping[str, Sequence[str]]:
    """Say how each is called."""
    folder = node.folder
    return {
        "containerd": ["containerd", f"--config={folder}/containerd.toml", "--log-level=warn"],
        "kubelet": [
            str(programs() / "kubelet"),
            f"--config={folder}/kubelet.json",
            f"--kubeconfig={layout.kubeconfig(node.name)}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address},{node.address_six}",
            f"--root-dir={folder}/kubelet",
        ],
        "kube-proxy": [str(programs() / "kube-proxy"), f"--config={folder}/kube-proxy.json"],
    }


def configure(layout: Layout, node: Node) -> None:
    """Write what they read, and make the cgroups that the kubelet puts pods below."""
    folder = node.folder
    for name in ("kubelet", "logs"):
        (folder / name).mkdir(parents=True)
    (folder / "resolv.conf").write_text(f"nameserver {layout.dns_address}\n")
    (folder / "containerd.toml").write_text(_containerd(node))
    for name, config in {
        "kubelet.json": _kubelet(layout, node),
        "kube-proxy.json": _proxy(layout, node),
    }.items():
        (folder / name).write_text(json.dumps(config, indent=1))
    pod_network.configure(node)
    _make_cgroups(node)


def _make_cgroups(node: Node) -> None:
    path = Path(node.cgroup.lstrip("/"))
    for root in hierarchies():
        (root / path).mkdir(parents=True, exist_ok=True)
        if root.name == "cpuset":  # a group without processors may hold no process
            for group in (path.parent, path):
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (root / group / file).write_text((root / file).read_text())


def _containerd(node: Node) -> str:
    plugins, settings = pod_network.folders(node)
    return f"""version = 2
root = "{node.folder}/containerd"
state = "{node.folder}/containers"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  # Lowering it takes CAP_SYS_RESOURCE, which a machine in a container has not.
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{settings}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(layout: Layout, node: Node) -> Mapping[str, object]:
    authority = str(credentials.keys(layout) / "ca.crt")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104  (of its own namespace)
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        # Two kubelets on one kernel delete each other's pods if they share this.
        "cgroupRoot": node.cgroup,
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "podLogsDir": str(node.folder / "logs"),
        "resolvConf": str(node.folder / "resolv.conf"),
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,  # renewed four times in that
        "imageGCHighThresholdPercent": 100,  # nobody could pull an image again
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    }


def _proxy(layout: Layout, node: Node) -> Mapping[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("kube-proxy"))},
        "clusterCIDR": f"{PODS},{PODS_SIX}",
        "conntrack": {"maxPerCore": 0, "min": 0},  # those sysctls are the whole machine's
    }
