"""Who an experiment would hit: the very function that chooses the targets of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from squall.api.cluster import NAMESPACE, NODE, POD, Cluster, Object
from squall.api.policy import Policy
from squall.errors import InvalidFault
from squall.injection.kind import FaultKind
from squall.injection.served import served_kinds
from squall.orchestration.experiments.choosing import scope_of
from squall.orchestration.experiments.draw import seed_of
from squall.orchestration.experiments.pods import Inventory, read_pod
from squall.orchestration.experiments.selection import Selection, select


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do now."""

    selection: Selection
    seed: str
    """Draws these targets, where the mode leaves a choice."""
    repeatable: bool
    """False where every new object would draw anew, because the manifest sets no seed."""

    def lines(self) -> list[str]:
        """Say it for people, a line each: targets, then what matches and is left out."""
        chosen, skipped = self.selection.chosen, self.selection.skipped
        lines = [f"{c.selector_key} {c.id} on {c.pod.node}" for c in chosen]
        if self.selection.empty:
            lines.append(self.selection.empty)
        lines += [f"skipped: {s.selector_key} {s.id} {s.reason}" for s in skipped]
        if not self.repeatable:
            lines.append(f"to hit exactly these, set spec.seed: {self.seed}")
        return lines


async def preview(
    cluster: Cluster,
    kinds: Mapping[str, FaultKind],
    manifest: Object,
    *,
    new_seed: int,
    policy: Policy | None = None,
) -> Preview:
    """Choose the targets of a manifest, or of an experiment read from the API, and do nothing.

    Args:
        cluster: is only read.
        kinds: every kind that is served.
        manifest: with its namespace; one that has a uid is drawn by it, as its run was.
        new_seed: taken where neither a seed nor a uid is there.
        policy: what the installation lets experiments hit; None: everything.

    Raises:
        InvalidFault: no such kind, or a spec that cannot be read.
        ApiError: pods or nodes could not be read.
    """
    kind = kinds.get(manifest.get("kind", ""))
    if kind is None:
        raise InvalidFault(
            f"kind {manifest.get('kind')!r} is not served; there are {', '.join(sorted(kinds))}"
        )
    meta = manifest.get("metadata") or {}
    if causes := _refused(kinds, manifest):
        raise InvalidFault(f"{manifest['kind']}/{meta.get('name')}: {'; '.join(causes)}")
    spec = kind.spec.model_validate(manifest.get("spec") or {})
    seed = seed_of(spec.seed, meta.get("uid") or str(new_seed))
    namespace = meta.get("namespace") or "default"
    policy = policy or Policy()
    scope = scope_of(kind, spec, namespace=namespace, seed=seed, policy=policy)
    inventory = await _inventory(cluster, namespaces=policy.opt_in_namespaces)
    try:
        selection = select(scope, inventory)
    except ValueError as senseless:
        raise InvalidFault(str(senseless)) from senseless
    drawn = any(selector.mode != "all" for selector in spec.selectors().values())
    repeatable = not drawn or spec.seed is not None or "uid" in meta
    return Preview(selection, seed, repeatable)


def _refused(kinds: Mapping[str, FaultKind], manifest: Object) -> list[str]:
    """Find what the API would refuse the manifest for."""
    served = next(s for s in served_kinds(kinds) if s.resource.kind == manifest["kind"])
    return [str(cause) for cause in served.validate(served.default(manifest), None)]


async def _inventory(cluster: Cluster, *, namespaces: bool) -> Inventory:
    pods, nodes = await cluster.list(POD), await cluster.list(NODE)
    labels = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in nodes}
    spaces = await cluster.list(NAMESPACE) if namespaces else ()
    annotations = {n["metadata"]["name"]: n["metadata"].get("annotations") or {} for n in spaces}
    return Inventory([read_pod(pod) for pod in pods], labels, annotations)
