"""Kubernetes' own controllers beside an API server without nodes: namespaces end, pods are made."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.apiserver import ApiServer
from testbed.kubernetes.build import programs

CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "daemonset-controller",
)


@contextmanager
def controller_manager(server: ApiServer, folder: Path) -> Iterator[None]:
    """Run kube-controller-manager until the end of the block."""
    with (folder / "kube-controller-manager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL", "--"),
                programs() / "kube-controller-manager",
                f"--kubeconfig={server.kubeconfig}",
                f"--controllers={','.join(CONTROLLERS)}",
                "--leader-elect=false",
                "--secure-port=0",
                "--namespace-sync-period=1s",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()
