"""Pods that answer, for tests of what is between them."""

import json
from typing import Any

from testbed.cluster import Cluster
from testbed.cluster.images import BUSYBOX
from testbed.cluster.layout import DNS
from testbed.cluster.waiting import until

ANSWER = "hello"


def web(cluster: Cluster, namespace: str, name: str, node: str, **spec: Any) -> str:
    """Start a web server on a node, behind a Service of its name; returns its address."""
    script = f"mkdir -p /www; echo {ANSWER} >/www/index.html; echo serving; exec httpd -f -h /www"
    container = {"name": "web", "image": BUSYBOX, "command": ["sh", "-c", script]}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }
    listed = {"apiVersion": "v1", "kind": "List", "items": [pod, service]}
    cluster.kubectl("create", "-f=-", stdin=json.dumps(listed))
    until(name, lambda: _is_ready(get(cluster, namespace, name)))
    return str(get(cluster, namespace, name)["status"]["podIP"])


def get(cluster: Cluster, namespace: str, pod: str) -> dict[str, Any]:
    """Read a pod."""
    shown = cluster.kubectl("get", "pod", pod, f"--namespace={namespace}", "--output=json")
    read: dict[str, Any] = json.loads(shown)
    return read


def execute(cluster: Cluster, namespace: str, pod: str, *command: str) -> str:
    """Run a command in a pod; raises `RuntimeError` when it fails."""
    return cluster.kubectl("exec", f"--namespace={namespace}", pod, "--", *command)


def fetch(cluster: Cluster, namespace: str, pod: str, address: str) -> str:
    """GET a page from within a pod; exit code 143 says that it took more than two seconds."""
    # Not wget's own -T: Debian's static busybox crashes on it.
    host = f"[{address}]" if ":" in address else address
    command = ["timeout", "2", "wget", "-q", "-O", "-", f"http://{host}/"]
    return execute(cluster, namespace, pod, *command).strip()


def look_up(cluster: Cluster, namespace: str, pod: str, name: str, server: str = DNS) -> str:
    """Ask the cluster's name server from within a pod; Debian's busybox cannot by itself."""
    answer = execute(cluster, namespace, pod, "nslookup", name, server)
    return answer.rpartition("Address:")[2].strip()


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        return True
    raise RuntimeError(json.dumps(pod["status"]))
