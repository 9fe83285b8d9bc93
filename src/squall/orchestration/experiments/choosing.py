"""Which targets an experiment goes on with: new ones, the same, or those a selection follows."""

from dataclasses import dataclass

from squall.api.experiment import ExperimentSpec
from squall.api.policy import Policy
from squall.api.status import Record
from squall.errors import InvalidFault
from squall.injection.kind import FaultKind, Peer, Peers
from squall.orchestration.experiments.desire import Desire
from squall.orchestration.experiments.draw import seed_of
from squall.orchestration.experiments.facts import Facts, Key, Seen
from squall.orchestration.experiments.following import follow
from squall.orchestration.experiments.records import fresh
from squall.orchestration.experiments.selection import Scope, Skipped, select


@dataclass(frozen=True, slots=True)
class Chosen:
    """The targets to go on with."""

    records: tuple[Record, ...] | None
    """None while none could be chosen."""
    released: frozenset[Key] = frozenset()
    """Targets that a live selection gives up."""
    problem: str = ""
    """Why nothing could be chosen."""
    passed_over: tuple[Skipped, ...] = ()
    """Who else would have been chosen from, had its node an agent that can do it."""


def choose(facts: Facts, seen: Seen, wanted: Desire) -> Chosen:
    """Choose targets where there are none, and follow them where the selection is live.

    Nothing is chosen for an experiment that does not run. Unlike upstream, a selection that found
    nothing is tried again.
    """
    records = seen.status.experiment.container_records
    known = None if records is None else tuple(records)
    if not wanted.runs:
        return Chosen(known)
    if seen.spec is None:
        return Chosen(known, problem=seen.flaw)
    try:
        seed = seed_of(seen.spec.seed, seen.uid)
        scope = scope_of(
            facts.kind, seen.spec, namespace=seen.namespace, seed=seed, policy=facts.policy
        )
        if known is None:
            return _first(scope, facts)
        if seen.status.experiment.desired_phase == "Stop":  # resumed: what was proven is history
            known = tuple(record.model_copy(update={"proof": None}) for record in known)
        if is_live(facts, seen):
            followed = follow(scope, known, facts.inventory)
            return Chosen(followed.records, followed.released)
    except ValueError as senseless:
        return Chosen(known, problem=str(senseless))
    return Chosen(known)


def scope_of(
    kind: FaultKind, spec: ExperimentSpec, *, namespace: str, seed: str, policy: Policy
) -> Scope:
    """Say what decides the targets of an experiment, whether it runs or is only previewed."""
    return Scope(
        selectors=spec.selectors(),
        namespace=namespace,
        seed=seed,
        per_container=kind.per_container(spec),
        policy=policy,
        by_network=kind.by_network,
        needs=_needs(kind, spec),
    )


def _needs(kind: FaultKind, spec: ExperimentSpec) -> dict[str, tuple[str, ...]]:
    """Say what the agents of targets must be able to do, by selector key.

    Nothing is needed where the API alone brings the fault about, and of pods that are only the
    other end of one.
    """
    if kind.by_api(spec):
        return {}
    needs = kind.needs if kind.needed is None else kind.needed(spec)
    nobody: dict[str, tuple[Peer, ...]] = dict.fromkeys(spec.selectors(), ())
    return {key: needs for key in nobody if _gets(kind, spec, key, nobody)}


def _gets(kind: FaultKind, spec: ExperimentSpec, key: str, peers: Peers) -> bool:
    try:
        return kind.share(spec, key, peers) is not None
    except (InvalidFault, ValueError):
        return True  # said in its own words once there are targets


def is_live(facts: Facts, seen: Seen) -> bool:
    """Does it follow its targets? What cannot be undone is done once, whatever the spec says."""
    spec = seen.spec
    return spec is not None and spec.selection == "live" and not facts.kind.one_shot(spec)


def _first(scope: Scope, facts: Facts) -> Chosen:
    selection = select(scope, facts.inventory)
    if selection.empty:
        return Chosen(None, problem=selection.empty)
    records = tuple(fresh(choice.selector_key, choice.id) for choice in selection.chosen)
    return Chosen(records, passed_over=tuple(s for s in selection.skipped if s.told))
