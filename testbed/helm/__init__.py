"""Helm from its Go module, for rendering and installing the chart in tests."""

from functools import cache
from pathlib import Path

from testbed.golang import Module

_FOLDER = Path(__file__).parent
_SOURCE = "helm.sh/helm/v3"


@cache
def program() -> Path:
    """Build helm unless that was done before, and return the program.

    Raises:
        RuntimeError: Go is missing, or the build failed; says what to do.
    """
    return _module().build() / "helm"


def built() -> bool:
    """Say whether it is built; that takes longer than any test may."""
    return _module().built().is_dir()


def _module() -> Module:
    version = Module(_FOLDER, "helm").required(_SOURCE)
    stamps = {f"{_SOURCE}/internal/version.version": version}
    return Module(_FOLDER, "helm", package=f"{_SOURCE}/cmd/helm", stamps=stamps)
