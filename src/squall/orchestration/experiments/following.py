"""A live selection: follow pods that restart, come and go, never hitting more than the mode says.

The record of a pod holds a place until the pod is gone and its agent says that it is clean; only
then may another pod take the place. Who comes first is decided by the seed, as at the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from squall.api.policy import EVERYTHING
from squall.api.status import Record
from squall.orchestration.experiments.draw import quota
from squall.orchestration.experiments.facts import Key
from squall.orchestration.experiments.matching import matching
from squall.orchestration.experiments.pods import Inventory
from squall.orchestration.experiments.records import TOUCHED, fresh
from squall.orchestration.experiments.selection import (
    Scope,
    choices_in,
    drawn_from,
    pod_id_of,
    pool_of,
)

_COMPLETED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Followed:
    """The records of a live selection, brought up to date."""

    records: tuple[Record, ...]
    released: frozenset[Key]
    """Records that must be taken back now; they are dropped once they are clean."""


def follow(scope: Scope, records: Sequence[Record], inventory: Inventory) -> Followed:
    """Bring records up to date with the pods there are.

    Raises:
        ValueError: a selector that cannot be evaluated.
    """
    kept: list[Record] = []
    released: set[Key] = set()
    for key in scope.selectors:
        mine = [record for record in records if record.selector_key == key]
        followed, ended = _follow(scope, key, mine, inventory)
        kept += followed
        released |= {(key, record_id) for record_id in ended}
    return Followed(tuple(kept), frozenset(released))


def _follow(
    scope: Scope, key: str, records: Sequence[Record], inventory: Inventory
) -> tuple[list[Record], set[str]]:
    selector = scope.selectors[key]
    pool = pool_of(scope, key, inventory)
    limit = min(
        quota(selector.mode, selector.value, pool.total, scope.seed, key),
        pool.total * scope.policy.most_percent // EVERYTHING,
    )
    standing = {
        pod.id: pod
        for pod in matching(selector.selector, inventory, scope.namespace)
        if not pod.deleting and pod.phase not in _COMPLETED
    }
    by_pod: dict[str, list[Record]] = {}
    for record in records:
        by_pod.setdefault(pod_id_of(record.id), []).append(record)

    leaving = {name for name in by_pod if name not in standing}
    staying = drawn_from(scope, key, [standing[name] for name in by_pod if name in standing])
    held = sum(any(r.phase in TOUCHED for r in by_pod[name]) for name in leaving)
    leaving |= {pod.id for pod in staying[max(0, limit - held) :]}
    kept = [
        record
        for name, group in by_pod.items()
        for record in group
        if name not in leaving or record.phase in TOUCHED
    ]
    held = len({pod_id_of(record.id) for record in kept})
    new = [pod for pod in drawn_from(scope, key, pool.ready) if pod.id not in by_pod]
    for pod in new[: max(0, limit - held)]:
        kept += [fresh(key, choice.id) for choice in choices_in(scope, key, pod)]
    return kept, {record.id for record in kept if pod_id_of(record.id) in leaving}
