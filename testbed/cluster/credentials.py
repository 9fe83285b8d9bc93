"""Who may do what in a cluster: certificates of its components and their kubeconfigs."""

import json
from pathlib import Path

from testbed.certificates import Authority, write_key
from testbed.cluster.layout import Layout

USERS = {
    "admin": ("admin", ["system:masters"]),
    "kube-controller-manager": ("system:kube-controller-manager", []),
    "kube-scheduler": ("system:kube-scheduler", []),
    "kube-proxy": ("system:kube-proxy", []),
    "coredns": ("system:coredns", []),
}
"""What each certificate's file is called, who it says its bearer is, and in which groups."""


def write(layout: Layout) -> None:
    """Write keys, certificates and kubeconfigs of everybody in the cluster."""
    folder = keys(layout)
    folder.mkdir(parents=True)
    authority = Authority(folder)
    services = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts = [layout.address, "127.0.0.1", "10.96.0.1", "localhost", *services]
    authority.issue("kube-apiserver", "kube-apiserver", hosts=hosts)
    write_key(folder / "accounts.key")
    nodes = {node.name: (f"system:node:{node.name}", ["system:nodes"]) for node in layout.nodes}
    for file, (name, groups) in {**USERS, **nodes}.items():
        authority.issue(file, name, groups)
        _write_kubeconfig(layout, file)


def keys(layout: Layout) -> Path:
    """Say where keys and certificates are."""
    return layout.folder / "keys"


def _write_kubeconfig(layout: Layout, user: str) -> None:
    folder = keys(layout)
    cluster = {"server": layout.url, "certificate-authority": str(folder / "ca.crt")}
    credentials = {
        "client-certificate": str(folder / f"{user}.crt"),
        "client-key": str(folder / f"{user}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
    }
    layout.kubeconfig(user).write_text(json.dumps(config))
