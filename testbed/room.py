"""Start a room: `python -m testbed.room NAME KIND` writes the files that every room has."""

import re
import sys
from pathlib import Path

ROOMS = Path(__file__).parents[1] / "src/squall/faults"

DOOR = '''"""TODO say in one line what this fault does."""

from squall.api.cluster import Resource
from squall.faults.{name}.model import {stem}Fault, {stem}Spec, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "{kind}", "{plural}"),
    spec={stem}Spec,
    fault={stem}Fault,
    share=share,
    injector="squall.faults.{name}.injector:{stem}Injector",
    probe="squall.faults.{name}.probe:{stem}Probe",
)
'''

MODEL = '''"""{kind}: what may be asked."""

from squall.api.experiment import ExperimentSpec
from squall.api.wire import Fault
from squall.injection.kind import Peers


class {stem}Spec(ExperimentSpec):
    """What an experiment of this kind says."""


class {stem}Fault(Fault):
    """What one target is told."""


def share(spec: {stem}Spec, selector_key: str, peers: Peers) -> {stem}Fault | None:  # noqa: ARG001
    """Say what targets of one selector key get."""
    return {stem}Fault()
'''

INJECTOR = '''"""{kind} on a target."""

from collections.abc import Sequence

from squall.faults.{name}.model import {stem}Fault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.target import Target


class {stem}Injector:
    """Makes a target feel exactly its live faults."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def converge(
        self, target: Target, live: Sequence[Live[{stem}Fault]], memory: Memory
    ) -> None:
        """Read what is there, compare, change the difference."""
        raise NotImplementedError
'''

PROBE = '''"""Is {kind} felt?"""

from squall.faults.{name}.model import {stem}Fault
from squall.injection.contract import Judgement, Live, Sample
from squall.injection.world import World
from squall.injection.world.target import Target


class {stem}Probe:
    """Measures inside the target."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def sample(self, target: Target, live: Live[{stem}Fault]) -> Sample:
        """Measure now."""
        raise NotImplementedError

    def judge(self, fault: {stem}Fault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured."""
        raise NotImplementedError
'''

MANUAL = """# {kind}

## What it does

## What may be asked

## How it acts

## How it is proved

## What it leaves behind
"""

EXAMPLE = """apiVersion: chaos-mesh.org/v1alpha1
kind: {kind}
metadata:
  name: example
spec:
  mode: all
  selector:
    labelSelectors: {{app: web}}
  duration: 30s
"""

FILES = {
    "__init__.py": DOOR,
    "model.py": MODEL,
    "injector.py": INJECTOR,
    "probe.py": PROBE,
    "README.md": MANUAL,
    "example.yaml": EXAMPLE,
    "tests/__init__.py": "",
}


def main(name: str, kind: str) -> None:
    """Write the room `name` for the fault kind `kind`; never over an existing one."""
    if not re.fullmatch(r"[a-z][a-z_]*", name) or not re.fullmatch(r"[A-Z]\w*Chaos", kind):
        sys.exit("usage: make room NAME=disk_space KIND=DiskChaos")
    room = ROOMS / name
    if room.exists():
        sys.exit(f"{room} exists")
    stem = kind.removesuffix("Chaos")
    for file, text in FILES.items():
        path = room / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name, kind=kind, stem=stem, plural=kind.lower()))
        print(path)


if __name__ == "__main__":
    main(*[*sys.argv[1:], "", ""][:2])
