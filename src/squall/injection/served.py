"""Every kind that this installation serves: one for each room, and our own."""

from collections.abc import Mapping

from squall.api.crd import own_kinds, served_experiment
from squall.api.served import ServedKind
from squall.injection.kind import FaultKind


def served_kinds(rooms: Mapping[str, FaultKind]) -> tuple[ServedKind, ...]:
    """Prepare every kind for serving, experiments first, each group by name.

    Args:
        rooms: what `squall.faults.kinds()` found.
    """
    found = (rooms[name] for name in sorted(rooms))
    experiments = (served_experiment(kind.resource, kind.spec, kind.columns) for kind in found)
    return (*experiments, *own_kinds())
