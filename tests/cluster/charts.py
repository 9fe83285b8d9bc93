"""The chart, as real helm renders and installs it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Protocol

import yaml

from testbed.helm import program

CHART = Path(__file__).parents[2] / "deploy/helm/squall"
KUBERNETES = "1.34.4"
NAMESPACE = "squall"


class Refused(Exception):
    """Helm refused; the message is all it said."""


class Reachable(Protocol):
    """An API server, with or without a cluster behind it."""

    @property
    def kubeconfig(self) -> Path: ...


def helm(*arguments: str | Path, server: Reachable | None = None) -> str:
    """Run helm and return what it prints; without a server it can reach none."""
    reach = [f"--kubeconfig={server.kubeconfig if server else '/dev/null'}"]
    # Of a cluster it notes the same as kubectl, and would do it in the home of who runs this.
    noted = {"KUBECACHEDIR": f"{server.kubeconfig.parent}/kubectl"} if server else {}
    done = subprocess.run(
        [program(), *arguments, *reach],
        env={**os.environ, **noted},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def rendered(*values: str, release: str = "squall", namespace: str = NAMESPACE) -> list[Any]:
    """Render the chart's objects, with values given as `key=value`; hooks are among them."""
    sets = [f"--set-json={value}" if "=[" in value else f"--set={value}" for value in values]
    text = helm(
        "template",
        release,
        CHART,
        f"--namespace={namespace}",
        f"--kube-version={KUBERNETES}",
        *sets,
    )
    return [one for one in yaml.safe_load_all(text) if one]


def find(objects: list[Any], kind: str, name: str) -> Any:
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def as_list(objects: list[Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def is_hook(obj: Any) -> bool:
    return "helm.sh/hook" in (obj["metadata"].get("annotations") or {})
