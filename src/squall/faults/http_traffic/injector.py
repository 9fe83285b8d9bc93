"""HTTPChaos on one target: everything live is merged into one state, and that is applied."""

from collections.abc import Sequence
from datetime import timedelta

from squall.faults.http_traffic.merge import merge
from squall.faults.http_traffic.model import HTTPFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.http import Authority, HttpState
from squall.injection.world.target import Target

LASTS = timedelta(days=365)
"""How long an authority may be trusted at most; nobody has its key once its fault is over."""

_LONGEST_NAME = 64
"""Of a common name; RFC 5280."""
_TRUST = "trust"


class HTTPInjector:
    """Has the HTTP exchanges of a target pass through a proxy of ours while faults are live.

    All that leads to the proxy ends with it, and what it does is read back from it. Only lists of
    trusted authorities outlive it, so that is noted before they are changed.
    """

    def __init__(self, world: World) -> None:
        self._http, self._trust, self._clock = world.http, world.trust, world.clock
        self._spare_the_node = world.spare_the_node

    async def converge(
        self, target: Target, live: Sequence[Live[HTTPFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force.

        Raises:
            TargetGone: the target no longer exists.
            Unsupported: the target is on the network of its node, or the host lacks a means.
            TryAgain: not now.
        """
        if live:
            self._spare_the_node(target, "HTTP chaos")
        opening = [one.source for one in live if one.fault.opens_tls]
        authorities = await self._authorities(target, opening, memory)
        wanted = merge(live, authorities)
        trusted = {one.source: one.certificate for one in authorities}
        touched = memory.recall(_TRUST) is not None
        if touched:
            # Nobody is answered in the name of an authority that is not trusted, at any moment.
            await self._trust.apply(target, {**await self._trust.ours(target), **trusted})
        # To take everything back, nothing need be read: what cannot be read must go all the same.
        if wanted == HttpState() or await self._http.state(target) != wanted:
            await self._http.apply(target, wanted)
        if touched:
            await self._trust.apply(target, trusted)

    async def _authorities(
        self, target: Target, sources: Sequence[str], memory: Memory
    ) -> list[Authority]:
        """Make one for each source, or find it again; none where nobody could be told of it."""
        roots = await self._trust.roots(target) if sources else ""
        if not roots:
            return []
        # Loaded on first use: it is much, and few faults need it.
        from squall.certificates import make_authority  # noqa: PLC0415

        memory.keep(_TRUST, b"changed")
        found = []
        for source in sources:
            made = make_authority(f"Squall {source}"[:_LONGEST_NAME], self._clock.now(), LASTS)
            kept = memory.keep(f"authority {source}", made.certificate + made.key).decode()
            certificate, begin, key = kept.partition("-----BEGIN PRIVATE KEY-----")
            found.append(Authority(source, certificate, roots, begin + key))
        return found
