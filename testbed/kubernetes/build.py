"""Build kubectl, kube-apiserver and the other components from Kubernetes' Go modules.

Run it as `python -m testbed.kubernetes`; it prints the folder that holds the programs.
"""

import re
from functools import cache
from pathlib import Path

from testbed.golang import Module

FOLDER = Path(__file__).parent
"""The Go module: main.go says which components the one program can be."""


@cache
def programs() -> Path:
    """Build the programs unless that was done before, and return their folder.

    Raises:
        RuntimeError: Go is missing, or the build failed; says what to do.
    """
    return _module().build()


def built_folder() -> Path:
    """Say where the programs are, or will be once they are built.

    Raises:
        RuntimeError: Go is missing.
    """
    return _module().built()


def components() -> list[str]:
    """Read from main.go what the program can be called as."""
    return re.findall(r'^\t"([a-z-]+)":', (FOLDER / "main.go").read_text(), re.MULTILINE)


def _module() -> Module:
    """Stamp it with the version that `kubectl version` and `/version` report."""
    module = Module(FOLDER, "kubernetes")
    version = module.required("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = {f"k8s.io/component-base/version.{name}": value for name, value in values.items()}
    return Module(FOLDER, "kubernetes", stamps=stamps, aliases=tuple(components()))
