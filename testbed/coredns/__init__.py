"""CoreDNS from its Go module, with few plugins: names of Services in the tests' clusters."""

from functools import cache
from pathlib import Path

from testbed.golang import Module

_MODULE = Module(Path(__file__).parent, "coredns")


@cache
def program() -> Path:
    """Build CoreDNS unless that was done before, and return the program.

    Raises:
        RuntimeError: Go is missing, or the build failed; says what to do.
    """
    return _MODULE.build() / "coredns"


def built() -> bool:
    """Say whether it is built; that takes longer than any test may."""
    return _MODULE.built().is_dir()
