"""Shapes by way of the kernel's own qdiscs, where it has `sch_netem`.

On each device stands a `prio` of ours. Its first band is for all that is not shaped; each other
one holds a chain of netem and token buckets, for one combination of shapes. Which band a packet
takes is written on it by our nftables table; once that is gone, by whatever cause, every packet
takes the first band: the qdiscs fail open.
"""

import json
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from squall.errors import TryAgain, Unsupported
from squall.injection.world.network import Counters, Impairment, Peers, Shape
from squall.injection.world.target import Target
from squall.linux import namespaces, nftables
from squall.linux.classes import matches
from squall.linux.disciplines import Netem, Priorities
from squall.linux.namespaces import Namespace, inside
from squall.linux.nftables import Classified
from squall.linux.packets import Held, PacketsState
from squall.linux.qdisc_plans import Plan, alike, plan_for, same, stages
from squall.linux.qdisc_trees import OURS, Tree, chains_of, handle, parent, tree_of, trees
from squall.linux.shaping import Prepared
from squall.linux.traffic_control import ROOT, Qdisc, TrafficControl

_NOTE = "shapes "


class Qdiscs:
    """One tree for each device; changed where it differs, so that the rest keeps its packets."""

    name: Final = "netem"
    """As `squall doctor` calls this path."""

    async def prepare(
        self, target: Target, namespace: Namespace, shapes: Sequence[Shape]
    ) -> Prepared:
        """Let every chain stand that `shapes` need; others stay until `tidy`.

        Raises:
            Unsupported: a device has a root qdisc of somebody else, or there are too many
                combinations of shapes on one.
            TryAgain: a device is missing.
        """
        if not shapes:
            return Prepared()
        by_device = _by_device(target, shapes)

        def build() -> list[Classified]:
            with TrafficControl() as control:
                found = control.qdiscs()
                plans: dict[str, Plan] = {}
                for device, of_device in by_device.items():
                    number = _number(device, target)
                    _refuse_foreign(found, number, device, target)
                    plans[device] = plan_for(of_device, tree_of(found, number))
                for device, plan in plans.items():
                    number = _number(device, target)
                    _build(control, number, tree_of(found, number), plan)
            return [rule for device, plan in plans.items() for rule in _classified(device, plan)]

        classified = await inside(namespace, build)
        return Prepared(classified=tuple(classified), note=_NOTE + _write(shapes))

    async def shapes(
        self, target: Target, namespace: Namespace, held: Held, listed: str
    ) -> Sequence[Shape]:
        """Read the shapes that were asked for, as far as the kernel bears them out.

        What is left of a tree that nobody holds any more is told as a shape without a source.
        """
        asked = _by_device(target, _read(held.nft))
        rules = sum(len(matches(shapes)) for shapes in asked.values())
        if nftables.classified(listed) != rules:
            asked = {}
        found: list[Shape] = []
        for device, tree in (await inside(namespace, _our_trees)).items():
            shapes = asked.get(device, ())
            plan = plan_for(shapes, tree)
            if shapes and alike(plan.chains, chains_of(tree)):
                found += shapes
            else:
                found.append(Shape("", None, Impairment(), device))
        return found

    async def tidy(self, target: Target, namespace: Namespace, shapes: Sequence[Shape]) -> None:
        """Remove the chains that no packet takes any more, and trees without any."""
        by_device = _by_device(target, shapes)

        def remove() -> None:
            with TrafficControl() as control:
                found = control.qdiscs()
                for device, tree in trees(found).items():
                    of_device = by_device.get(device, ())
                    _trim(control, socket.if_nametoindex(device), tree, plan_for(of_device, tree))

        await inside(namespace, remove)

    async def counters(
        self, target: Target, namespace: Namespace, state: PacketsState
    ) -> Mapping[str, Counters]:
        """Add up what the qdiscs of each source did; they tell packets, bytes and drops."""
        by_device = _by_device(target, _read(state.held.nft))
        found: dict[str, Counters] = {}
        for device, tree in (await inside(namespace, _our_trees)).items():
            shapes = by_device.get(device, ())
            plan = plan_for(shapes, tree)
            for combination, band in plan.bands.items():
                for source, counted in _counted(shapes, combination, band, tree):
                    found[source] = found[source] + counted if source in found else counted
        return found


def _build(control: TrafficControl, number: int, tree: Tree, plan: Plan) -> None:
    """Make the chains of a plan stand; others are left."""
    if (0, 0) not in tree:
        control.put(number, handle(0, 0), ROOT, Priorities())
    if any(isinstance(d, Netem) and d.duplicate for chain in plan.chains.values() for d in chain):
        _trim(control, number, tree, plan)  # a netem that duplicates stands no other beside it
    chains = chains_of(tree)
    for band, chain in plan.chains.items():
        found = chains.get(band, ())
        if same(chain, found):
            continue
        if found and [d.kind for d in found] != [d.kind for d in chain]:
            control.delete(number, handle(band, 0), parent(band, 0))
        for depth, discipline in enumerate(chain):
            control.put(number, handle(band, depth), parent(band, depth), discipline)


def _trim(control: TrafficControl, number: int, tree: Tree, plan: Plan) -> None:
    """Remove the chains that a plan has no use for; all that is ours where it has none."""
    if not plan.chains:
        control.delete(number, handle(0, 0), ROOT)
        return
    for band in chains_of(tree).keys() - plan.chains.keys():
        control.delete(number, handle(band, 0), parent(band, 0))


def _classified(device: str, plan: Plan) -> list[Classified]:
    return [
        Classified(device, rule.networks, rule.port, f"{OURS:x}:{plan.bands[rule.shapes] + 1:x}")
        for rule in plan.rules
    ]


def _our_trees() -> dict[str, Tree]:
    """Find the trees of ours by device. Runs inside the namespace."""
    with TrafficControl() as control:
        return trees(control.qdiscs())


def _counted(
    shapes: Sequence[Shape], combination: Sequence[int], band: int, tree: Tree
) -> Iterator[tuple[str, Counters]]:
    """What each source's qdiscs in one chain counted; a qdisc counts drops below it as well."""
    first: set[int] = set()
    for depth, (at, _) in enumerate(stages(shapes, combination)):
        if not (q := tree.get((band, depth))):
            continue
        below = tree.get((band, depth + 1))
        dropped = max(0, q.dropped - (below.dropped if below else 0))
        packets = 0 if at in first else q.packets + q.dropped
        # Bytes of the bucket, where a shape has both: it is the bucket that limits them.
        size = 0 if at in first or len(stages(shapes, (at,))) > 1 else q.bytes
        size = q.bytes if at in first else size
        first.add(at)
        yield (
            shapes[at].source,
            Counters(packets, None, dropped, None, None, None, None, size),
        )


def _by_device(target: Target, shapes: Sequence[Shape]) -> dict[str, list[Shape]]:
    found: dict[str, list[Shape]] = defaultdict(list)
    for shape in shapes:
        found[shape.device or namespaces.default_device(target)].append(shape)
    return dict(found)


def _number(device: str, target: Target) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as missing:
        raise TryAgain(f"{target.id} has no device {device}; name one in spec.device") from missing


def _refuse_foreign(found: Sequence[Qdisc], number: int, device: str, target: Target) -> None:
    for q in found:
        if q.device == number and q.parent == ROOT and q.handle not in {0, handle(0, 0)}:
            raise Unsupported(
                f"{target.id}: {device} already has a root {q.kind}, which is not ours to touch; "
                "remove it, or name another device in spec.device"
            )


def _write(shapes: Sequence[Shape]) -> str:
    return json.dumps([asdict(shape) for shape in shapes])


def _read(script: str) -> tuple[Shape, ...]:
    """Read the shapes that the script of a table was written for."""
    note = script.partition("\n")[0].removeprefix("# ")
    if not note.startswith(_NOTE):
        return ()
    return tuple(
        Shape(
            one["source"],
            None if one["peers"] is None else tuple(Peers(**peer) for peer in one["peers"]),
            Impairment(**one["impairment"]),
            one["device"],
        )
        for one in json.loads(note.removeprefix(_NOTE))
    )
