"""Can this host answer names in the place of a server? Found out on a throw-away target."""

from squall.injection.world.names import TYPES, Answer, NameRule
from squall.injection.world.target import Target
from squall.linux import name_queries, namespaces, throw_away
from squall.linux.name_faults import LinuxNames
from squall.node.doctor import Ability, Capability

LEASE_SECONDS = 10.0
_NAME = "trial.invalid"
_SERVFAIL = 2
_RULE = NameRule("trial/.", (_NAME,), (), Answer("code", _SERVFAIL))
_SECONDS = 1.0


async def answered(name: str, target: Target) -> Capability:
    """Let a name fail, and resolve again, in a target whose loopback device is up.

    Raises:
        SquallError, OSError: it cannot be done here.
    """
    with throw_away.folder() as run:
        names = LinuxNames(run, lease_seconds=LEASE_SECONDS)
        try:
            await names.apply(target, [_RULE])
            felt = await _asked(target)
            await names.apply(target, [])
            after = await _asked(target)
        finally:
            await names.end_all()
    if felt != _SERVFAIL:
        return Capability(name, Ability.MISSING, why="it was accepted, but is not felt")
    if after is not None:
        return Capability(name, Ability.MISSING, why="it could not be taken back")
    return Capability(name, Ability.OK, "nfnetlink_queue, table inet with flags owner")


async def _asked(target: Target) -> int | None:
    """Ask where nobody listens."""
    reply = await name_queries.ask(
        namespaces.of(target), "127.0.0.1", _NAME, TYPES["A"], within_seconds=_SECONDS
    )
    return reply.code if reply else None
