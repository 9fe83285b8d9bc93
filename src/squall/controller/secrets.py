"""What faults need of Secrets: read where an experiment asks for it, sealed for each node."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from squall.api.cluster import SECRET, ApiError, Cluster, NotFound
from squall.api.node_fault import NodeFaultSpec, SealedValues, sealing_context
from squall.injection.kind import FaultKind, SecretKey
from squall.orchestration.experiments.facts import Assigned, Decision, Seen
from squall.sealing import seal

FORBIDDEN = 403
LOOK_AGAIN_SECONDS = 5.0
"""How often it is looked whether boxes still fit: agents begin anew, Secrets are made later."""


class Secrets:
    """Puts sealed values into NodeFaults, or the reason why there are none.

    Args:
        cluster: the API.
        recipient: node name -> the public key of its agent; empty where none is known.
    """

    def __init__(self, cluster: Cluster, recipient: Callable[[str], str]) -> None:
        self._cluster, self._recipient = cluster, recipient
        self._followed: dict[str, bytes] = {}
        """By NodeFault: a digest of what was sealed last, to see that a Secret has changed."""

    async def complete(
        self, kind: FaultKind, seen: Seen, assigned: Sequence[Assigned], decision: Decision
    ) -> tuple[Decision, float | None]:
        """Seal what a decision orders, and anew what its agent cannot open or what has changed.

        Returns:
            The decision to carry out, and seconds after which to look again; None: no need.

        Raises:
            ApiError: the API does not answer; decide again.
        """
        for name in decision.remove:
            self._followed.pop(name, None)
        needed = kind.secrets(seen.spec) if seen.spec is not None else ()
        if not needed:
            return decision, None
        put = dict(decision.put)
        for one in assigned:
            if one.name not in decision.remove:
                put.setdefault(one.name, one.spec)
        there = {one.name: one.spec for one in assigned}
        acting = {name: spec for name, spec in put.items() if _acts(spec)}
        if acting:
            unfit = [name for name, spec in acting.items() if self._unfit(spec)]
            try:
                values = await self._values(needed)
            except ApiError:
                if unfit:
                    raise
                values = "what was read before will do"
            for name, spec in acting.items():
                if name in unfit or self._outdated(name, values):
                    put[name] = spec.model_copy(update={"sealed": self._sealed(spec, values)})
                    self._followed[name] = _digest(values)
        changed = tuple((name, spec) for name, spec in put.items() if spec != there.get(name))
        again = LOOK_AGAIN_SECONDS if any(spec.targets for spec in put.values()) else None
        return replace(decision, put=changed), again

    def _outdated(self, name: str, values: Mapping[str, bytes] | str) -> bool:
        """Is something else sealed? A Secret that has gone since is none to follow."""
        return not isinstance(values, str) and self._followed.get(name) != _digest(values)

    def _unfit(self, spec: NodeFaultSpec) -> bool:
        sealed, recipient = spec.sealed, self._recipient(spec.node_name)
        return sealed is None or not sealed.box or sealed.recipient != recipient

    async def _values(self, needed: Sequence[SecretKey]) -> Mapping[str, bytes] | str:
        """Read what is needed; or say why that cannot be."""
        found: dict[str, bytes] = {}
        for namespace, name in dict.fromkeys((key.namespace, key.name) for key in needed):
            try:
                data = (await self._cluster.get(SECRET, namespace, name)).get("data") or {}
            except NotFound:
                return f"there is no Secret {namespace}/{name}; create it, or name another"
            except ApiError as refused:
                if refused.code != FORBIDDEN:
                    raise
                return (
                    f"Squall may not read the Secret {namespace}/{name}; add {namespace} to "
                    f"secretNamespaces of the installation: {refused}"
                )
            for key in needed:
                if (key.namespace, key.name) != (namespace, name):
                    continue
                try:
                    found[str(key)] = base64.b64decode(data[key.key], validate=True)
                except KeyError:
                    there = ", ".join(sorted(data)) or "nothing"
                    return f"the Secret {namespace}/{name} has no {key.key}; it has {there}"
                except (binascii.Error, ValueError):
                    return f"{key.key} of the Secret {namespace}/{name} is not base64"
        return found

    def _sealed(self, spec: NodeFaultSpec, values: Mapping[str, bytes] | str) -> SealedValues:
        recipient = self._recipient(spec.node_name)
        if isinstance(values, str):
            return SealedValues(recipient=recipient, problem=values)
        if not recipient:
            why = f"the agent of {spec.node_name} has told no key to which Secrets can be sealed"
            return SealedValues(problem=why)
        try:
            box = seal(recipient, values, sealing_context(spec))
        except ValueError as wrong:
            why = f"what the agent of {spec.node_name} has told is no key: {wrong}"
            return SealedValues(problem=why)
        return SealedValues(recipient=recipient, box=box)


def _acts(spec: NodeFaultSpec) -> bool:
    return spec.desired_phase != "Stop" and bool(spec.targets)


def _digest(values: Mapping[str, bytes] | str) -> bytes:
    if isinstance(values, str):
        return b""
    whole = hashlib.sha256()
    for name, value in sorted(values.items()):
        for part in (name.encode(), value):
            whole.update(len(part).to_bytes(8) + part)
    return whole.digest()
