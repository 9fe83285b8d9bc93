"""Renders the manifests that `squall install` applies from the Helm chart, with placeholders.

    python -m testbed.manifests

Run by `make generate`; a test renders them again and compares.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from squall.api.cluster import Object
from squall.installation.manifests import (
    CLUSTER,
    IMAGE_PLACEHOLDER,
    NAMESPACE_PLACEHOLDER,
    NAMESPACED,
    OPT_IN,
    PAUSE_PLACEHOLDER,
    POLICY_CHECKSUM,
    POLICY_CONFIG_MAP,
    TARGET_PLACEHOLDER,
)
from testbed.helm import program

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy/helm/squall"
FOLDER = "src/squall/installation/manifests"
_HEADER = "# Generated from the chart, deploy/helm/squall; `make generate` writes it anew.\n"
_ONE_NAMESPACE = {"clusterScoped": False, "targetNamespace": TARGET_PLACEHOLDER}
_HELMS_OWN = "helm.sh/chart"
_KUBERNETES = "1.34.0"
"""Nothing in the chart differs by it; helm assumes a version older than the chart allows."""
_VERSION = "app.kubernetes.io/version"
_MANAGED_BY = "app.kubernetes.io/managed-by"


def rendered() -> Iterator[tuple[str, str]]:
    """Give every file: its path below the root of the repository, and its text.

    Raises:
        RuntimeError: helm cannot be built, or refuses the chart.
    """
    shapes: dict[str, Mapping[str, Any]] = {CLUSTER: {}, NAMESPACED: _ONE_NAMESPACE}
    for shape, values in shapes.items():
        plain = _objects(values)
        opted = _objects({**values, "policy": {"optInNamespaces": True}})
        # Only rights differ; the policy itself is written at each installation.
        more = [obj for obj in opted if obj not in plain]
        yield f"{FOLDER}/{shape}", _text(plain)
        yield f"{FOLDER}/{OPT_IN}{shape}", _text(more)


def _objects(values: Mapping[str, Any]) -> list[Object]:
    image, tag = IMAGE_PLACEHOLDER.split(":")
    fixed = {
        "crds": {"install": False},  # they come from the models
        "image": {"repository": image, "tag": tag},
        "controller": {"pauseImage": PAUSE_PLACEHOLDER},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({**fixed, **values}, file)
        file.flush()
        command = [program(), "template", "squall", CHART, "--no-hooks", f"--values={file.name}"]
        command += ["--namespace", NAMESPACE_PLACEHOLDER, f"--kube-version={_KUBERNETES}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"helm template: {done.stderr.strip()}")
    return [_ours(obj) for obj in yaml.safe_load_all(done.stdout) if obj]


def _ours(obj: Object) -> Object:
    """Take away what says that helm keeps the object, and what differs at each installation."""
    if obj["metadata"]["name"] == POLICY_CONFIG_MAP:
        obj["data"] = {}
    for part in (obj, obj.get("spec", {}).get("template", {})):
        metadata = part.get("metadata") or {}
        labels = metadata.get("labels") or {}
        labels.pop(_HELMS_OWN, None)
        labels.pop(_VERSION, None)
        if _MANAGED_BY in labels:
            labels[_MANAGED_BY] = "squall"
        if POLICY_CHECKSUM in (metadata.get("annotations") or {}):
            metadata["annotations"][POLICY_CHECKSUM] = ""
    return obj


def _text(objects: list[Object]) -> str:
    documents = yaml.safe_dump_all(objects, sort_keys=False, width=100, explicit_start=True)
    return _HEADER + documents


def main() -> None:
    """Write every file anew."""
    for path, text in rendered():
        (ROOT / path).write_text(text)


if __name__ == "__main__":
    main()
